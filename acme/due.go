package acme

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Due reports whether a lineage should be renewed.
type Due struct {
	Now    bool
	Reason string
	At     time.Time // when it will be due if nothing changes; zero if it is due now
	Lacks  []string  // names that are missing, if that is the only reason

	forced  bool // by --force
	changed bool // there is no certificate yet, or the request has changed
}

// Due compares the lineage with what is wanted. force is --force. It makes no
// requests: Client.Refresh updates the CA's renewal information.
func (l *Lineage) Due(want Request, now time.Time, force bool) Due {
	if reason := l.difference(want); reason != "" {
		return Due{Now: true, Reason: reason, changed: !l.Former.is(want)}
	}
	if force {
		return Due{Now: true, Reason: "--force was given", forced: true}
	}
	due := l.dueByTime(now)
	if lacks := missing(l.Leaf, want.Names); len(lacks) > 0 && !due.Now {
		return Due{Now: true, Reason: "it does not cover " + strings.Join(lacks, ", ") + " yet", Lacks: lacks}
	}
	return due
}

// difference is why the live certificate is not for the request, "" if it is.
func (l *Lineage) difference(want Request) string {
	switch {
	case l.Leaf == nil:
		return "there is no certificate yet"
	case l.Directory == "":
		return "there is no record of who issued it and for which request"
	case l.Directory != want.Directory:
		return fmt.Sprintf("the current one is from another CA (%s)", l.Directory)
	case !want.sameNames(l.Names):
		return fmt.Sprintf("the names have changed (they were %s)", strings.Join(l.Names, ", "))
	case keyTypeOf(l.Leaf.PublicKey) != want.Key:
		return fmt.Sprintf("the key type has changed (it was %s)", keyTypeOf(l.Leaf.PublicKey))
	case l.Profile != want.Profile:
		return fmt.Sprintf("the profile has changed (it was %q)", l.Profile)
	}
	return ""
}

func (l *Lineage) dueByTime(now time.Time) Due {
	at := pki.RenewAt(l.Leaf)
	switch {
	case now.After(l.Leaf.NotAfter):
		return Due{Now: true, Reason: "it has expired"}
	case l.Info.about(l.Leaf):
		at = earlier(l.Info.time(), l.Leaf.NotAfter.Add(-l.lifetime()/lastPart))
		if !now.Before(at) {
			return Due{Now: true, Reason: fmt.Sprintf("the CA suggests renewing between %s and %s", say.Time(l.Info.Start), say.Time(l.Info.End))}
		}
		return Due{Reason: "the renewal time suggested by the CA has not been reached", At: at}
	case !now.Before(at):
		return Due{Now: true, Reason: fmt.Sprintf("%s of its lifetime of %s are left", short(l.Leaf.NotAfter.Sub(now)), short(l.lifetime()))}
	}
	return Due{Reason: fmt.Sprintf("%s are left", short(l.Leaf.NotAfter.Sub(now))), At: at}
}

// Planned is when the lineage will be renewed, as far as is known now.
func (l *Lineage) Planned(now time.Time) time.Time {
	same := Request{Directory: l.Directory, Names: l.Names, Key: keyTypeOf(l.Leaf.PublicKey), Profile: l.Profile}
	if due := l.Due(same, now, false); !due.Now {
		return due.At
	}
	return now
}

// In the last eighth of its lifetime a certificate is renewed whatever the CA
// suggests: a window may run up to expiry, and a failure needs time for another
// try. status calls an eighth critical.
const lastPart = 8

func (l *Lineage) lifetime() time.Duration { return pki.Lifetime(l.Leaf) }

const (
	firstWait    = 15 * time.Minute   // after a failure; doubled for each further one
	longestWait  = 8 * time.Hour      // after a failure
	expiredWait  = time.Hour          // after a failure, if the certificate has expired
	adviceWait   = 6 * time.Hour      // between issuances on the CA's advice
	longestLimit = 8 * 24 * time.Hour // that is believed of a Retry-After; Let's Encrypt's longest is a week
)

// Waits are cut to a part of what is left of the live certificate; once little is
// left, to a part of its lifetime.
const (
	partOfLeft  = 4
	leastPart   = 16
	limitOfLeft = 2 // a CA's limit may use up half of what is left
)

// within cuts a wait to a part of the time left.
func (l *Lineage) within(wait time.Duration, now time.Time, part time.Duration) time.Duration {
	if l.Leaf == nil {
		return wait
	}
	left, least := l.Leaf.NotAfter.Sub(now), l.lifetime()/leastPart
	if left <= 0 {
		return min(wait, least, expiredWait)
	}
	return min(wait, max(left/part, min(least, firstWait)))
}

// DefaultInterval is the minimum time between two issuances of the same request.
// Let's Encrypt allows five a week and refills one every 34 hours. A new request
// does not wait, but returning to the previous one does: two timers with different
// requests would otherwise keep undoing each other's work.
const DefaultInterval = 36 * time.Hour

// Delay is a reason to wait although a lineage is due.
type Delay struct {
	Until  time.Time // zero: there is none
	Reason string
	By     Cause
}

// Cause is what makes a run wait.
type Cause int

