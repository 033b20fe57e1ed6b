package hook

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
)

// keeps is a port that goes on showing leaf, whatever it is told to load.
func keeps(leaf string) func(string) string { return func(string) string { return leaf } }

// assertRolledBack looks at the disk, the ports and the memory.
func assertRolledBack(t *testing.T, s *scene, r Result, err error) {
	t.Helper()
	require.ErrorIs(t, err, ErrRolledBack)
	var refusal *mailu.Refusal
	require.ErrorAs(t, err, &refusal, "the cause is part of it")
	assert.Equal(t, OutcomeRolledBack, r.Outcome)
	assert.Equal(t, s.old.Fingerprint(), onDisk(t, s.dir))
	assert.Equal(t, s.all(s.old), s.shown())

	live, rerr := os.Readlink(filepath.Join(s.dir, homeName, "live"))
	require.NoError(t, rerr)
	assert.Equal(t, Generation(live), r.Generation)
	state := remembered(t, s.dir)
	assert.Equal(t, OutcomeRolledBack, state.Last.Outcome)
	assert.Equal(t, err.Error(), state.Last.Error)
	require.NotNil(t, state.Pending)
	assert.Equal(t, s.new.Fingerprint(), state.Pending.Leaf)
	assert.Equal(t, 1, state.Pending.Attempts)
	assert.Equal(t, state.Pending.Next, r.Next)
}

func TestWhatNginxRefusesIsRolledBack(t *testing.T) {
	s := newScene(t)
	s.f.refuses = s.new.Fingerprint()
	r, err := s.deploy(t, s.new)
	assertRolledBack(t, s, r, err)
	assert.ErrorContains(t, err, "[emerg]")
	assert.Equal(t, []Step{StepLook, StepReload, StepReload, StepSettle}, s.f.Calls(), "the second reload is of the old pair")
	assertSteps(t, r, StepLook, StepValidate, StepStage, StepSwitch, StepReload, StepRollback)
}

func TestAPortThatKeepsTheOldLeafIsExplainedAndRolledBack(t *testing.T) {
	for name, c := range map[string]struct {
		objects bool
		says    string
	}{
		"dovecot objects":      {true, "doveconf: Fatal"},
		"dovecot says nothing": {false, "the new certificate is not served by port 993 (imaps, shows leaf "},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.port(993).follows = keeps(s.old.Fingerprint())
			if c.objects {
				s.f.objects = s.new.Fingerprint()
			}
			r, err := s.deploy(t, s.new)
			assertRolledBack(t, s, r, err)
			assert.ErrorContains(t, err, c.says)
			assert.Contains(t, s.f.Calls(), explain)
			assertSteps(t, r, StepLook, StepValidate, StepStage, StepSwitch, StepReload, StepVerify, StepRollback)
		})
	}
}

func TestAPortThatStopsAnsweringIsRolledBack(t *testing.T) {
	s := newScene(t)
	s.port(25).follows = doesNotLoad(s.new.Fingerprint())
	r, err := s.deploy(t, s.new)
	assertRolledBack(t, s, r, err)
	assert.ErrorContains(t, err, "port 25 (smtp: connection refused)")
}

// doesNotLoad is a port that stops answering when it is told to load leaf.
func doesNotLoad(leaf string) func(string) string {
	return func(told string) string {
		if told == leaf {
			return ""
		}
		return told
	}
}

func TestAPortThatIsLostWhileSettlingIsRolledBack(t *testing.T) {
	s := newScene(t)
	s.o.Progress = func(step Step) {
		if step == StepSettle {
			s.port(993).shows, s.port(993).follows = "", doesNotLoad(s.new.Fingerprint())
		}
	}
	r, err := s.deploy(t, s.new)
	assertRolledBack(t, s, r, err)
	assert.ErrorContains(t, err, "port 993")
}

func TestAPortThatIsLostWhileTheOldPairSettlesIsToldOnceMore(t *testing.T) {
	s := newScene(t)
	s.f.refuses = s.new.Fingerprint()
	s.f.settles = func() { s.port(993).shows = "" }
	r, err := s.deploy(t, s.new)
	assertRolledBack(t, s, r, err)
	assert.Equal(t, []Step{StepLook, StepReload, StepReload, StepSettle, explain, StepSettle, StepReload}, s.f.Calls())
}

func TestAFrontThatItsWatcherHasToConfigureAnewIsNotLeftPending(t *testing.T) {
	s := newScene(t)
	withoutTLS := func(string) string { return "" }
	s.port(25).follows, s.port(443).follows = withoutTLS, withoutTLS
	s.f.settles = func() { s.port(25).shows, s.port(443).shows = s.new.Fingerprint(), s.new.Fingerprint() }
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.all(s.new), s.shown())
}

