package hook

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/say"
)

// scene is a front that serves an old pair from plain files, and a new bundle.
type scene struct {
	dir      string
	old, new *Bundle
	f        *scripted
	o        Options
	node     string // that it is, of several; "" for this host, alone

	cancelAt Step  // at which the caller gives up
	asking   int32 // calls of the front that were under way when the deploy returned
	crashAt  Step  // at which the process ends, as far as the transaction can tell: nothing after it is run
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir(), old: aged(t, 2*time.Hour), new: aged(t, time.Hour)}
	s.new.Lineage = "/etc/letsencrypt/live/mail.example.com"
	writePair(t, s.dir, s.old)
	s.f = &scripted{dir: s.dir}
	for _, p := range []mailu.Port{{Number: 25, Protocol: "smtp"}, {Number: 443, Protocol: "https", Implicit: true}, {Number: 993, Protocol: "imaps", Implicit: true}} {
		s.f.ports = append(s.f.ports, &scriptedPort{Port: p, shows: s.old.Fingerprint()})
	}
	s.o = Options{Rules: trusted(t), Facts: mailu.Facts{Container: "mailu-front-1", Hostnames: []string{"mail.example.com"}}}
	return s
}

// port is the port number n of the front.
func (s *scene) port(n int) *scriptedPort {
	for _, p := range s.f.ports {
		if p.Number == n {
			return p
		}
	}
	return nil
}

// shown is what the ports show at the end.
func (s *scene) shown() []string {
	var leaves []string
	for _, e := range s.f.answers() {
		leaves = append(leaves, e.Leaf)
	}
	return leaves
}

// deploy runs one deploy as a process of its own would, with a minute to do it
// in. The time it waits is not spent (see testing/synctest).
func (s *scene) deploy(t *testing.T, b *Bundle) (r Result, err error) {
	t.Helper()
	now := time.Now().Round(0)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now)) // the clock of a bubble begins in the year 2000
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		store, oerr := OpenStore(s.place())
		require.NoError(t, oerr)
		defer store.Close()
		o := s.o
		o.Progress = func(step Step) {
			if s.o.Progress != nil {
				s.o.Progress(step)
			}
			if step == s.cancelAt {
				cancel()
			}
			if step == s.crashAt {
				panic(errCrash)
			}
		}
		defer func() {
			if s.crashAt != "" {
				assert.Equal(t, errCrash, recover())
			}
			synctest.Wait()
			if s.f != nil {
				s.asking = s.f.asked.Load()
				assert.Zero(t, s.f.held.Load(), "a front was left held")
			}
			time.Sleep(time.Minute) // for what outlives the deploy
		}()
		if s.f == nil {
			r, err = Deploy(ctx, b, store, nil, o)
		} else {
			r, err = Deploy(ctx, b, store, s.f, o)
		}
	})
	return r, err
}

// place is the certs directory as its node has it.
func (s *scene) place() Place {
	place := placeOf(s.dir)
	if s.node != "" {
		place.StateDir, place.Node = place.StateDir+"-"+s.node, s.node
	}
	return place
}

var errCrash = errors.New("crash")

func (s *scene) all(b *Bundle) []string {
	var leaves []string
	for range s.f.ports {
		leaves = append(leaves, b.Fingerprint())
	}
	return leaves
}

func assertSteps(t *testing.T, r Result, steps ...Step) {
	t.Helper()
	var sum time.Duration
	for step, took := range r.Durations {
		assert.Contains(t, steps, step)
		sum += took
	}
	assert.Len(t, r.Durations, len(steps))
	assert.Equal(t, r.Total, sum, "each moment belongs to a step")
}

