package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/mint"
)

// host is a certs directory and lineages, on a host whose engine is gone.
type host struct {
	t     *testing.T
	ca    *mint.CA
	root  string
	certs string
	state string
	env   []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	t.Parallel()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	root := t.TempDir()
	h := &host{t: t, ca: ca, root: root, certs: filepath.Join(root, "certs"), state: filepath.Join(root, "state")}
	require.NoError(t, os.Mkdir(h.certs, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "roots.pem"), ca.RootPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "mailu-hook.conf"), nil, 0o600))
	h.env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_CONFIG="+filepath.Join(root, "mailu-hook.conf"),
		"MAILU_HOOK_ROOTS="+filepath.Join(root, "roots.pem"), "MAILU_HOOK_HOSTNAME="+mint.DefaultName, "MAILU_HOOK_DANE=off",
		"MAILU_HOOK_STATE_DIR="+h.state, "MAILU_HOOK_LETSENCRYPT_DIR="+filepath.Join(root, "letsencrypt"))
	return h
}

// issue makes a pair of that age in minutes, and its lineage.
func (h *host) issue(name string, minutes int) (*mint.Pair, string) {
	h.t.Helper()
	pair, err := h.ca.Issue(mint.Leaf{NotBefore: time.Now().Add(-time.Duration(minutes) * time.Minute)})
	require.NoError(h.t, err)
	live, err := pair.WriteLineage(filepath.Join(h.root, "letsencrypt"), name, 1)
	require.NoError(h.t, err)
	return pair, live
}

// run runs the binary on the certs directory, for half a minute at most; one
// that hangs is killed, and its status is -1.
func (h *host) run(certs string, env []string, args ...string) (code int, out string) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(append([]string{"MAILU_HOOK_CERTS_DIR=" + certs}, h.env...), env...)
	both, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		assert.NoError(h.t, err)
	}
	return cmd.ProcessState.ExitCode(), string(both)
}

// readings are what a reader of the two names met.
type readings struct{ whole, mixed, bad atomic.Int64 }

// judge says what a reader got: a pair, the halves of two, or what must not be.
func (r *readings) judge(t *testing.T, cert, key []byte, errs error) {
	_, err := tls.X509KeyPair(cert, key)
	switch {
	case errs == nil && err == nil:
		r.whole.Add(1)
	case errs == nil && isChain(cert) && isKey(key):
		r.mixed.Add(1)
	case r.bad.Add(1) == 1:
		assert.Fail(t, "a reader met what no server can load", "%v; %d and %d bytes: %v", errs, len(cert), len(key), err)
	}
}

func isChain(data []byte) bool {
	block, rest := pem.Decode(data)
	if block == nil {
		return false
	}
	_, err := x509.ParseCertificate(block.Bytes)
	next, tail := pem.Decode(rest)
	return err == nil && next != nil && len(tail) == 0
}

func isKey(data []byte) bool {
	block, rest := pem.Decode(data)
	if block == nil {
		return false
	}
	_, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	return err == nil && len(rest) == 0
}

// byNames reads the two names as nginx and dovecot do: one after the other.
func byNames(dir string) (cert, key []byte, err error) {
	cert, certErr := os.ReadFile(filepath.Join(dir, "cert.pem"))
	key, keyErr := os.ReadFile(filepath.Join(dir, "key.pem"))
	return cert, key, errors.Join(certErr, keyErr)
}

// byDirectory opens the live directory once and reads both files in it.
func byDirectory(dir string) (cert, key []byte, err error) {
	live, err := os.OpenRoot(filepath.Join(dir, ".mailu-hook", "live"))
	if err != nil {
		return nil, nil, err
	}
	defer live.Close()
	cert, certErr := live.ReadFile("cert.pem")
	key, keyErr := live.ReadFile("key.pem")
	return cert, key, errors.Join(certErr, keyErr)
}

// whileReading runs work while readers read all the time.
func whileReading(t *testing.T, dir string, read func(string) ([]byte, []byte, error), work func()) *readings {
	t.Helper()
	var wg sync.WaitGroup
	seen, done := &readings{}, make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				cert, key, err := read(dir)
				seen.judge(t, cert, key, err)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	func() {
		defer wg.Wait() // also if work ends the test
		defer close(done)
		work()
	}()
	assert.Zero(t, seen.bad.Load())
	assert.Positive(t, seen.whole.Load())
	return seen
}