// The causes. --now ignores all but the last.
const (
	Limit        Cause = iota + 1 // of the CA
	BackOff                       // after failures of the same request
	MissingNames                  // have failed again, and are not worth another failure
	MinInterval                   // between two issuances
)

// Wait returns until when the request must not be tried although it is due, and why.
// Limits are those of one CA, back-off is that of one request to one CA.
func (l *Lineage) Wait(due Due, want Request, interval time.Duration, now time.Time) Delay {
	if limit := l.Limits[want.Directory]; ahead(limit.Until, now, longestLimit) {
		return Delay{limit.Until, "the CA's rate limit is in force: " + limit.Reason, Limit}
	}
	if due.Lacks != nil && want.Subset {
		if m := l.Missed; m != nil && ahead(m.Next, now, longestWait) {
			return Delay{m.Next, m.Reason, MissingNames}
		}
		return Delay{}
	}
	if (l.Tried == nil || l.Tried.is(want)) && ahead(l.Next, now, longestWait) {
		return Delay{l.Next, fmt.Sprintf("attempt %d failed: %s", l.Failures, l.Failure), BackOff}
	}
	if l.Leaf == nil || due.changed || due.Lacks != nil {
		return Delay{}
	}
	if l.Info.about(l.Leaf) && !due.forced {
		interval = min(interval, adviceWait)
	}
	interval = min(interval, l.lifetime()/3)
	if next := l.Issued.Add(interval); ahead(next, now, interval) {
		return Delay{next, fmt.Sprintf("a certificate was issued at %s, and the minimum interval is %s", say.Time(l.Issued), short(interval)), MinInterval}
	}
	return Delay{}
}

// ahead reports whether t is in the future, but no further than most: beyond that
// the clock must have been wrong when it was recorded.
func ahead(t, now time.Time, most time.Duration) bool {
	return now.Before(t) && t.Sub(now) <= most
}

// fail records why no certificate was obtained for the request and when to try again.
func (l *Lineage) fail(want Request, err error, now time.Time) {
	if l.Tried != nil && !l.Tried.is(want) {
		l.Failures = 0
	}
	l.Tried, l.Failure = recorded(want), cut(err.Error())
	l.Failures = min(max(0, l.Failures), 1<<20) // the file may say anything
	l.Next = now.Add(l.backOff(l.Failures, now)).UTC()
	l.Failures++
}

// limit records how long the CA accepts no request.
func (l *Lineage) limit(want Request, err error, now time.Time) {
	delete(l.Limits, want.Directory)
	until := limitOf(err)
	if !until.After(now) {
		return
	}
	if l.Limits == nil {
		l.Limits = map[string]Limited{}
	}
	wait := l.within(min(until.Sub(now), longestLimit), now, limitOfLeft)
	l.Limits[want.Directory] = Limited{now.Add(wait).UTC(), cut(err.Error())}
}

func (l *Lineage) backOff(failures int, now time.Time) time.Duration {
	return l.within(min(firstWait<<min(failures, 10), longestWait), now, partOfLeft)
}

// miss records that names were left out, or failed again, and when to try again.
func (l *Lineage) miss(reason string, now time.Time) {
	if l.Missed == nil {
		l.Missed = &Missed{}
	}
	m := l.Missed
	m.Times = min(max(0, m.Times), 1<<20)
	m.Reason, m.Next = cut(reason), now.Add(l.backOff(m.Times, now)).UTC()
	m.Times++
}

// triesInReserve is how often a renewal is tried at least before the certificate
// expires.
const triesInReserve = 3

// Look records that the lineage is looked at now. If it was not looked at often enough
// for its lifetime, it returns how long ago that was and how often it should be.
func (l *Lineage) Look(now time.Time) (ago, every time.Duration, err error) {
	if l.Leaf == nil {
		return 0, 0, nil
	}
	last := l.Ran
	l.Ran = now.UTC()
	every = l.Leaf.NotAfter.Sub(pki.RenewAt(l.Leaf)) / triesInReserve
	if ago = now.Sub(last); last.IsZero() || ago <= every {
		ago = 0
	}
	return ago, every, l.record()
}

// Settle forgets past failures: nothing is due.
func (l *Lineage) Settle() error {
	if l.Failures == 0 && l.Failure == "" {
		return nil
	}
	l.Tried, l.Failures, l.Failure, l.Next = nil, 0, "", time.Time{}
	return l.record()
}

// cut bounds what comes from outside before it is stored.
func cut(text string) string {
	const most = 2000 // bytes
	if text = say.OneLine(text); len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + " […]"
	}
	return text
}

// limitOf is the latest time among the reasons in err before which the CA wants no
// other try; zero if it named none.
func limitOf(err error) (until time.Time) {
	var failed unproved
	var problem *Problem
	var page *pageError
	switch {
	case errors.As(err, &failed):
		for _, reason := range failed {
			if at := limitOf(reason); at.After(until) {
				until = at
			}
		}
	case errors.As(err, &problem):
		until = problem.Until
	case errors.As(err, &page):
		until = page.until
	}
	return until
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// short formats a duration for people.
func short(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.Round(time.Second).String()
}
