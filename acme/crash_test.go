package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/webroot"
)

const crashRole = "ACME_TEST_OBTAINS"

// memory is where the tests keep their files, because fsync takes no time there.
// That files are durable is for the tests of package disk and of power loss.
const memory = "/dev/shm"

// TestMain is also the process that the tests of crashes kill: it obtains one
// certificate, as a run of the program does.
func TestMain(m *testing.M) {
	if os.Getenv(crashRole) == "" {
		if info, err := os.Stat(memory); err == nil && info.IsDir() {
			os.Setenv("TMPDIR", memory)
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // strace counts the calls of each thread for itself
	if err := obtainOnce(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func obtainOnce(dir, directory, roots, docs string) error {
	data, err := os.ReadFile(roots)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	state, err := OpenState(dir)
	if err != nil {
		return err
	}
	defer state.Close()
	c := NewClient(context.Background(), state, Options{Directory: directory, Roots: pool, AgreeTOS: true})
	unlock, err := state.Lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	want := Request{Directory: directory, Names: []string{"mail.example.com"}, Key: EC256}
	l, err := state.Lineage(want.LineageName())
	if err != nil {
		return err
	}
	root, err := webroot.Open(docs)
	if err != nil {
		return err
	}
	defer root.Close()
	return c.Obtain(l, want, HTTP(root, nil, true))
}

// helper is a run that can be killed.
func (a *authority) helper(dir string, under ...string) *exec.Cmd {
	a.t.Helper()
	roots := filepath.Join(a.t.TempDir(), "roots.pem")
	require.NoError(a.t, os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw}), 0o600))
	argv := append(under, os.Args[0], dir, a.directory(), roots, a.docs)
	cmd := exec.CommandContext(a.t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), crashRole+"=1")
	return cmd
}

// afterwards holds what is left after a kill to the promise: the next run ends
// well, with the same account, and without a certificate more than one.
func (a *authority) afterwards(dir string, at string) {
	a.t.Helper()
	key, _ := os.ReadFile(filepath.Join(dir, "accounts", fileName(a.directory()), keyFile))
	a.mu.Lock()
	known := len(a.accounts) > 0
	a.meddle = nil
	a.mu.Unlock()
	if _, err := os.Lstat(filepath.Join(dir, "live/mail.example.com")); err == nil {
		live(a.t, dir, "mail.example.com")
	}
	c, state := a.client(dir)
	unlock, err := state.Lock(a.t.Context())
	require.NoError(a.t, err, at)
	defer unlock()
	assert.Zero(a.t, a.leftovers(dir), at)
	want := a.request()
	l, err := state.Lineage(want.LineageName())
	require.NoError(a.t, err, at)
	require.NoError(a.t, l.Complete(), at)
	if l.Due(want, time.Now(), false).Now {
		require.NoError(a.t, c.Obtain(l, want, a.solver()), at)
	}
	assert.False(a.t, l.Due(want, time.Now(), false).Now, at)
	live(a.t, dir, "mail.example.com")
	assert.Equal(a.t, 1, a.finals, "certificates, after a kill at %s", at)
	assert.LessOrEqual(a.t, len(a.accounts), 1, at)
	if known {
		_, again := accountFiles(a.t, a, dir)
		assert.Equal(a.t, string(key), again, "the account's key, after a kill at %s", at)
	}
	assert.NoFileExists(a.t, filepath.Join(dir, "renewal/mail.example.com", keyFile))
}

func TestKillNineAtAnyRequestCostsNoSecondCertificate(t *testing.T) {
	t.Parallel()
	killedAtEach(t, func(t *testing.T, n int) (ended bool) {
		for _, carriedOut := range []bool{false, true} {
			a, dir := newAuthority(t), t.TempDir()
			cmd := a.helper(dir)
			asked, at := 0, ""
			a.mu.Lock() // which a request takes, too
			a.meddle = func(w http.ResponseWriter, r *http.Request, payload []byte) bool {
				if asked++; asked != n {
					return false
				}
				at = r.Method + " " + r.URL.Path
				if carriedOut {
					a.meddle = nil
					a.answer(discard{http.Header{}}, r, payload)
				}
				_ = cmd.Process.Signal(syscall.SIGKILL)
				return hangUp("/")(w, r, payload)
			}
			require.NoError(t, cmd.Start())
			a.mu.Unlock()
			_ = cmd.Wait()
			a.mu.Lock()
			ended = asked < n
			a.mu.Unlock()
			a.afterwards(dir, at)
		}
		return ended
	})
}

// killedAtEach has kill end a run at its first, second, third step and so on until
// one run ends by itself. Four run at a time.
func killedAtEach(t *testing.T, kill func(t *testing.T, n int) (ended bool)) (steps int) {
	t.Helper()
	for ended := false; !ended; steps += 4 {
		var last atomic.Bool
		t.Run(fmt.Sprintf("from step %d", steps+1), func(t *testing.T) {
			for n := steps + 1; n <= steps+4; n++ {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					t.Parallel()
					if kill(t, n) {
						last.Store(true)
					}
				})
			}
		})
		ended = last.Load() || t.Failed()
	}
	return steps
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// Each call that changes the state directory or makes a change durable is one at
// which the run is killed.
func TestKillNineAtAnyChangeOfTheStateCostsNoSecondCertificate(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	const changes = "renameat,renameat2,unlinkat,symlinkat,mkdirat,fsync"
	steps := killedAtEach(t, func(t *testing.T, n int) (ended bool) {
		a, dir := newAuthority(t), t.TempDir()
		out, err := a.helper(dir, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+changes,
			"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", changes, n)).CombinedOutput()
		if err != nil && !strings.Contains(err.Error(), "killed") {
			require.Fail(t, "the helper was not killed", "%v: %s", err, out)
		}
		a.afterwards(dir, fmt.Sprint("change ", n))
		return err == nil
	})
	assert.Greater(t, steps, 20, "kills, each at another change")
}
