package e2e

import (
	"bytes"
	"fmt"
	"net"
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

// struck is a run that got a signal at a request.
type struck struct {
	signalled bool
	kind      string // of the request
	state     *os.ProcessState
	took      time.Duration // from the signal to the end
	out       string
}

// strike runs renew, and sends the signal at request n of the kind, or of all if
// that is "": before it comes to the CA, or when the CA has answered and the
// binary has not heard of it. Then the CA is silent.
func (s *spoiled) strike(signal syscall.Signal, kind string, n int, after bool, args ...string) struck {
	s.t.Helper()
	var r struck
	var at time.Time
	cmd := exec.CommandContext(s.t.Context(), binary, append([]string{"renew", "--agree-tos"}, args...)...)
	cmd.Env = append(os.Environ(), s.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	started := make(chan struct{})
	seen := 0
	s.relay.Meddle(func(x *rig.Exchange) {
		<-started
		if kind == "" || x.Kind == kind {
			seen++
		}
		switch {
		case r.signalled:
			x.Hang()
		case seen < n:
			x.Pass()
		default:
			r.signalled, r.kind = true, x.Kind
			if after {
				x.Forward()
			}
			at = time.Now()
			assert.NoError(s.t, cmd.Process.Signal(signal))
			x.Hang()
		}
	})
	require.NoError(s.t, cmd.Start())
	close(started)
	_ = cmd.Wait() // the state says why
	r.state, r.took, r.out = cmd.ProcessState, time.Since(at), out.String()
	return r
}

func (r struck) killed() bool {
	status := r.state.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}

// There is one name: the requests for each further one are like those for the
// first. At no request does the kill cost a certificate or an account. The short
// version kills a renewal only when the CA has answered.
func TestAfterAKillAtAnyRequestTheNextRunSucceedsWithoutASecondCertificate(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"first", "renewal"} {
		t.Run(name, func(t *testing.T) {
			s := newSpoiled(t, rig.CAOptions{})
			s.env = append(s.env, "MAILU_HOOK_HOSTNAME=mail.example.com")
			begin, args := s.from(name)
			kinds := map[string]int{}
			for n := 1; ; n++ {
				r := struck{}
				for _, after := range []bool{true, false} {
					if !after && name == "renewal" && !soak {
						continue
					}
					begin()
					old, before := s.live(), s.issued()
					r = s.strike(syscall.SIGKILL, "", n, after, args...)
					if !r.signalled {
						break
					}
					what := fmt.Sprintf("killed at request %d, %s, after: %v", n, r.kind, after)
					require.True(t, r.killed(), what)
					kinds[r.kind]++
					accounts := s.relay.Created("newAccount")
					require.Equal(t, old, s.live(), what)
					s.relay.Meddle(nil)
					require.Equal(t, 0, s.renew(args...).code, what)
					s.settled(what)
					assert.NotEqual(t, old, s.live(), what)
					assert.Equal(t, before+1, s.issued(), what)
					if old == "" {
						assert.Equal(t, 1, accounts+s.relay.Created("newAccount"), what)
					} else {
						assert.Zero(t, accounts+s.relay.Count("newAccount"), what)
					}
				}
				if !r.signalled {
					break
				}
			}
			t.Logf("killed at %v", kinds)
			for _, kind := range []string{"directory", "newOrder", "authorization", "challenge", "order", "finalize", "certificate"} {
				assert.NotZero(t, kinds[kind], kind)
			}
		})
	}
}

// The short version ends first issuances, and one renewal.
func TestSIGTERMEndsARunSoonAndTheNextRunDoesNotWait(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	for _, kind := range []string{"directory", "newAccount", "newOrder", "authorization", "challenge", "order", "finalize", "certificate"} {
		for _, name := range []string{"first", "renewal"} {
			args := []string{"--force", "--min-interval", "1ns"}
			if name == "first" {
				s.afresh()
			} else if kind == "newAccount" || kind != "finalize" && !soak {
				continue
			}
			old, before := s.live(), s.issued()
			r := s.strike(syscall.SIGTERM, kind, 1, true, args...)
			require.True(t, r.signalled, kind)
			assert.Less(t, r.took, 3*time.Second, kind)
			assert.Equal(t, 6, r.state.ExitCode(), "%s: %s", kind, r.out)
			assert.Contains(t, r.out, "terminated", kind)
			assert.Contains(t, r.out, "hint: the next run continues from here", kind)
			assert.NotContains(t, r.out, "not served", kind)
			assert.Equal(t, old, s.live(), kind)
			listener, err := net.Listen("tcp", s.ip+":80")
			require.NoError(t, err, kind)
			listener.Close()
			s.relay.Meddle(nil)
			require.Equal(t, 0, s.renew(args...).code, "%s: it was made to wait", kind)
			s.settled(kind)
			assert.Equal(t, before+1, s.issued(), kind)
		}
	}
}

// from returns what each run of a first issuance or of a renewal begins with, and
// its arguments. There is one name only.
func (s *spoiled) from(name string) (begin func(), args []string) {
	s.t.Helper()
	s.env = append(s.env, "MAILU_HOOK_HOSTNAME=mail.example.com")
	if name == "first" {
		return s.afresh, nil
	}
	s.obtained()
	base := filepath.Join(s.t.TempDir(), "base")
	copyTree(s.t, s.root, base)
	return func() {
		require.NoError(s.t, os.RemoveAll(s.root))
		copyTree(s.t, base, s.root)
	}, []string{"--force", "--min-interval", "1ns"}
}

// The short version kills before each rename and removal, the long one before and
// after each change of the state.
func TestAfterAKillAtAnyChangeOfTheStateNothingIsLost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"first", "renewal"} {
		t.Run(name, func(t *testing.T) {
			s := newSpoiled(t, rig.CAOptions{})
			begin, args := s.from(name)
			begin()
			whole := s.traced(fault{}, args...)
			require.Equal(t, 0, whole.code, whole.out)
			points := 0
			for n, step := range whole.steps {
				for _, after := range []bool{false, true} {
					if soak && step.changes() || !after && (step.call == "renameat" || step.call == "unlinkat") {
						begin()
						s.killedAt(fault{match: at(n), after: after}, args)
						points++
					}
				}
			}
			t.Logf("%d kills on %d steps", points, len(whole.steps))
			require.Greater(t, points, 10)
		})
	}
}

