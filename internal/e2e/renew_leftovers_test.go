package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// newSpoiledFront is a front without a certificate, which renews through a relay.
func newSpoiledFront(t *testing.T) *spoiled {
	t.Helper()
	s := &spoiled{issuer: newIssuer(t, rig.CAOptions{Env: []string{"PEBBLE_AUTHZREUSE=0"}})}
	s.throughRelay()
	s.startPublished(rig.FrontOptions{})
	require.Eventually(t, func() bool { return s.listens(25) }, 30*time.Second, 100*time.Millisecond)
	return s
}

// overrides are what the front has in its directory of them.
func (s *spoiled) overrides() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, "overrides", "nginx"))
	require.NoError(s.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRunThatEndsInAChallengeLeavesNothingInTheFront(t *testing.T) {
	s := newSpoiledFront(t)
	again := []string{"--force", "--min-interval", "1ns"}
	for i, kind := range []string{"challenge", "certificate"} {
		before := s.issued()
		r := s.strike(syscall.SIGKILL, kind, 1, true, again...)
		require.True(t, r.killed(), kind)
		assert.Equal(t, []string{"mailu-hook-acme.conf"}, s.overrides(), "%s: the kill came too late", kind)
		s.relay.Meddle(nil)
		require.Equal(t, 0, s.renew(again...).code, kind)
		s.nothingLeft()
		s.servesLineage("mail.example.com")
		assert.Equal(t, before+1, s.issued(), kind)
		assert.Empty(t, unfinished(t, s.state), kind)
		if i == 0 {
			s.healthyAndReloadable()
		}
	}

	// A run that ends in another way removes its answer itself. The signal comes last:
	// the CA has then validated the name, and the next run of the order needs no
	// challenge.
	old := s.live()
	for _, c := range []struct {
		by  string
		end func()
	}{
		{"the time", func() {
			s.relay.Meddle(on("challenge", (*rig.Exchange).Hang))
			s.failed(s.renew(append(again, "--issue-timeout", "4s", "--now")...), 6, "the time is up (--issue-timeout 4s)")
		}},
		{"the CA", func() {
			s.relay.Meddle(on("authorization", always(problem(403, "unauthorized", "not you"))))
			s.failed(s.renew(append(again, "--now")...), 6, "not you")
		}},
		{"a signal", func() {
			r := s.strike(syscall.SIGTERM, "challenge", 1, true, append(again, "--now")...)
			assert.Equal(t, 6, r.state.ExitCode(), r.out)
			assert.Less(t, r.took, 10*time.Second)
			assert.Contains(t, r.out, "terminated signal received")
		}},
	} {
		c.end()
		assert.Empty(t, s.overrides(), c.by)
		assert.Equal(t, old, s.servesLineage("mail.example.com"), c.by)
	}
	s.relay.Meddle(nil)
	s.killedBeforeTheDeploy()
	assert.NotEqual(t, old, s.live())
	s.healthyAndReloadable()
	s.nothingLeft()
}

// An administrator may have a location for challenges too. What a killed run leaves
// beside it must not keep nginx from starting.
func TestKilledRunKeepsNoFrontFromStarting(t *testing.T) {
	s := newSpoiledFront(t)
	dir := filepath.Join(s.root, "overrides", "nginx")
	theirs, ours := filepath.Join(dir, "theirs.conf"), filepath.Join(dir, "mailu-hook-acme.conf")
	require.NoError(t, os.WriteFile(theirs, []byte(theirLocation), 0o644))
	r := s.strike(syscall.SIGKILL, "challenge", 1, true)
	require.True(t, r.killed())
	s.relay.Meddle(nil)
	require.FileExists(t, ours)

	restart := func() {
		require.NoError(t, s.front.Stop(t.Context()))
		require.NoError(t, s.front.Start(t.Context()))
		s.waitServing()
	}
	restart()
	require.Equal(t, 0, s.sync().code)
	assert.FileExists(t, ours, "another run might be answering right now")

	// Nor what is left of one that was killed before it could ask nginx.
	once := (&exec.Cmd{Env: s.env}).Environ() // each variable: the last counts
	for _, after := range []bool{false, true} {
		point := killPoint{call: "renameat", path: filepath.Base(ours), nth: 1, after: after}
		r := trace(t, dir, point.fault(), once, "renew", "--agree-tos", "--now")
		require.True(t, r.killed, r.out)
		left := filepath.Base(ours)
		if !after {
			left += ".tmp"
		}
		assert.Equal(t, []string{left, "theirs.conf"}, s.overrides())
		restart()
	}

	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(ours, old, old))
	assert.Contains(t, s.status(nil).codes(), "warning challenge_left")
	require.NoError(t, s.front.Stop(t.Context()))
	require.Equal(t, 0, s.sync().code)
	assert.NoFileExists(t, ours, "beside a stopped front too")
	require.NoError(t, s.front.Start(t.Context()))
	s.waitServing()
	require.Equal(t, 0, s.renew().code)
	s.servesLineage("mail.example.com")
	assert.Equal(t, []string{"theirs.conf"}, s.overrides())
}

// killedBeforeTheDeploy lets a renewal be killed when its certificate is live and
// not yet installed, and the next run install it.
func (s *spoiled) killedBeforeTheDeploy() {
	s.t.Helper()
	r := s.traced(killPoint{call: "renameat", path: "mail.example.com", nth: 1, after: true}.fault(), "--force", "--min-interval", "1ns", "--now")
	require.True(s.t, r.killed, r.out)
	live, before := s.live(), s.issued()
	served, err := s.front.Served(s.t.Context(), 443)
	require.NoError(s.t, err)
	require.NotEqual(s.t, live, served[443], "it was killed too late")
	require.Equal(s.t, 0, s.renew().code)
	assert.Equal(s.t, live, s.servesLineage("mail.example.com"))
	assert.Equal(s.t, before, s.issued())
}
