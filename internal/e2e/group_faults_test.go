package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// pair is a group of two fronts on one certs directory.
type pair struct {
	*lab
	other *rig.Front
	live  string // of the lineage
}

func newPair(t *testing.T) *pair {
	t.Helper()
	l, _ := startServing(t, rig.FrontOptions{})
	p := l.withOther()
	first := p.renewed()
	require.Equal(t, 0, p.hooked().code)
	p.bothServe(first)
	return p
}

// withOther starts another front beside that of the lab.
func (l *lab) withOther() *pair {
	l.t.Helper()
	t, p := l.t, &pair{lab: l}
	overrides := filepath.Join(l.root, "other")
	require.NoError(t, os.MkdirAll(overrides, 0o755))
	other, err := rig.StartFront(t.Context(), rig.FrontOptions{ // overrides of its own, to be refused by one
		Project:   l.front.Project + "b",
		ExtraArgs: []string{"--volume", l.certs() + ":/certs", "--volume", overrides + ":/overrides:ro"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, other.Remove()) })
	require.NoError(t, other.WaitServing(t.Context()))
	p.other = other
	return p
}

// renewed is the lineage after its next renewal.
func (p *pair) renewed() *mint.Pair {
	p.t.Helper()
	next := p.next()
	p.live = p.lineage(next, "mail.example.com")
	return next
}

func (p *pair) hooked() result {
	p.t.Helper()
	return p.run([]string{"RENEWED_LINEAGE=" + p.live, "MAILU_HOOK_TIMEOUT=10s"}, "--output", "json")
}

func (p *pair) bothServe(want *mint.Pair) {
	p.t.Helper()
	p.endsServing(want.SHA256())
	front := p.front
	p.front = p.other
	defer func() { p.front = front }()
	p.endsServing(want.SHA256())
}

// ofOther are the ports that the document tells of the other front, and whether all of
// them are proven.
func (p *pair) ofOther(r result) (n int, proven bool) {
	proven = true
	for _, e := range r.doc.Endpoints {
		if e.Container == p.other.Name {
			n, proven = n+1, proven && e.OK
		}
	}
	return n, proven
}

func TestOneOfAPairThatCannotBeAskedLeavesTheOtherProven(t *testing.T) {
	p := newPair(t)
	next := p.renewed()
	require.NoError(t, p.front.Pause(t.Context()))
	r := p.hooked()
	assert.Equal(t, 8, r.code)
	assert.Contains(t, r.doc.Error, p.front.Name+" is paused")
	assert.Contains(t, r.doc.Hint, "docker unpause "+p.front.Name)
	n, proven := p.ofOther(r)
	assert.True(t, n == 6 && proven, "%d ports of the other front", n)
	served, err := p.other.Served(t.Context())
	require.NoError(t, err)
	for port, leaf := range served {
		assert.Equal(t, next.SHA256(), leaf, "port %d", port)
	}
	again := p.sync("--now")
	assert.Equal(t, 8, again.code, "and so it stays until it can be asked")
	assert.NotZero(t, p.run(nil, "status", "--output", "nagios", "--ignore", "sync_timer_missing").code)
	require.NoError(t, p.front.Unpause(t.Context()))
	require.Equal(t, 0, p.sync("--now").code)
	p.bothServe(next)

	next = p.renewed()
	require.NoError(t, p.front.Stop(t.Context()))
	require.Equal(t, 0, p.hooked().code, "one that is stopped loads it when it starts")
	require.NoError(t, p.front.Start(t.Context()))
	p.bothServe(next)
}

func TestRefusalByOneOfAPairPutsTheOldPairBackForBoth(t *testing.T) {
	p := newPair(t)
	before := p.renewed()
	require.Equal(t, 0, p.hooked().code)
	p.bothServe(before)
	broken := filepath.Join(p.root, "other", "broken.conf")
	require.NoError(t, os.WriteFile(broken, []byte("no such directive;\n"), 0o644))
	next := p.renewed()
	r := p.hooked()
	assert.Equal(t, 4, r.code)
	assert.Contains(t, r.doc.Error, "nginx in "+p.other.Name)
	p.bothServe(before)
	require.NoError(t, os.Remove(broken))
	require.Equal(t, 0, p.sync("--now").code)
	p.bothServe(next)
	p.wellWith(p.front, p.other)

	require.Equal(t, 0, p.run(nil, "rollback", "--output", "json").code)
	p.bothServe(before)
}