func TestTwentyRunsAtOnceLeaveOneWholePairAndShowNoOther(t *testing.T) {
	h := newHost(t)
	old, _ := h.issue("old", 100)
	require.NoError(t, os.WriteFile(filepath.Join(h.certs, "cert.pem"), old.Chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(h.certs, "key.pem"), old.KeyPEM, 0o600))
	rounds := 1
	if soak {
		rounds = 20
	}
	for round := range rounds {
		codes, installed := map[int]int{}, map[string]bool{}
		seen := whileReading(t, h.certs, byNames, func() {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for i := range 20 {
				pair, live := h.issue("mail"+strconv.Itoa(i), 20-i)
				wg.Go(func() {
					code, out := h.run(h.certs, nil, "install", "--lineage", live)
					mu.Lock()
					defer mu.Unlock()
					codes[code]++
					installed[pair.SHA256()] = code == 8
					assert.Contains(t, []int{7, 8}, code, out) // the lock not had in time, or: installed, and nobody to ask
				})
			}
			wg.Wait()
		})
		cert, key, err := byNames(h.certs)
		require.NoError(t, err)
		pair, err := tls.X509KeyPair(cert, key)
		require.NoError(t, err)
		assert.True(t, installed[sha256OfPEM(t, block("CERTIFICATE", pair.Leaf.Raw))], "one of the twenty, by a run that says so")
		assertStore(t, h.certs, 3)
		t.Logf("round %d: exit statuses %v; a reader of the two names met %d whole pairs, %d mixed", round, codes, seen.whole.Load(), seen.mixed.Load())
	}
}

// The contract admits a mixed pair only to a reader that opens the two files
// separately around the switch. Nobody may meet anything else.
func TestAThousandSwitchesShowOnlyWholeFilesAndOneDirectoryNoMixedPair(t *testing.T) {
	h := newHost(t)
	for i := range 2 {
		_, live := h.issue("mail"+strconv.Itoa(i), 20-i)
		code, out := h.run(h.certs, nil, "install", "--lineage", live)
		require.Equal(t, 8, code, out)
	}
	store, err := hook.OpenStore(hook.Place{CertsDir: h.certs, StateDir: h.state})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	gens, err := store.Generations()
	require.NoError(t, err)
	require.Len(t, gens, 2)
	unlock, err := store.Lock(t.Context())
	require.NoError(t, err)
	switches := 1000
	if soak {
		switches = 50000
	}
	switchOften := func() {
		for i := range switches {
			require.NoError(t, store.Switch(gens[i%2]))
		}
	}
	seen := whileReading(t, h.certs, byNames, switchOften)
	t.Logf("%d switches: a reader of the two names met %d whole pairs, %d mixed", switches, seen.whole.Load(), seen.mixed.Load())
	seen = whileReading(t, h.certs, byDirectory, switchOften)
	assert.Zero(t, seen.mixed.Load(), "who opens the live directory once reads one pair")
	t.Logf("%d switches: a reader of the live directory met %d whole pairs, %d mixed", switches, seen.whole.Load(), seen.mixed.Load())
	unlock()

	rollbacks := 30
	if soak {
		rollbacks = 1000
	}
	seen = whileReading(t, h.certs, byDirectory, func() {
		for i := range rollbacks {
			code, out := h.run(h.certs, nil, "rollback", string(gens[i%2]))
			require.Equal(t, 8, code, out)
		}
	})
	assert.Zero(t, seen.mixed.Load(), "who opens the live directory once reads one pair")
	t.Logf("%d rollbacks: a reader of the live directory met %d whole pairs", rollbacks, seen.whole.Load())
}

func TestRunsAtOnceOfTheSameLineageMakeOneGeneration(t *testing.T) {
	h := newHost(t)
	pair, live := h.issue("mail", 10)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			code, out := h.run(h.certs, []string{"RENEWED_LINEAGE=" + live})
			assert.Equal(t, 8, code, out)
		})
	}
	wg.Wait()
	assertStore(t, h.certs, 1)
	cert, key, err := byNames(h.certs)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(pair.Chain, cert) && bytes.Equal(pair.KeyPEM, key))
}
