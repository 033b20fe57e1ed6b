package hook

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

func assertPending(t *testing.T, s *scene, r Result, err error) {
	t.Helper()
	require.ErrorIs(t, err, ErrPending)
	assert.Equal(t, OutcomePending, r.Outcome)
	assert.Equal(t, s.new.Fingerprint(), onDisk(t, s.dir), "the new pair stays")
	state := remembered(t, s.dir)
	assert.Equal(t, OutcomePending, state.Last.Outcome)
	require.NotNil(t, state.Pending)
	assert.Equal(t, s.new.Fingerprint(), state.Pending.Leaf)
	assert.Equal(t, s.new.Lineage, state.Pending.Lineage)
	assert.NotEmpty(t, state.Pending.Reason)
	assert.ErrorContains(t, err, state.Pending.Reason)
	assert.NotContains(t, err.Error(), "\n", "a line is what a log can hold")
	assert.Equal(t, r.Next, state.Pending.Next)
}

func TestAFrontThatCouldNotBeAskedLeavesTheDeployPending(t *testing.T) {
	s := newScene(t)
	s.f = nil
	s.o.Unasked = errors.New("cannot connect to the Docker daemon")
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	require.ErrorIs(t, err, s.o.Unasked)
	assertSteps(t, r, StepLook, StepValidate, StepStage, StepSwitch)

	r, err = s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.Equal(t, 2, remembered(t, s.dir).Pending.Attempts)
	assert.False(t, remembered(t, s.dir).Pending.Waits(time.Now()), "asking the engine again costs nothing")
}

func TestAFrontThatDiesLeavesTheDeployPending(t *testing.T) {
	s := newScene(t)
	s.f.diesAt = StepReload
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
}

func TestAFrontThatStopsBetweenReloadAndVerifySaysSo(t *testing.T) {
	s := newScene(t)
	s.f.diesAt = StepVerify
	s.o.Progress = func(step Step) {
		if step == StepVerify {
			s.f.called(step)
		}
	}
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.ErrorContains(t, err, "stopped running")
	assert.Contains(t, say.HintOf(err), "start it")
	assert.Zero(t, r.Next, "the container that takes its place is asked at once")
}

func TestAFrontThatCannotBeToldButFollowsIsInstalled(t *testing.T) {
	s := newScene(t)
	s.f.unreachable = errors.New("exec: permission denied")
	s.o.Progress = func(step Step) {
		if step == StepVerify { // its own watcher reloads it
			for _, p := range s.f.ports {
				p.shows = s.f.leaf()
			}
		}
	}
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
}

func TestAFrontThatCannotBeToldAndDoesNotFollowIsPending(t *testing.T) {
	s := newScene(t)
	s.f.unreachable = errors.New("exec: permission denied")
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	require.ErrorIs(t, err, s.f.unreachable)
}

func TestARefusalWithNothingToGoBackToIsPending(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *scene){
		"no files": func(t *testing.T, s *scene) {
			require.NoError(t, os.Remove(filepath.Join(s.dir, "cert.pem")))
			require.NoError(t, os.Remove(filepath.Join(s.dir, "key.pem")))
		},
		"half a pair":     func(t *testing.T, s *scene) { require.NoError(t, os.Remove(filepath.Join(s.dir, "key.pem"))) },
		"mismatched pair": func(t *testing.T, s *scene) { writeFile(t, filepath.Join(s.dir, "key.pem"), s.new.keyPEM, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			damage(t, s)
			s.f.refuses = s.new.Fingerprint()
			r, err := s.deploy(t, s.new)
			assertPending(t, s, r, err)
			assert.ErrorContains(t, err, "[emerg]")
		})
	}
}

func TestAPortThatWasSilentBeforeIsWarnedAboutAndNotCounted(t *testing.T) {
	s := newScene(t)
	s.port(25).shows, s.port(25).follows = "", keeps("")
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	require.Len(t, r.Warnings, 1)
	assert.Contains(t, r.Warnings[0], "port 25 (smtp) served no TLS before and serves none now: connection refused")
}

func TestPortsOfSeveralFrontsAreComparedEachWithItself(t *testing.T) {
	s := newScene(t)
	for _, p := range s.f.ports {
		p.Of = "mailu-front-1"
		second := *p
		second.Of = "mailu-front-2"
		s.f.ports = append(s.f.ports, &second)
	}
	s.f.ports[3].shows, s.f.ports[3].follows = "", keeps("") // port 25 of the second, whose twin in the first serves
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	require.Len(t, r.Warnings, 1)
	assert.Contains(t, r.Warnings[0], "port 25 (smtp) of mailu-front-2 served no TLS before and serves none now")

	s.o.ByHand = true
	s.f.ports[5].follows = keeps(s.new.Fingerprint())
	_, err = s.deploy(t, s.old)
	require.ErrorIs(t, err, ErrRolledBack)
	assert.ErrorContains(t, err, "port 993 of mailu-front-2 (imaps, shows leaf")
}

func TestWhereNoPortAnsweredBeforeAllCount(t *testing.T) {
	s := newScene(t)
	for _, p := range s.f.ports {
		p.shows = ""
	}
	s.port(25).follows = keeps("")
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.ErrorContains(t, err, "port 25 (smtp: connection refused)")
}

