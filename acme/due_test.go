package acme

import (
	"errors"
	"testing"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
)

// lineageOf is one whose leaf began at a time and lasts so long.
func lineageOf(t *testing.T, from time.Time, lifetime time.Duration) (*Lineage, Request) {
	t.Helper()
	want := Request{Directory: LetsEncrypt, Names: []string{"mail.example.com"}, Key: EC256, Profile: "classic"}
	l := &Lineage{Name: "mail.example.com", Leaf: issue(t, mint.Leaf{NotBefore: from, NotAfter: from.Add(lifetime)}).Cert}
	l.Record = Record{Directory: want.Directory, Names: want.Names, Profile: want.Profile, Issued: from.Add(time.Hour)}
	return l, want
}

var began = at("2026-09-01T00:00:00Z")

func TestWithoutAdviceRenewalIsDueWithAThirdOfTheLifetimeLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lifetime, age time.Duration
		due           bool
	}{
		"90 days, new":       {90 * day, time.Hour, false},
		"90 days, just not":  {90 * day, 60*day - time.Second, false},
		"90 days, just":      {90 * day, 60 * day, true},
		"90 days, expired":   {90 * day, 91 * day, true},
		"45 days, just not":  {45 * day, 30*day - time.Second, false},
		"45 days, just":      {45 * day, 30 * day, true},
		"160 hours, not":     {160 * time.Hour, 79 * time.Hour, false},
		"160 hours, half":    {160 * time.Hour, 80 * time.Hour, true},
		"ten days, not half": {10 * day, 6 * day, false},
		"ten days, third":    {10 * day, 7 * day, true},
		"an hour, half":      {time.Hour, 30 * time.Minute, true},
		"from the future":    {90 * day, -5 * day, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, want := lineageOf(t, began, c.lifetime)
			due := l.Due(want, began.Add(c.age), false)
			assert.Equal(t, c.due, due.Now, due.Reason)
			assert.Equal(t, c.due, due.At.IsZero())
			assert.NotEmpty(t, due.Reason)
			if !c.due {
				assert.True(t, l.Due(want, due.At, false).Now, "at the time that it names")
			}
		})
	}
}

func TestAChangedRequestIsDueAtOnce(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Lineage, *Request){
		"no certificate yet":                      func(l *Lineage, _ *Request) { l.Leaf = nil },
		"another CA":                              func(_ *Lineage, r *Request) { r.Directory = LetsEncryptStaging },
		"no record of who issued it":              func(l *Lineage, _ *Request) { l.Record = Record{} },
		"names have changed (they were mail.exam": func(_ *Lineage, r *Request) { r.Names = []string{"mail.example.com", "b.example.com"} },
		"key type has changed (it was ec256)":     func(_ *Lineage, r *Request) { r.Key = RSA2048 },
		"profile has changed":                     func(_ *Lineage, r *Request) { r.Profile = "shortlived" },
	} {
		l, r := lineageOf(t, began, 90*day)
		change(l, &r)
		due := l.Due(r, began.Add(2*time.Hour), false)
		assert.True(t, due.Now)
		assert.Contains(t, due.Reason, want)
		until, _ := l.Wait(due, DefaultInterval, began.Add(2*time.Hour), false)
		assert.Zero(t, until, want)
	}
}

func TestTheCAsAdviceTakesPrecedenceOverTheLifetime(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	l.Info = &Info{Leaf: pki.Fingerprint(l.Leaf), Start: began.Add(5 * day), End: began.Add(7 * day), Draw: began.Add(6 * day)}
	dueFrom(t, l, want, began.Add(6*day-12*time.Hour), "a run half a day later may be the next")
	l.Info.Draw = began.Add(5*day + time.Hour)
	dueFrom(t, l, want, began.Add(5*day), "never before the window")

	l.Info.Start, l.Info.Draw = began.Add(65*day), began.Add(75*day)
	dueFrom(t, l, want, began.Add(75*day-12*time.Hour), "later than by the lifetime, too")
	l.Info.Draw = began.Add(90*day - time.Minute)
	dueFrom(t, l, want, began.Add(90*day*7/8), "but not in the last eighth")

	l.Info.Leaf = "another"
	assert.True(t, l.Due(want, began.Add(70*day), false).Now, "advice about another certificate is none")
	l.Info = &Info{Leaf: pki.Fingerprint(l.Leaf)}
	assert.True(t, l.Due(want, began.Add(70*day), false).Now, "no window is no advice")
}