// traced is a run whose steps on the state are traced.
func (s *spoiled) traced(f fault, args ...string) traced {
	s.t.Helper()
	require.NoError(s.t, os.MkdirAll(s.state, 0o700))
	once := (&exec.Cmd{Env: s.env}).Environ() // each variable: the last counts
	return trace(s.t, s.state, f, once, append([]string{"renew", "--agree-tos"}, args...)...)
}

// killedAt lets a run be killed, and holds the next one to ending well. If the
// certificate was live before, the next run has none to obtain.
func (s *spoiled) killedAt(f fault, args []string) {
	s.t.Helper()
	old, before := s.live(), s.issued()
	s.relay.Meddle(nil)
	r := s.traced(f, args...)
	what := fmt.Sprint("killed at ", len(r.steps), ", after: ", f.after, ", ", r.steps[len(r.steps)-1])
	require.True(s.t, r.killed, "%s: %s", what, r.out)
	require.Empty(s.t, exposed(s.t, s.root), what)
	live := s.live()
	if live != old {
		args = nil
	}
	next := s.renew(args...)
	require.Equal(s.t, 0, next.code, what)
	left := unfinished(s.t, s.state)
	if live == old || len(left) != 1 || filepath.Base(left[0]) != "key.pem" { // of an order that is done: the next one's takes its place
		s.settled(what)
	}
	assert.NotEqual(s.t, old, s.live(), what)
	if live != old {
		assert.Equal(s.t, live, s.live(), what)
	}
	assert.Equal(s.t, before+1, s.issued(), what)
	if old == "" {
		assert.Equal(s.t, 1, s.relay.Created("newAccount"), what)
	} else {
		assert.Zero(s.t, s.relay.Count("newAccount"), what)
	}
	if live != old { // and no order is left that the next renewal would take up
		require.Equal(s.t, 0, s.renew("--force", "--min-interval", "1ns").code, what)
		assert.NotEqual(s.t, live, s.live(), "%s: the same certificate was obtained again", what)
		s.settled(what)
	}
}
