package acme

import (
	"errors"
	"fmt"
	"mailu-hook/internal/pki"
	"strings"
	"time"
)

// Due says whether a lineage is to be renewed.
type Due struct {
	Now    bool
	Reason string
	At     time.Time // when it will be, if nothing changes; zero when it is now

	forced  bool // by a person
	changed bool // there is none yet, or the request is a new one
}

// Due holds the lineage against what is wanted of it. force is a person's word.
// It asks nobody: Client.Refresh brings the CA's renewal information up to date.
func (l *Lineage) Due(want Request, now time.Time, force bool) Due {
	changed := func(format string, args ...any) Due {
		return Due{Now: true, Reason: fmt.Sprintf(format, args...), changed: !l.Former.is(want)}
	}
	switch {
	case l.Leaf == nil:
		return changed("there is no certificate yet")
	case l.Directory == "":
		return changed("it is not known who issued it and for which request")
	case l.Directory != want.Directory:
		return changed("it was issued by another CA (%s)", l.Directory)
	case !want.sameNames(l.Names):
		return changed("the names have changed (they were %s)", strings.Join(l.Names, ", "))
	case keyTypeOf(l.Leaf.PublicKey) != want.Key:
		return changed("the type of its key has changed (it was %s)", keyTypeOf(l.Leaf.PublicKey))
	case l.Profile != want.Profile:
		return changed("the profile has changed (it was %q)", l.Profile)
	case force:
		return Due{Now: true, Reason: "asked for by --force", forced: true}
	case now.After(l.Leaf.NotAfter):
		return Due{Now: true, Reason: "it has expired"}
	case l.Info.about(l.Leaf):
		at := earlier(l.Info.time(), l.Leaf.NotAfter.Add(-l.lifetime()/lastPart))
		if !now.Before(at) {
			return Due{Now: true, Reason: fmt.Sprintf("the CA suggests to renew it between %s and %s", instant(l.Info.Start), instant(l.Info.End))}
		}
		return Due{Reason: "the time that was drawn from the CA's suggestion has not come", At: at}
	}
	at := pki.RenewAt(l.Leaf)
	if !now.Before(at) {
		return Due{Now: true, Reason: fmt.Sprintf("%s of its lifetime of %s are left", short(l.Leaf.NotAfter.Sub(now)), short(l.lifetime()))}
	}
	return Due{Reason: fmt.Sprintf("%s are left", short(l.Leaf.NotAfter.Sub(now))), At: at}
}

// Planned is when the lineage is to be renewed, by what is known of it now.
func (l *Lineage) Planned(now time.Time) time.Time {
	same := Request{Directory: l.Directory, Names: l.Names, Key: keyTypeOf(l.Leaf.PublicKey), Profile: l.Profile}
	if due := l.Due(same, now, false); !due.Now {
		return due.At
	}
	return now
}

// lastPart is the part of a lifetime for which no advice makes a renewal wait: a
// window may end with the certificate, and a failure wants time. status calls an
// eighth critical.
const lastPart = 8

func (l *Lineage) lifetime() time.Duration { return pki.Lifetime(l.Leaf) }

const (
	firstWait    = 15 * time.Minute   // after a failure; doubled for each further one
	longestWait  = 8 * time.Hour      // so that each run of a timer twice a day is a try
	adviceWait   = 6 * time.Hour      // between issuances that the CA's advice asks for
	longestLimit = 8 * 24 * time.Hour // of what a CA says; Let's Encrypt's longest is a week
)

// DefaultInterval is the least time between two issuances of the same request.
// Let's Encrypt allows five in a week, and gives one back every 34 hours. A new
// request needs not wait, but going back to the one before it does: two timers
// that ask for different things would else undo each other's work for ever.
const DefaultInterval = 36 * time.Hour

// Wait tells until when the lineage must not be tried although it is due, and
// why: zero if it may be tried now. insist is a person's word against the waiting
// time after failures, and not against the CA's limit.
func (l *Lineage) Wait(due Due, interval time.Duration, now time.Time, insist bool) (until time.Time, reason string) {
	if ahead(l.Limited, now, longestLimit) {
		return l.Limited, "the CA takes no request before: " + l.Failure
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
		return next, fmt.Sprintf("a certificate was issued at %s, and the least interval is %s", instant(l.Issued), short(interval))
	}
	return time.Time{}, ""
}

// ahead tells whether t is yet to come, but not further away than most, as if the
// clock had been wrong once.
func ahead(t, now time.Time, most time.Duration) bool {
	return now.Before(t) && t.Sub(now) <= most
}

// fail remembers why no certificate was obtained, and when to try again.
func (l *Lineage) fail(err error, now time.Time) {
	l.Failure, l.Limited = err.Error(), time.Time{}
	if until := limit(err); !until.IsZero() {
		l.Limited = earlier(until, now.Add(longestLimit)).UTC()
	}
	l.Failures = min(max(0, l.Failures), 1<<20) // a file can say anything
	l.Next = now.Add(min(firstWait<<min(l.Failures, 10), longestWait)).UTC()
	l.Failures++
}

// limit is the time before which the CA wants no other try, of all the reasons
// in err the latest; zero if it did not say.
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

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short is a duration as people say it.
func short(d time.Duration) string {
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.Round(time.Second).String()
}