// dueFrom: at a time, and not a second before.
func dueFrom(t *testing.T, l *Lineage, want Request, from time.Time, because string) {
	t.Helper()
	before := l.Due(want, from.Add(-time.Second), false)
	assert.False(t, before.Now, because)
	assert.Equal(t, from, before.At, because)
	assert.True(t, l.Due(want, from, false).Now, because)
}

func TestReturningToThePreviousRequestWaits(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	now := l.Issued.Add(time.Hour)
	other := want
	other.Names = []string{"mail.example.com", "b.example.com"}
	until, _ := l.Wait(l.Due(other, now, false), DefaultInterval, now, true)
	assert.Zero(t, until, "a new request")

	l.Former = &Former{other.Directory, other.Names, other.Key, other.Profile}
	until, reason := l.Wait(l.Due(other, now, false), DefaultInterval, now, true)
	assert.Equal(t, l.Issued.Add(DefaultInterval), until, "the one before this")
	assert.Contains(t, reason, "minimum interval")
	other.Key = RSA2048
	until, _ = l.Wait(l.Due(other, now, false), DefaultInterval, now, true)
	assert.Zero(t, until, "not quite the one before this")
}

func TestTheMinimumIntervalBetweenIssuances(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lifetime, since, interval time.Duration
		advice, force, insist     bool
		waits                     bool
	}{
		"by age, soon after":            {lifetime: 90 * day, since: time.Hour, interval: DefaultInterval, waits: true},
		"by age, late enough":           {lifetime: 90 * day, since: DefaultInterval, interval: DefaultInterval},
		"by advice, soon after":         {lifetime: 90 * day, since: time.Hour, interval: DefaultInterval, advice: true, waits: true},
		"by advice, after six hours":    {lifetime: 90 * day, since: 6 * time.Hour, interval: DefaultInterval, advice: true},
		"by force, soon after":          {lifetime: 90 * day, since: 7 * time.Hour, interval: DefaultInterval, force: true, waits: true},
		"by force against advice":       {lifetime: 90 * day, since: 7 * time.Hour, interval: DefaultInterval, force: true, advice: true, waits: true},
		"by force, and no interval":     {lifetime: 90 * day, since: time.Minute, interval: time.Second, force: true},
		"--now does not help":           {lifetime: 90 * day, since: time.Hour, interval: DefaultInterval, insist: true, waits: true},
		"a short life, a short wait":    {lifetime: 6 * time.Hour, since: 2 * time.Hour, interval: DefaultInterval},
		"issued by a clock in 2035":     {lifetime: 90 * day, since: -9 * 365 * day, interval: DefaultInterval},
		"issued by a clock a bit ahead": {lifetime: 90 * day, since: -time.Hour, interval: DefaultInterval},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, want := lineageOf(t, began, c.lifetime)
			now := began.Add(c.lifetime * 9 / 10)
			l.Issued = now.Add(-c.since)
			if c.advice {
				l.Info = &Info{Leaf: pki.Fingerprint(l.Leaf), Draw: began, Start: began, End: now}
			}
			due := l.Due(want, now, c.force)
			require.True(t, due.Now)
			until, reason := l.Wait(due, c.interval, now, c.insist)
			assert.Equal(t, c.waits, !until.IsZero(), reason)
			if c.waits {
				assert.Contains(t, reason, "minimum interval")
				next, _ := l.Wait(due, c.interval, until, c.insist)
				assert.Zero(t, next)
			}
		})
	}
}

func TestTheTextOfARequestCannotForceARenewal(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	l.Profile = "--force"
	now := began.Add(2 * time.Hour)
	until, _ := l.Wait(l.Due(want, now, false), DefaultInterval, now, false)
	assert.Zero(t, until, "a changed profile waits for nothing")
}

