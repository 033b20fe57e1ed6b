package hook

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/say"
)

// guarded is a scene whose guard rules as it is told, and counts.
type guarded struct {
	*scene
	ruling Ruling
	asked  []string // leaves
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{scene: newScene(t)}
	g.o.Grace = time.Hour
	g.o.Guard = func(_ context.Context, b *Bundle) Ruling {
		g.asked = append(g.asked, b.Fingerprint())
		return g.ruling
	}
	return g
}

func (g *guarded) says(held, doubt string, ttl time.Duration) {
	g.ruling = Ruling{TTL: ttl}
	if held != "" {
		g.ruling.Objection = &Rejection{File: "fullchain.pem", Fact: held, Remedy: "publish it", Leaf: g.new.Leaf()}
	}
	if doubt != "" {
		g.ruling.Doubt = &Rejection{File: "fullchain.pem", Fact: doubt, Remedy: "try again", Leaf: g.new.Leaf()}
	}
}

func (g *guarded) assertHeld(t *testing.T, r Result, err error, fact string) {
	t.Helper()
	var rejection *Rejection
	require.ErrorAs(t, err, &rejection)
	assert.Contains(t, rejection.Fact, fact)
	assert.Regexp(t, `^(publish it|try again|wait until then); mailu-hook sync installs it once DANE allows$`, rejection.Hint())
	assert.Regexp(t, `^held back: `, rejection.Fact)
	assert.Equal(t, g.new.CertFile, rejection.File)
	assert.Equal(t, OutcomeRejected, r.Outcome)
	assert.Equal(t, g.old.Fingerprint(), onDisk(t, g.dir))
	assert.Equal(t, g.all(g.old), g.shown())
	assert.NotContains(t, g.f.Calls(), StepReload)
	assertSteps(t, r, StepLook, StepValidate, StepConsult)
	state := remembered(t, g.dir)
	require.NotNil(t, state.Pending)
	assert.Equal(t, g.new.Fingerprint(), state.Pending.Leaf)
	assert.Equal(t, g.new.Lineage, state.Pending.Lineage)
	assert.Contains(t, state.Pending.Reason, fact)
	assert.False(t, state.Pending.Waits(time.Now()), "sync asks again each time")
	assert.Equal(t, OutcomeRejected, state.Last.Outcome)
	require.True(t, state.knows(g.new.Lineage, g.new.Fingerprint()), "sync finds it again")
}

// pass lets time pass, as far as what is remembered can tell.
func (g *guarded) pass(t *testing.T, d time.Duration) {
	t.Helper()
	s, err := OpenStore(placeOf(g.dir))
	require.NoError(t, err)
	defer s.Close()
	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	state, err := s.State()
	require.NoError(t, err)
	state.Guarded.Clear = state.Guarded.Clear.Add(-d)
	require.NoError(t, s.Record(state))
}

func TestWhatTheGuardHoldsBackIsInstalledOnceNobodyRemembersWhy(t *testing.T) {
	g := newGuarded(t)
	files := snapshot(t, g.dir)
	g.says("no record matches", "", 10*time.Minute)
	for range 2 {
		r, err := g.deploy(t, g.new)
		g.assertHeld(t, r, err, "no record matches")
		assert.Zero(t, r.Next)
	}
	for _, name := range []string{"/cert.pem", "/key.pem"} {
		assert.Equal(t, files[g.dir+name], snapshot(t, g.dir)[g.dir+name], "not even adopted")
	}

	g.says("", "", time.Minute)
	r, err := g.deploy(t, g.new)
	g.assertHeld(t, r, err, "resolvers may cache the old ones until")
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), r.Next, 5*time.Second, "the longer TTL counts")
	g.pass(t, 9*time.Minute)
	r, err = g.deploy(t, g.new)
	g.assertHeld(t, r, err, "resolvers may cache the old ones until")

	g.pass(t, time.Minute+2*time.Second)
	r, err = g.deploy(t, g.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	state := remembered(t, g.dir)
	assert.Nil(t, state.Pending)
	assert.Nil(t, state.Guarded)
}

