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
		assert.Zero(t, l.Wait(due, r, DefaultInterval, began.Add(2*time.Hour)), want)
	}
}

func TestTheCAsAdviceTakesPrecedenceOverTheLifetime(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	l.Info = &Info{Leaf: pki.Fingerprint(l.Leaf), Start: began.Add(5 * day), End: began.Add(7 * day), Draw: began.Add(6 * day)}
	dueFrom(t, l, want, began.Add(6*day-time.Hour), "a run an hour later may be the next")
	l.Info.Draw = began.Add(5*day + time.Minute)
	dueFrom(t, l, want, began.Add(5*day), "never before the window")

	l.Info.Start, l.Info.Draw = began.Add(65*day), began.Add(75*day)
	dueFrom(t, l, want, began.Add(75*day-time.Hour), "later than by the lifetime, too")
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
	assert.Zero(t, l.Wait(l.Due(other, now, false), other, DefaultInterval, now), "a new request")

	l.Former = &Former{other.Directory, other.Names, other.Key, other.Profile}
	d := l.Wait(l.Due(other, now, false), other, DefaultInterval, now)
	assert.Equal(t, l.Issued.Add(DefaultInterval), d.Until, "the previous one")
	assert.Equal(t, MinInterval, d.By)
	assert.Contains(t, d.Reason, "minimum interval")
	other.Key = RSA2048
	assert.Zero(t, l.Wait(l.Due(other, now, false), other, DefaultInterval, now), "not quite the previous one")
}

func TestTheMinimumIntervalBetweenIssuances(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lifetime, since, interval time.Duration
		advice, force             bool
		waits                     bool
	}{
		"by age, soon after":            {lifetime: 90 * day, since: time.Hour, interval: DefaultInterval, waits: true},
		"by age, late enough":           {lifetime: 90 * day, since: DefaultInterval, interval: DefaultInterval},
		"by advice, soon after":         {lifetime: 90 * day, since: time.Hour, interval: DefaultInterval, advice: true, waits: true},
		"by advice, after six hours":    {lifetime: 90 * day, since: 6 * time.Hour, interval: DefaultInterval, advice: true},
		"by force, soon after":          {lifetime: 90 * day, since: 7 * time.Hour, interval: DefaultInterval, force: true, waits: true},
		"by force against advice":       {lifetime: 90 * day, since: 7 * time.Hour, interval: DefaultInterval, force: true, advice: true, waits: true},
		"by force, and no interval":     {lifetime: 90 * day, since: time.Minute, interval: time.Second, force: true},
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
			d := l.Wait(due, want, c.interval, now)
			assert.Equal(t, c.waits, !d.Until.IsZero(), d.Reason)
			if c.waits {
				assert.Equal(t, MinInterval, d.By)
				assert.Contains(t, d.Reason, "minimum interval")
				assert.Zero(t, l.Wait(due, want, c.interval, d.Until))
			}
		})
	}
}

func TestTheTextOfARequestCannotForceARenewal(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	l.Profile = "--force"
	now := began.Add(2 * time.Hour)
	assert.Zero(t, l.Wait(l.Due(want, now, false), want, DefaultInterval, now), "a changed profile waits for nothing")
}

func TestEachFailureDoublesTheBackOff(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	now := began.Add(80 * day)
	wait := func(now time.Time) Delay { return l.Wait(l.Due(want, now, false), want, DefaultInterval, now) }
	for n, after := range []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 8 * time.Hour} {
		l.fail(want, errors.New("the reason"), now)
		assert.Equal(t, n+1, l.Failures)
		assert.Equal(t, now.Add(after), l.Next)
		d := wait(now)
		assert.Equal(t, l.Next, d.Until)
		assert.Equal(t, BackOff, d.By)
		assert.Contains(t, d.Reason, "the reason")
		assert.Zero(t, wait(l.Next))
	}
	l.Failures = 1 << 30
	l.fail(want, errors.New("x"), now)
	assert.Equal(t, now.Add(longestWait), l.Next)
	l.Failures = -5 // as in a file that somebody edited
	l.fail(want, errors.New("x"), now)
	assert.Equal(t, now.Add(firstWait), l.Next)
	assert.Equal(t, 1, l.Failures)
}