func TestEachFailureDoublesTheBackOff(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	now := began.Add(80 * day)
	for n, wait := range []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 8 * time.Hour} {
		l.fail(errors.New("the reason"), now)
		assert.Equal(t, n+1, l.Failures)
		assert.Equal(t, now.Add(wait), l.Next)
		until, reason := l.Wait(l.Due(want, now, false), DefaultInterval, now, false)
		assert.Equal(t, l.Next, until)
		assert.Contains(t, reason, "the reason")
		until, _ = l.Wait(l.Due(want, now, false), DefaultInterval, now, true)
		assert.Zero(t, until, "a person may insist")
		until, _ = l.Wait(l.Due(want, now, false), DefaultInterval, l.Next, false)
		assert.Zero(t, until)
	}
	l.Failures = 1 << 30
	l.fail(errors.New("x"), now)
	assert.Equal(t, now.Add(longestWait), l.Next)
	l.Failures = -5 // as in a file that somebody edited
	l.fail(errors.New("x"), now)
	assert.Equal(t, now.Add(firstWait), l.Next)
	assert.Equal(t, 1, l.Failures)
}

func TestTheCAsLimitIsKeptEvenWithNow(t *testing.T) {
	t.Parallel()
	now := began.Add(80 * day)
	for name, c := range map[string]struct{ said, kept time.Time }{
		"an hour":  {now.Add(time.Hour), now.Add(time.Hour)},
		"a week":   {now.Add(7 * day), now.Add(7 * day)},
		"a year":   {now.Add(365 * day), now.Add(longestLimit)},
		"68 years": {now.Add(2147483647 * time.Second), now.Add(longestLimit)},
	} {
		l, want := lineageOf(t, began, 90*day)
		l.fail(unproved{"mail.example.com": &Problem{Type: "rateLimited", Until: c.said}}, now)
		until, reason := l.Wait(l.Due(want, now, true), time.Second, now, true)
		assert.Equal(t, c.kept, until, name)
		assert.Contains(t, reason, "the CA's rate limit is in force")
		l.fail(errors.New("another"), now)
		until, _ = l.Wait(l.Due(want, now, true), time.Second, now, true)
		assert.Zero(t, until, "the last answer counts")
	}
}

func TestAClockThatWasOnceWrongBlocksNothing(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	wrong, now := at("2035-01-01T00:00:00Z"), began.Add(80*day)
	l.fail(&Problem{Type: "rateLimited", Until: wrong.Add(time.Hour)}, wrong)
	l.Info = &Info{Leaf: pki.Fingerprint(l.Leaf), Next: wrong}
	l.Issued = wrong
	until, reason := l.Wait(l.Due(want, now, false), DefaultInterval, now, false)
	assert.Zero(t, until, reason)
	assert.True(t, l.Info.stale(l.Leaf, now))
}

func TestImplausibleWindowsAreIgnored(t *testing.T) {
	t.Parallel()
	l, _ := lineageOf(t, began, 90*day)
	window := func(from, to time.Duration) lego.Window {
		return lego.Window{Start: began.Add(from), End: began.Add(to)}
	}
	for name, c := range map[string]struct {
		w  lego.Window
		ok bool
	}{
		"Let's Encrypt's":            {window(60*day, 62*day), true},
		"for a revoked one":          {window(-time.Hour, -time.Minute), true},
		"up to the end":              {window(60*day, 90*day), true},
		"zero":                       {lego.Window{}, false},
		"inverted":                   {window(62*day, 60*day), false},
		"of no length":               {window(60*day, 60*day), false},
		"beyond the end":             {window(60*day, 91*day), false},
		"after the end":              {window(100*day, 101*day), false},
		"long before it began":       {window(-30*day, 60*day), false},
		"from the beginning of time": {lego.Window{Start: time.Time{}, End: began.Add(60 * day)}, false},
	} {
		err := plausible(c.w, l.Leaf)
		assert.Equal(t, c.ok, err == nil, "%s: %v", name, err)
		for range 100 {
			if err == nil {
				at := draw(c.w)
				assert.False(t, at.Before(c.w.Start) || at.After(c.w.End))
			}
		}
	}
	drawn := map[time.Time]bool{}
	for range 20 {
		drawn[draw(window(60*day, 62*day))] = true
	}
	assert.Greater(t, len(drawn), 10, "each in its turn")
}

func TestTheIntervalBetweenRequestsForRenewalInformationIsBounded(t *testing.T) {
	t.Parallel()
	for said, want := range map[time.Duration]time.Duration{0: 6 * time.Hour, time.Second: time.Minute, time.Hour: time.Hour, day: day, 1000 * day: day} {
		assert.Equal(t, want, clamp(said))
	}
}

func TestDurationsAreReadable(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{90 * day: "90 days", 36 * time.Hour: "36 hours", 90 * time.Minute: "1h30m0s", -time.Second: "-1s"} {
		assert.Equal(t, want, short(d))
	}
}