func TestInstalledMeansThatEveryPortShowsTheNewLeaf(t *testing.T) {
	s := newScene(t)
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.new.Fingerprint(), onDisk(t, s.dir))
	assert.Equal(t, s.all(s.new), s.shown())
	assert.Equal(t, []Step{StepLook, StepReload, StepSettle}, s.f.Calls())
	assert.Empty(t, r.Warnings)
	assert.Len(t, r.Endpoints, 3)
	assert.Same(t, s.new, r.Bundle)
	assert.Positive(t, r.Served)
	assert.LessOrEqual(t, r.Served, r.Total)
	assertSteps(t, r, StepLook, StepValidate, StepStage, StepSwitch, StepReload, StepVerify, StepSettle)

	state := remembered(t, s.dir)
	assert.Nil(t, state.Pending)
	assert.Equal(t, s.o.Facts.Hostnames, state.Front.Hostnames)
	assert.Equal(t, OutcomeInstalled, state.Last.Outcome)
	assert.Equal(t, r.Generation, state.Last.Generation)
	assert.Equal(t, s.new.Lineage, state.Last.Lineage)
	require.Len(t, state.Lineages, 1)
	assert.Equal(t, s.new.Fingerprint(), state.Lineages[0].Leaf)
}

func TestUnchangedTakesNoLockAndTouchesNothing(t *testing.T) {
	s := newScene(t)
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	unlock, err := openStore(t, s.dir).Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	before := snapshot(t, s.dir)
	s.f.calls = nil
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
	assert.Equal(t, before, snapshot(t, s.dir))
	assert.Equal(t, []Step{StepLook, StepSettle}, s.f.Calls(), "what an earlier event did to the front is put right")
	assertSteps(t, r, StepLook, StepValidate)

}

func TestARepairThatFailsIsLeftToSync(t *testing.T) {
	s := newScene(t)
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	s.f.unsettled = errors.New("no pid file")
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrUnsettled)
	assert.ErrorContains(t, err, "no pid file")
	assert.Equal(t, OutcomePending, r.Outcome)
	assert.Contains(t, remembered(t, s.dir).Pending.Reason, "no pid file")

	s.f.unsettled = nil
	_, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Nil(t, remembered(t, s.dir).Pending)
}

func TestALineageFirstSeenUnchangedIsRemembered(t *testing.T) {
	s := newScene(t)
	s.new.Lineage = ""
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Empty(t, remembered(t, s.dir).Lineages)
	s.new.Lineage = "/etc/letsencrypt/live/mail.example.com"
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
	assert.Len(t, remembered(t, s.dir).Lineages, 1)

	s.new.Lineage += "-0001"
	unlock, err := openStore(t, s.dir).Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	r, err = s.deploy(t, s.new)
	require.NoError(t, err, "that it could not be remembered is no failure")
	require.Len(t, r.Warnings, 1)
	assert.Contains(t, r.Warnings[0], "was not recorded")
}

func TestInstalledButNotServedIsServed(t *testing.T) {
	s := newScene(t)
	first, err := s.deploy(t, s.new)
	require.NoError(t, err)
	s.port(993).shows = s.old.Fingerprint()
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, first.Generation, r.Generation, "no second copy")
	assert.Equal(t, s.all(s.new), s.shown())
}

// dovecot can miss one reload and follow the next.
func TestAPortThatFollowsOnlyTheSecondReloadIsInstalled(t *testing.T) {
	s := newScene(t)
	reloads := 0
	s.port(993).follows = func(leaf string) string {
		if reloads++; reloads == 1 {
			return ""
		}
		return leaf
	}
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.all(s.new), s.shown())
}

func TestAFrontThatServesIsHeldFromBeforeTheSwitchOn(t *testing.T) {
	s := newScene(t)
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	require.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.old.Fingerprint(), s.f.kept)
}

func TestAFrontThatDoesNotServeEverywhereMayHelpItself(t *testing.T) {
	s := newScene(t)
	s.port(993).shows = ""
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	require.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Empty(t, s.f.kept)
}

func TestNotNewerIsSkippedUnlessAskedForByHand(t *testing.T) {
	s := newScene(t)
	twin := parsed(t, issue(t, mint.Leaf{NotBefore: s.old.Leaf().NotBefore}))
	for name, b := range map[string]*Bundle{"older": aged(t, 3*time.Hour), "twin of the same second": twin} {
		t.Run(name, func(t *testing.T) {
			before := snapshot(t, s.dir)
			r, err := s.deploy(t, b)
			require.NoError(t, err)
			assert.Equal(t, OutcomeSkipped, r.Outcome)
			assert.Contains(t, r.Reason, say.Time(s.old.Leaf().NotBefore))
			assert.Equal(t, before, snapshot(t, s.dir))
		})
	}
	s.o.ByHand = true
	r, err := s.deploy(t, twin)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.all(twin), s.shown())
}