func TestTheGuardIsAskedOnlyAboutWhatWouldBeInstalled(t *testing.T) {
	g := newGuarded(t)
	expired := parsed(t, issue(t, mint.Leaf{NotAfter: time.Now().Add(-2 * time.Hour)}))
	_, err := g.deploy(t, expired)
	require.Error(t, err)
	older := aged(t, 3*time.Hour)
	r, err := g.deploy(t, older)
	require.NoError(t, err)
	assert.Equal(t, OutcomeSkipped, r.Outcome)
	assert.Empty(t, g.asked)

	_, err = g.deploy(t, g.new)
	require.NoError(t, err)
	r, err = g.deploy(t, g.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
	g.port(25).shows = g.old.Fingerprint() // installed, but not served: that is to be mended, whatever anybody says
	g.says("no record matches", "", 0)
	r, err = g.deploy(t, g.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, []string{g.new.Fingerprint()}, g.asked)
}

func TestADeployByHandIsHeldBackToo(t *testing.T) {
	g := newGuarded(t)
	g.o.ByHand = true
	g.says("no record matches", "", 0)
	r, err := g.deploy(t, g.new)
	g.assertHeld(t, r, err, "no record matches")

	g.new.Lineage = ""
	_, err = g.deploy(t, g.new)
	assert.Equal(t, "publish it; then run this again", say.HintOf(err), "sync would not find it")
}

func TestADryRunTellsWhatIsHeldBackAndRemembersNothing(t *testing.T) {
	g := newGuarded(t)
	g.o.DryRun = true
	g.says("no record matches", "", 0)
	before := snapshot(t, g.dir)
	r, err := g.deploy(t, g.new)
	require.ErrorContains(t, err, "no record matches")
	assert.Equal(t, OutcomeRejected, r.Outcome)
	assert.Equal(t, before, snapshot(t, g.dir))
	g.says("", "", 0)
	r, err = g.deploy(t, g.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeWouldInstall, r.Outcome)
}

func TestNothingIsHeldBackIntoExpiry(t *testing.T) {
	for name, c := range map[string]struct {
		old  func(t *testing.T) *Bundle
		want string
	}{
		"ends within the grace": {func(t *testing.T) *Bundle {
			return parsed(t, issue(t, mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(59 * time.Minute)}))
		}, "because the current certificate expires at"},
		"has ended": {func(t *testing.T) *Bundle {
			return parsed(t, issue(t, mint.Leaf{NotAfter: time.Now().Add(-time.Minute)}))
		}, "because the current certificate expires at"},
		"is no pair": {func(t *testing.T) *Bundle { b := *aged(t, time.Hour); b.keyPEM = aged(t, time.Hour).keyPEM; return &b }, "because there is nothing else to serve"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuarded(t)
			writePair(t, g.dir, c.old(t))
			g.says("no record matches", "", 0)
			r, err := g.deploy(t, g.new)
			require.NoError(t, err)
			assert.Equal(t, OutcomeInstalled, r.Outcome)
			require.Len(t, r.Warnings, 1)
			assert.Contains(t, r.Warnings[0], c.want)
			assert.Contains(t, r.Warnings[0], "no record matches; publish it")
		})
	}
	t.Run("ends after the grace", func(t *testing.T) {
		g := newGuarded(t)
		writePair(t, g.dir, parsed(t, issue(t, mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(61 * time.Minute)})))
		g.says("no record matches", "", 0)
		_, err := g.deploy(t, g.new)
		require.ErrorContains(t, err, "no record matches")
	})
}

func TestARollbackIsNotHeldBack(t *testing.T) {
	g := newGuarded(t)
	g.f.refuses = g.new.Fingerprint()
	r, err := g.deploy(t, g.new)
	assertRolledBack(t, g.scene, r, err)
	assert.Equal(t, []string{g.new.Fingerprint()}, g.asked)
}

func TestARollbackThatIsHeldBackLeavesNoTraceForSync(t *testing.T) {
	g := newGuarded(t)
	g.o.RollsBackFrom = []string{g.old.Fingerprint()}
	g.says("no record matches", "", 0)
	r, err := g.deploy(t, g.new)
	g.assertHeld(t, r, err, "no record matches")
	assert.Empty(t, remembered(t, g.dir).RolledBackFrom)
}

func TestDoubtLetsABundlePassUnlessItIsHeldBackAlready(t *testing.T) {
	g := newGuarded(t)
	g.says("no record matches", "", 0)
	r, err := g.deploy(t, g.new)
	g.assertHeld(t, r, err, "no record matches")
	g.says("", "the resolver does not answer", 0)
	r, err = g.deploy(t, g.new)
	g.assertHeld(t, r, err, "the resolver does not answer")

	other := newGuarded(t)
	other.says("", "the resolver does not answer", 0)
	r, err = other.deploy(t, other.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, []string{"the resolver does not answer"}, r.Warnings)
}

