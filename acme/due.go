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

	forced  bool // by --force
	changed bool // there is no certificate yet, or the request has changed
}

// Due compares the lineage with what is wanted. force is --force. It makes no
// requests: Client.Refresh updates the CA's renewal information.
func (l *Lineage) Due(want Request, now time.Time, force bool) Due {
	changed := func(format string, args ...any) Due {
		return Due{Now: true, Reason: fmt.Sprintf(format, args...), changed: !l.Former.is(want)}
	}
	switch {
	case l.Leaf == nil:
		return changed("there is no certificate yet")
	case l.Directory == "":
		return changed("there is no record of who issued it and for which request")
	case l.Directory != want.Directory:
		return changed("the current one is from another CA (%s)", l.Directory)
	case !want.sameNames(l.Names):
		return changed("the names have changed (they were %s)", strings.Join(l.Names, ", "))
	case keyTypeOf(l.Leaf.PublicKey) != want.Key:
		return changed("the key type has changed (it was %s)", keyTypeOf(l.Leaf.PublicKey))
	case l.Profile != want.Profile:
		return changed("the profile has changed (it was %q)", l.Profile)
	case force:
		return Due{Now: true, Reason: "--force was given", forced: true}
	case now.After(l.Leaf.NotAfter):
		return Due{Now: true, Reason: "it has expired"}
	case l.Info.about(l.Leaf):
		at := earlier(l.Info.time(), l.Leaf.NotAfter.Add(-l.lifetime()/lastPart))
		if !now.Before(at) {
			return Due{Now: true, Reason: fmt.Sprintf("the CA suggests renewing between %s and %s", say.Time(l.Info.Start), say.Time(l.Info.End))}
		}
		return Due{Reason: "the renewal time suggested by the CA has not been reached", At: at}
	}
	at := pki.RenewAt(l.Leaf)
	if !now.Before(at) {
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
	longestWait  = 8 * time.Hour      // so that a timer that runs twice a day tries each time
	adviceWait   = 6 * time.Hour      // between issuances on the CA's advice
	longestLimit = 8 * 24 * time.Hour // that is believed of a Retry-After; Let's Encrypt's longest is a week
)

// DefaultInterval is the minimum time between two issuances of the same request.
// Let's Encrypt allows five a week and refills one every 34 hours. A new request
// does not wait, but returning to the previous one does: two timers with different
// requests would otherwise keep undoing each other's work.
const DefaultInterval = 36 * time.Hour

// Wait returns until when a lineage that is due must not be tried, and why; zero if
// it may be tried now. insist is --now: it ignores the back-off after failures, but
// not the CA's limit.
func (l *Lineage) Wait(due Due, interval time.Duration, now time.Time, insist bool) (until time.Time, reason string) {
	if ahead(l.Limited, now, longestLimit) {
		return l.Limited, "the CA's rate limit is in force: " + l.Failure
	}
	if !insist && ahead(l.Next, now, longestWait) {
		return l.Next, fmt.Sprintf("attempt %d failed: %s", l.Failures, l.Failure)
	}
	if l.Leaf == nil || due.changed {
		return time.Time{}, ""
	}
	if l.Info.about(l.Leaf) && !due.forced {
		interval = min(interval, adviceWait)
	}
	interval = min(interval, l.lifetime()/3)
	if next := l.Issued.Add(interval); ahead(next, now, interval) {
		return next, fmt.Sprintf("a certificate was issued at %s, and the minimum interval is %s", say.Time(l.Issued), short(interval))
	}
	return time.Time{}, ""
}

// ahead reports whether t is in the future, but no further than most: beyond that
// the clock must have been wrong when it was recorded.
func ahead(t, now time.Time, most time.Duration) bool {
	return now.Before(t) && t.Sub(now) <= most
}

// fail records why no certificate was obtained and when to try again.
func (l *Lineage) fail(err error, now time.Time) {
	l.Failure, l.Limited = err.Error(), time.Time{}
	if until := limit(err); !until.IsZero() {
		l.Limited = earlier(until, now.Add(longestLimit)).UTC()
	}
	l.Failures = min(max(0, l.Failures), 1<<20) // the file may say anything
	l.Next = now.Add(min(firstWait<<min(l.Failures, 10), longestWait)).UTC()
	l.Failures++
}

// limit is the latest time among the reasons in err before which the CA wants no
// other try; zero if it named none.
func limit(err error) (until time.Time) {
	var failed unproved
	var problem *Problem
	var page *pageError
	switch {
	case errors.As(err, &failed):
		for _, reason := range failed {
			if at := limit(reason); at.After(until) {
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