func TestTheBackOffIsAFractionOfTheTimeLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lifetime, left, after time.Duration
		failures              int
	}{
		"5 minutes, half left":       {5 * time.Minute, 150 * time.Second, 37500 * time.Millisecond, 0},
		"5 minutes, expired":         {5 * time.Minute, -time.Minute, 18750 * time.Millisecond, 6},
		"a day, 8 hours left":        {day, 8 * time.Hour, 2 * time.Hour, 6},
		"a day, an hour left":        {day, time.Hour, 15 * time.Minute, 6},
		"a day, first failure":       {day, 8 * time.Hour, 15 * time.Minute, 0},
		"90 days, much left":         {90 * day, 30 * day, 8 * time.Hour, 6},
		"90 days, expired":           {90 * day, -time.Hour, time.Hour, 6},
		"90 days, expired, at first": {90 * day, -time.Hour, 15 * time.Minute, 0},
	} {
		l, want := lineageOf(t, began, c.lifetime)
		now := began.Add(c.lifetime - c.left)
		l.Failures = c.failures
		l.fail(want, errors.New("down"), now)
		assert.Equal(t, now.Add(c.after), l.Next, name)
	}
}

func TestBackOffIsKeptPerRequestAndLimitsPerCA(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	now := began.Add(80 * day)
	wait := func(want Request) Delay { return l.Wait(l.Due(want, now, false), want, DefaultInterval, now) }
	limited := &Problem{Type: "rateLimited", Until: now.Add(2 * day)}
	l.fail(want, limited, now)
	l.limit(want, limited, now)
	assert.Equal(t, Limit, wait(want).By)

	more := want
	more.Names = []string{"mail.example.com", "b.example.com"}
	assert.Equal(t, Limit, wait(more).By, "the CA's limit holds for all requests")
	other := want
	other.Directory = LetsEncryptStaging
	assert.Zero(t, wait(other), "and for no other CA")

	l.fail(other, errors.New("down"), now)
	assert.Equal(t, 1, l.Failures, "of this request")
	assert.Equal(t, BackOff, wait(other).By)
	assert.Equal(t, Limit, wait(want).By, "which the first CA's limit survives")
	delete(l.Limits, want.Directory)
	assert.Zero(t, wait(want), "the back-off is about the other request")
	corrected := other
	corrected.Names = []string{"mail.example.org"}
	assert.Zero(t, wait(corrected))
}

func TestACAsLimitIsCutToHalfOfTheTimeLeft(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ left, said, kept time.Duration }{
		"an hour":                {10 * day, time.Hour, time.Hour},
		"a week, 10 days left":   {10 * day, 7 * day, 5 * day},
		"a week, a month left":   {30 * day, 7 * day, 7 * day},
		"a year":                 {30 * day, 365 * day, longestLimit},
		"68 years":               {30 * day, 2147483647 * time.Second, longestLimit},
		"a week, an hour left":   {time.Hour, 7 * day, 30 * time.Minute},
		"a week, it has expired": {-time.Hour, 7 * day, expiredWait},
	} {
		l, want := lineageOf(t, began, 90*day)
		now := began.Add(90*day - c.left)
		l.limit(want, unproved{"mail.example.com": &Problem{Type: "rateLimited", Until: now.Add(c.said)}}, now)
		d := l.Wait(l.Due(want, now, true), want, time.Second, now)
		assert.Equal(t, now.Add(c.kept), d.Until, name)
		assert.Contains(t, d.Reason, "the CA's rate limit is in force")
		l.limit(want, errors.New("another"), now)
		assert.Zero(t, l.Wait(l.Due(want, now, true), want, time.Second, now), "the last response counts")
	}
	l := &Lineage{}
	l.limit(Request{}, &Problem{Until: began.Add(365 * day)}, began)
	assert.Equal(t, began.Add(longestLimit), l.Limits[""].Until, "without a certificate")
}