func TestWhatHeldOneBundleBackDoesNotDelayAnother(t *testing.T) {
	g := newGuarded(t)
	g.says("no record matches", "", time.Hour)
	r, err := g.deploy(t, g.new)
	g.assertHeld(t, r, err, "no record matches")
	g.says("", "", time.Hour)
	_, err = g.deploy(t, aged(t, 30*time.Minute))
	require.NoError(t, err)
}

func TestARenewalThatKeepsTheKeysIsHeldBackAsLong(t *testing.T) {
	g := newGuarded(t)
	key := issue(t, mint.Leaf{})
	first, second := parsed(t, issue(t, mint.Leaf{Signer: key.Key})), parsed(t, issue(t, mint.Leaf{Signer: key.Key}))
	require.NotEqual(t, first.Fingerprint(), second.Fingerprint())
	g.says("no record matches", "", time.Hour)
	_, err := g.deploy(t, first)
	require.ErrorContains(t, err, "no record matches")
	g.says("", "", time.Hour)
	_, err = g.deploy(t, second)
	require.ErrorContains(t, err, "resolvers may cache the old ones until")
}

func TestRulingsAreWeighedAgainstWhatIsRemembered(t *testing.T) {
	b := aged(t, time.Hour)
	now := time.Date(2026, 11, 23, 15, 5, 36, 0, time.UTC)
	held := &Rejection{Fact: "held"}
	doubt := &Rejection{Fact: "doubt"}
	at := func(ttl int64, clear time.Time) *Guarded { return &Guarded{b.keys(), ttl, clear} }
	for name, c := range map[string]struct {
		ruling Ruling
		before *Guarded
		fact   string // "": passes
		after  *Guarded
	}{
		"nothing":                     {Ruling{TTL: time.Minute}, nil, "", nil},
		"doubt":                       {Ruling{Doubt: doubt}, nil, "", nil},
		"held":                        {Ruling{Objection: held, TTL: time.Minute}, nil, "held", at(60, time.Time{})},
		"held again":                  {Ruling{Objection: held, TTL: time.Minute}, at(90, time.Time{}), "held", at(90, time.Time{})},
		"held after it was clear":     {Ruling{Objection: held}, at(90, now), "held", at(90, time.Time{})},
		"held another":                {Ruling{Objection: held}, &Guarded{"00ff", 90, now}, "held", at(0, time.Time{})},
		"clear now":                   {Ruling{}, at(90, time.Time{}), "resolvers may cache the old ones", at(90, now)},
		"clear with a longer TTL":     {Ruling{TTL: time.Hour}, at(90, now), "resolvers may cache the old ones", at(3600, now)},
		"clear for long enough":       {Ruling{}, at(90, now.Add(-91*time.Second)), "", nil},
		"clear, but a second too few": {Ruling{}, at(90, now.Add(-90*time.Second)), "resolvers may cache the old ones", at(90, now.Add(-90*time.Second))},
		"doubt after it was clear":    {Ruling{Doubt: doubt}, at(90, now.Add(-time.Hour)), "doubt", at(90, now.Add(-time.Hour))},
		"clear, by a wrong clock":     {Ruling{}, at(90, now.Add(time.Hour)), "resolvers may cache the old ones", at(90, now)},
		"an endless TTL":              {Ruling{TTL: 1 << 62}, at(1<<62, time.Time{}), "resolvers may cache the old ones", at(longestTTL, now)},
		"a negative TTL":              {Ruling{}, at(-1<<62, now.Add(-time.Second)), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			rejection, after := c.ruling.weigh(b, c.before, now)
			assert.Equal(t, c.after, after)
			if c.fact == "" {
				assert.Nil(t, rejection)
				return
			}
			require.NotNil(t, rejection)
			assert.Contains(t, rejection.Fact, c.fact)
		})
	}
}

func TestThatSomethingIsPublishedIsRemembered(t *testing.T) {
	g := newGuarded(t)
	g.ruling.Published = true
	_, err := g.deploy(t, g.new)
	require.NoError(t, err)
	assert.True(t, remembered(t, g.dir).Published)
	g = newGuarded(t)
	_, err = g.deploy(t, g.new)
	require.NoError(t, err)
	assert.False(t, remembered(t, g.dir).Published)
}