// stepsOfADeploy are those in which a front is needed, as the log names them.
var stepsOfADeploy = []string{"stage", "switch", "reload", "verify", "settle"}

// hookedUntil runs the hook, and lets trouble happen when a step begins: the process
// stands still meanwhile.
func (p *pair) hookedUntil(step string, trouble func()) (code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = slices.Concat(os.Environ(), p.env, []string{"RENEWED_LINEAGE=" + p.live, "MAILU_HOOK_TIMEOUT=6s", "MAILU_HOOK_LOG_LEVEL=debug"})
	stderr, err := cmd.StderrPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, cmd.Start())
	reached := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.t.Log(lines.Text())
		if !reached && strings.HasSuffix(lines.Text(), "step="+step) {
			reached = true
			require.NoError(p.t, cmd.Process.Signal(syscall.SIGSTOP))
			trouble()
			require.NoError(p.t, cmd.Process.Signal(syscall.SIGCONT))
		}
	}
	_ = cmd.Wait() // its exit status is what counts
	require.True(p.t, reached, "there is no step %s", step)
	return cmd.ProcessState.ExitCode()
}

var daemonsOfAFront = []string{"dovecot", "imap-login", "pop3-login", "submission-login", "managesieve-login"}

// What may become of the deploy when the other front has some trouble. One that does not
// run, or does not answer the engine, has not refused anything.
func TestTroubleOfOneOfAPairAtAnyStepEndsAsTheContractSays(t *testing.T) {
	p := newPair(t)
	broken := filepath.Join(p.root, "other", "broken.conf")
	troubles := []struct {
		name  string
		first string // step at which make test lets it happen
		make  func(context.Context) error
		ends  []int
	}{
		{"is killed", "reload", p.other.Kill, []int{0, 8}},
		{"refuses", "switch", func(context.Context) error { return os.WriteFile(broken, []byte("no such directive;\n"), 0o644) }, []int{0, 4}},
		{"is paused", "verify", p.other.Pause, []int{0, 8}},
		{"is hung", "", func(ctx context.Context) error {
			_, _, err := p.other.Exec(ctx, slices.Concat([]string{"killall", "-STOP"}, daemonsOfAFront)...)
			return err
		}, []int{0, 4, 5, 8}},
	}
	for _, step := range stepsOfADeploy {
		for _, trouble := range troubles {
			if !soak && trouble.first != step {
				continue
			}
			t.Logf("when one of the two %s at step %s", trouble.name, step)
			next := p.renewed()
			code := p.hookedUntil(step, func() { require.NoError(t, trouble.make(t.Context())) })
			assert.Contains(t, trouble.ends, code, "%s at %s", trouble.name, step)
			_, err := tls.LoadX509KeyPair(filepath.Join(p.certs(), "cert.pem"), filepath.Join(p.certs(), "key.pem"))
			assert.NoError(t, err)
			_ = os.Remove(broken)
			p.repair()
			require.Equal(t, 0, p.sync("--now").code, "%s at %s", trouble.name, step)
			p.bothServe(next)
		}
	}
}

// repair lets the other front run as before.
func (p *pair) repair() {
	p.t.Helper()
	ctx := p.t.Context()
	state, err := p.other.State(ctx)
	require.NoError(p.t, err)
	switch state {
	case "paused":
		require.NoError(p.t, p.other.Unpause(ctx))
	case "running":
		_, _, err := p.other.Exec(ctx, slices.Concat([]string{"killall", "-CONT"}, daemonsOfAFront)...)
		require.NoError(p.t, err)
	default:
		require.NoError(p.t, p.other.Start(ctx))
	}
	require.NoError(p.t, p.other.WaitServing(ctx))
}