func TestAMissingNameIsDueAgainWithBackOff(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	now := began.Add(2 * time.Hour)
	want.Names = []string{"mail.example.com", "imap.example.com"}
	l.Names = want.Names // were asked for, and one was dropped
	for _, subset := range []bool{false, true} {
		want.Subset = subset
		due := l.Due(want, now, false)
		assert.True(t, due.Now)
		assert.Equal(t, []string{"imap.example.com"}, due.Lacks)
		assert.Zero(t, l.Wait(due, want, DefaultInterval, now), "the minimum interval is for complete certificates")
	}
	l.miss("no such host", now)
	d := l.Wait(l.Due(want, now, false), want, DefaultInterval, now)
	assert.Equal(t, Delay{now.Add(firstWait), "no such host", MissingNames}, d)
	l.miss("no such host", now)
	assert.Equal(t, now.Add(2*firstWait), l.Missed.Next)
	want.Subset = false
	assert.Zero(t, l.Wait(l.Due(want, now, false), want, DefaultInterval, now), "it is wanted now")
	assert.Nil(t, l.Due(want, began.Add(70*day), false).Lacks, "a renewal is for all names anyway")
	assert.Zero(t, l.Failures)
}

func TestARunThatIsNotDueForgetsPastFailures(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	l.state = openState(t, t.TempDir())
	l.fail(want, errors.New("down"), began)
	require.Equal(t, 1, l.Failures)
	require.NoError(t, l.Settle())
	assert.Zero(t, l.Failures)
	assert.Empty(t, l.Failure)
	again, err := l.state.Lineage(l.Name)
	require.NoError(t, err)
	assert.Zero(t, again.Failures, "also for status")
}

func TestATimerThatDoesNotFitTheLifetimeIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lifetime, ago, every time.Duration
		found                bool
	}{
		"90 days, twice a day":  {90 * day, 12 * time.Hour, 10 * day, false},
		"90 days, once a month": {90 * day, 30 * day, 10 * day, true},
		"a day, hourly":         {day, 90 * time.Minute, 4 * time.Hour, false},
		"a day, twice a day":    {day, 12 * time.Hour, 4 * time.Hour, true},
		"5 minutes, hourly":     {5 * time.Minute, time.Hour, 50 * time.Second, true},
	} {
		l, _ := lineageOf(t, began, c.lifetime)
		l.state = openState(t, t.TempDir())
		now := began.Add(c.lifetime / 2)
		ago, _, err := l.Look(now.Add(-c.ago))
		require.NoError(t, err)
		assert.Zero(t, ago, "%s: the first time", name)
		ago, every, err := l.Look(now)
		require.NoError(t, err)
		assert.Equal(t, c.every, every, name)
		if c.found {
			assert.Equal(t, c.ago, ago, name)
		} else {
			assert.Zero(t, ago, name)
		}
	}
}

func TestAClockThatWasOnceWrongBlocksNothing(t *testing.T) {
	t.Parallel()
	l, want := lineageOf(t, began, 90*day)
	wrong, now := at("2035-01-01T00:00:00Z"), began.Add(80*day)
	limited := &Problem{Type: "rateLimited", Until: wrong.Add(time.Hour)}
	l.fail(want, limited, wrong)
	l.limit(want, limited, wrong)
	l.miss("x", wrong)
	l.Info = &Info{Leaf: pki.Fingerprint(l.Leaf), Next: wrong}
	l.Issued = wrong
	assert.Zero(t, l.Wait(l.Due(want, now, false), want, DefaultInterval, now))
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