// A front that started without certificates has no dovecot; if it could not be
// brought back, a later run has to, and must not take nginx for the whole.
func TestAPendingDeployIsNotForgottenWhileAPortItWaitedForIsSilent(t *testing.T) {
	s := newScene(t)
	for _, p := range s.f.ports {
		p.shows = ""
	}
	s.port(993).follows = keeps("")
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)

	s.port(993).follows = nil // a reload would do now
	_, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, s.all(s.new), s.shown())
}

func TestServedButNotSettledIsPending(t *testing.T) {
	s := newScene(t)
	s.f.unsettled = errors.New("the watcher is still at it")
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrUnsettled)
	require.ErrorIs(t, err, s.f.unsettled)
	assert.Equal(t, OutcomePending, r.Outcome)
	require.NotNil(t, remembered(t, s.dir).Pending, "a later run finishes that")
	assert.Zero(t, remembered(t, s.dir).Pending.Next, "at once, as another container may be the front by then")
	assert.Equal(t, s.all(s.new), s.shown())
	assert.Positive(t, r.Served)
}

func TestALaterRunSettlesWhatAnEarlierOneSwitched(t *testing.T) {
	s := newScene(t)
	f := s.f
	s.f, s.o.Unasked = nil, errors.New("cannot connect to the Docker daemon")
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	switched := time.Now().Add(-time.Second)
	live := filepath.Join(s.dir, homeName, liveName)
	require.NoError(t, unix.Lutimes(live, []unix.Timeval{unix.NsecToTimeval(switched.UnixNano()), unix.NsecToTimeval(switched.UnixNano())}))
	for _, name := range []string{mailu.DefaultCertName, mailu.DefaultKeyName} {
		require.NoError(t, unix.Lutimes(filepath.Join(s.dir, name), make([]unix.Timeval, 2)))
	}

	s.f, s.o.Unasked = f, nil
	for _, p := range f.ports {
		p.shows = f.leaf()
	}
	r, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
	assert.WithinDuration(t, switched, f.switched, time.Millisecond)

	soon := []unix.Timeval{{Sec: time.Now().Add(time.Hour).Unix()}, {Sec: time.Now().Add(time.Hour).Unix()}}
	require.NoError(t, unix.Lutimes(live, soon)) // by a front that would have it wait
	assert.WithinDuration(t, time.Now(), openStore(t, s.dir).Switched(), time.Minute)
}

func TestPendingIsForgottenOnceALaterRunFindsItServed(t *testing.T) {
	s := newScene(t)
	s.f.diesAt = StepReload
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)

	s.f.diesAt, s.f.deadOnce = "", false // restarted, with what is installed
	require.NoError(t, s.f.Reload(t.Context(), nil))
	r, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
	assert.Nil(t, remembered(t, s.dir).Pending)
}

func TestSilentFrontThatNobodyCanAskAboutIsPendingAndNotRolledBack(t *testing.T) {
	s := newScene(t)
	s.f.unknown = errors.New("no answer from the engine")
	for _, p := range s.f.ports {
		p.follows = keeps("") // not one port answers after the reload
	}
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.ErrorContains(t, err, "whether the front runs is not known: no answer from the engine")
}

func TestAPortThatHangsIsNoPortWithoutTLS(t *testing.T) {
	s := newScene(t)
	hung := s.port(993)
	hung.shows, hung.hangs, hung.follows = "", true, func(string) string { return "" }
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.ErrorContains(t, err, "port 993")

	hung.follows = nil // its daemon works again
	_, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, s.all(s.new), s.shown())
}

func TestAFrontWhosePortsCannotBeReachedIsLeftSettled(t *testing.T) {
	s := newScene(t)
	for _, p := range s.f.ports {
		p.shows, p.follows = "", func(string) string { return "" }
	}
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.Contains(t, say.HintOf(err), "no port answers from here")
	assert.Contains(t, s.f.Calls(), StepSettle, "the switch made it delete its pid files")
}

func TestWhatWasDeployedWhileWaitingForTheLockIsNotDeployedAgain(t *testing.T) {
	s := newScene(t)
	store := openStore(t, s.dir)
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	live := store.Live()

	old := openStore(t, s.dir)
	d := &deploy{b: s.new, s: old, f: s.f, o: s.o, r: &Result{Durations: map[Step]time.Duration{}}, locked: true}
	before := Pair{} // as it was before the other run
	done, err := d.overtaken(t.Context(), &before)
	require.NoError(t, err)
	assert.True(t, done)
	assert.Equal(t, OutcomeUnchanged, d.r.Outcome)
	assert.Equal(t, live, store.Live())
}

func TestADeployByHandThatWasRefusedIsTakenUpBySync(t *testing.T) {
	s := newScene(t)
	s.new.Lineage, s.o.ByHand = "", true
	s.f.refuses = s.new.Fingerprint()
	_, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrRolledBack)

	s.o.ByHand = false
	_, err = s.deploy(t, s.old)
	require.NoError(t, err)
	require.NotNil(t, remembered(t, s.dir).Pending, "that all is well with another leaf does not finish it")

	store := openStore(t, s.dir)
	state, err := store.State()
	require.NoError(t, err)
	wanted, problems := Wanted(t.Context(), store, Search{State: state, Names: []string{"mail.example.com"}})
	require.Empty(t, problems)
	assert.Equal(t, s.new.Fingerprint(), wanted.Fingerprint())

	s.f.refuses, s.o.ByHand = "", true
	_, err = s.deploy(t, wanted)
	require.NoError(t, err)
	assert.Nil(t, remembered(t, s.dir).Pending)
}