func TestOlderIsInstalledWhereItServesBetter(t *testing.T) {
	older := aged(t, 3*time.Hour)
	for name, installed := range map[string]*Bundle{
		"what is installed has expired":      parsed(t, issue(t, mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Minute)})),
		"what is installed has another name": parsed(t, issue(t, mint.Leaf{Names: []string{"www.example.com"}})),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			writePair(t, s.dir, installed)
			r, err := s.deploy(t, older)
			require.NoError(t, err)
			assert.Equal(t, OutcomeInstalled, r.Outcome)
		})
	}
}

// The documented script copies certbot's file, in which an empty line parts
// the certificates, and its reload may have failed.
func TestTheInstalledLeafThatThePortsDoNotShowIsNotSkipped(t *testing.T) {
	s := newScene(t)
	writePair(t, s.dir, s.new)
	writeFile(t, s.dir+"/cert.pem", joined([]byte("\n"), s.new.certPEM), 0o644)
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.all(s.new), s.shown())
}

func TestRejectedTouchesNeitherDiskNorFront(t *testing.T) {
	s := newScene(t)
	before := snapshot(t, s.dir)
	r, err := s.deploy(t, parsed(t, issue(t, mint.Leaf{NotAfter: time.Now().Add(-24 * time.Hour)})))
	assertRejected(t, err, "fullchain.pem", "expired", "certbot renew")
	assert.Equal(t, OutcomeRejected, r.Outcome)
	assert.Equal(t, before, snapshot(t, s.dir))
	assert.NotContains(t, s.f.Calls(), StepReload)
	assertSteps(t, r, StepLook, StepValidate)
}

func TestNoQuestionToTheFrontOutlivesTheDeploy(t *testing.T) {
	s := newScene(t)
	_, err := s.deploy(t, parsed(t, issue(t, mint.Leaf{IsCA: true})))
	assertRejected(t, err, "fullchain.pem", "CA", "fullchain.pem")
	assert.Zero(t, s.asking)
}

func TestDryRunTouchesNothing(t *testing.T) {
	s := newScene(t)
	s.o.DryRun = true
	before := snapshot(t, s.dir)
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeWouldInstall, r.Outcome)
	assert.Len(t, r.Endpoints, 3)
	_, err = s.deploy(t, parsed(t, issue(t, mint.Leaf{IsCA: true})))
	assertRejected(t, err, "fullchain.pem", "CA", "fullchain.pem")
	r, err = s.deploy(t, aged(t, 5*time.Hour))
	require.NoError(t, err)
	assert.Equal(t, OutcomeSkipped, r.Outcome)
	assert.Equal(t, before, snapshot(t, s.dir))
	assert.NotContains(t, s.f.Calls(), StepSettle)
	assert.NotContains(t, s.f.Calls(), StepReload)
}

func TestWithoutAFrontInstalledIsAllThereIsToProve(t *testing.T) {
	s := newScene(t)
	s.f = nil
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.Equal(t, s.new.Fingerprint(), onDisk(t, s.dir))
	assert.Nil(t, remembered(t, s.dir).Pending)
	assertSteps(t, r, StepLook, StepValidate, StepStage, StepSwitch)
	r, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
}

func TestStepsAreToldInOrderAsTheyBegin(t *testing.T) {
	s := newScene(t)
	var told []Step
	s.o.Progress = func(step Step) { told = append(told, step) }
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Equal(t, []Step{StepLook, StepValidate, StepStage, StepSwitch, StepReload, StepVerify, StepSettle}, told)
}

func TestLockedMeansThatNothingWasChanged(t *testing.T) {
	s := newScene(t)
	unlock, err := openStore(t, s.dir).Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	before := snapshot(t, s.dir)
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, disk.ErrLocked)
	assert.Equal(t, OutcomeFailed, r.Outcome)
	assert.Equal(t, before, snapshot(t, s.dir))
	assert.NoDirExists(t, s.dir+"/"+homeName+"/live")
	_, err = os.Lstat(ledgerOf(s.dir))
	assert.ErrorIs(t, err, os.ErrNotExist)
}