func TestADaemonThatHangsIsNotConfiguredAnewMeanwhile(t *testing.T) {
	s := newScene(t)
	s.port(993).hangs, s.port(993).follows = true, doesNotLoad(s.new.Fingerprint())
	r, err := s.deploy(t, s.new)
	assertRolledBack(t, s, r, err)
	assert.Equal(t, []Step{StepLook, StepReload, explain, StepReload, StepReload, StepSettle}, s.f.Calls())
}

func TestRollbackOutlivesTheCaller(t *testing.T) {
	s := newScene(t)
	s.port(993).follows = keeps(s.old.Fingerprint())
	s.cancelAt = StepVerify
	r, err := s.deploy(t, s.new)
	assertRolledBack(t, s, r, err)
	assert.ErrorContains(t, err, "interrupted")
}

func TestRollbackEndsWithItsOwnDeadline(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 5 * time.Second: 5 * time.Second} {
		s := newScene(t)
		s.port(993).follows = keeps("") // gone for good
		s.o.Rollback = limit
		s.cancelAt = StepVerify
		r, err := s.deploy(t, s.new)
		require.ErrorIs(t, err, ErrRollbackFailed)
		assert.LessOrEqual(t, r.Durations[StepRollback], want+time.Second)
	}
}

func TestRollbackThatDoesNotHelpNeedsAPerson(t *testing.T) {
	s := newScene(t)
	s.port(993).follows = keeps("")
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrRollbackFailed)
	require.NotErrorIs(t, err, ErrRolledBack)
	assert.ErrorContains(t, err, "the old certificate is not served by port 993 (imaps: connection refused)")
	assert.Equal(t, OutcomeRollbackFailed, r.Outcome)
	assert.Equal(t, s.old.Fingerprint(), onDisk(t, s.dir))
	state := remembered(t, s.dir)
	assert.Equal(t, OutcomeRollbackFailed, state.Last.Outcome)
	assert.NotNil(t, state.Pending)
}

func TestAfterARollbackEveryPortThatAnswersShowsWhatItShowedBefore(t *testing.T) {
	s := newScene(t)
	s.port(25).shows = "" // silent before the deploy
	s.port(25).follows = keeps(s.new.Fingerprint())
	s.port(993).follows = keeps(s.old.Fingerprint())
	_, err := s.deploy(t, s.new)
	require.NotErrorIs(t, err, ErrRolledBack, "port 25 shows the certificate that was refused")
	assert.ErrorContains(t, err, "port 25")
}

func TestServedIsNotClaimedOfPortsThatNobodySaw(t *testing.T) {
	s := newScene(t)
	for _, p := range s.f.ports {
		p.shows, p.follows = "", keeps("")
	}
	s.f.refuses = s.new.Fingerprint()
	_, err := s.deploy(t, s.new)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "old pair is back and served")
	assert.Equal(t, s.old.Fingerprint(), onDisk(t, s.dir), "back it is")
}

func TestAPairThatServedDifferentLeavesComesBackAsItWas(t *testing.T) {
	s := newScene(t)
	stale := aged(t, 9*time.Hour).Fingerprint()
	s.port(25).shows, s.port(25).follows = stale, keeps(stale) // never reloaded by anybody
	s.f.refuses = s.new.Fingerprint()
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrRolledBack)
	assert.Equal(t, OutcomeRolledBack, r.Outcome)
	assert.Equal(t, s.old.Fingerprint(), onDisk(t, s.dir))
}

func TestRefusedTwiceIsTriedFromTheSameGeneration(t *testing.T) {
	s := newScene(t)
	s.f.refuses = s.new.Fingerprint()
	for n := range 3 {
		_, err := s.deploy(t, s.new)
		require.ErrorIs(t, err, ErrRolledBack)
		assert.Equal(t, n+1, remembered(t, s.dir).Pending.Attempts)
	}
	gens, err := openStore(t, s.dir).Generations()
	require.NoError(t, err)
	assert.Len(t, gens, 2)
	s.f.refuses = ""
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Nil(t, remembered(t, s.dir).Pending)
}

func TestAPairThatOnlyGoCannotParseIsPutBack(t *testing.T) {
	ca, err := sharedCA()
	require.NoError(t, err)
	odd, err := ca.Odd(mint.Leaf{})
	require.NoError(t, err)
	s := newScene(t)
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "cert.pem"), odd.Chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "key.pem"), odd.KeyPEM, 0o600))
	for _, p := range s.f.ports {
		p.shows = odd.SHA256()
	}
	s.f.refuses = s.new.Fingerprint()
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrRolledBack)
	assert.Equal(t, OutcomeRolledBack, r.Outcome)
	installed, err := os.ReadFile(filepath.Join(s.dir, "cert.pem"))
	require.NoError(t, err)
	assert.Equal(t, string(odd.Chain), string(installed))
}
