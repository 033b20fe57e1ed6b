package rig

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func startCA(t *testing.T, o CAOptions) *CA {
	t.Helper()
	Need(t, NeedPebble)
	ca, err := StartCA(t.Context(), t.TempDir(), o)
	require.NoError(t, err)
	t.Cleanup(ca.Close)
	return ca
}

func TestCertbotIssuesAndRenewsFromPebble(t *testing.T) {
	t.Parallel()
	Need(t, NeedCertbot, NeedOpenSSL)
	ctx := t.Context()
	ca := startCA(t, CAOptions{Validity: 6 * 24 * time.Hour})
	certbot := &Certbot{Dir: t.TempDir(), CA: ca, Env: []string{"RIG_TEST=seen by the hook"}}
	_, _, err := certbot.Certonly(ctx, "mail.example.com", "", []string{"mail.example.com", "imap.example.com"})
	require.NoError(t, err)
	live := certbot.Live("mail.example.com")
	first, err := tls.LoadX509KeyPair(filepath.Join(live, "fullchain.pem"), filepath.Join(live, "privkey.pem"))
	require.NoError(t, err)
	assert.Equal(t, []string{"mail.example.com", "imap.example.com"}, first.Leaf.DNSNames)
	assert.InDelta(t, 6*24, first.Leaf.NotAfter.Sub(first.Leaf.NotBefore).Hours(), 1)

	roots, err := ca.Roots(ctx)
	require.NoError(t, err)
	out, err := exec.CommandContext(ctx, "openssl", "verify", "-CAfile", roots,
		"-untrusted", filepath.Join(live, "chain.pem"), filepath.Join(live, "cert.pem")).CombinedOutput()
	require.NoError(t, err, "%s", out)

	stdout, _, err := certbot.Renew(ctx, `echo "$RIG_TEST, $RENEWED_LINEAGE"`)
	require.NoError(t, err)
	assert.Contains(t, stdout, "seen by the hook, "+live)
	second, err := tls.LoadX509KeyPair(filepath.Join(live, "fullchain.pem"), filepath.Join(live, "privkey.pem"))
	require.NoError(t, err)
	assert.NotEqual(t, first.Certificate[0], second.Certificate[0])
}

func TestNameElsewhereIsNotValidated(t *testing.T) {
	t.Parallel()
	Need(t, NeedCertbot)
	ca := startCA(t, CAOptions{})
	require.NoError(t, ca.SetA(t.Context(), "mail.example.com", "127.0.0.2"))
	certbot := &Certbot{Dir: t.TempDir(), CA: ca}
	_, stderr, err := certbot.Certonly(t.Context(), "mail.example.com", "", []string{"mail.example.com"})
	require.Error(t, err)
	assert.Contains(t, stderr, "Some challenges have failed")
}

func TestClosedCALeavesNothingRunning(t *testing.T) {
	t.Parallel()
	ca := startCA(t, CAOptions{})
	pids := []int{ca.pebble.cmd.Process.Pid, ca.dnsSrv.cmd.Process.Pid}
	ca.Close()
	ca.Close()
	for _, pid := range pids {
		assert.False(t, alive(pid))
	}
}

func TestFailedStartSaysWhatPebbleSaid(t *testing.T) {
	t.Parallel()
	Need(t, NeedPebble)
	_, err := StartCA(t.Context(), t.TempDir(), CAOptions{Config: map[string]any{"keyAlgorithm": "dsa"}})
	assert.ErrorContains(t, err, "invalid key algorithm")
}

// writePair puts a pair where a front looks for it.
func writePair(t *testing.T, root string, pair *mint.Pair) {
	t.Helper()
	certs := filepath.Join(root, "certs")
	require.NoError(t, os.MkdirAll(certs, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(certs, "cert.pem"), pair.Chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(certs, "key.pem"), pair.KeyPEM, 0o600))
}

func newPair(t *testing.T) *mint.Pair {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	return pair
}

func startFront(t *testing.T, o FrontOptions) *Front {
	t.Helper()
	Need(t, NeedImage, NeedOpenSSL)
	front, err := StartFront(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, front.Remove()) })
	return front
}

// servesEverywhere waits for all TLS ports of the front and checks what each
// of them shows.
func servesEverywhere(t *testing.T, front *Front, pair *mint.Pair) {
	t.Helper()
	if !assert.NoError(t, front.WaitServing(t.Context())) {
		logs, _ := front.Logs(t.Context())
		t.Fatal(logs)
	}
	served, err := front.Served(t.Context())
	require.NoError(t, err)
	for _, port := range front.TLSPorts() {
		assert.Equal(t, pair.SHA256(), served[port], "port %d", port)
	}
}

func TestFrontServesOnEveryPortAndIsHealthy(t *testing.T) {
	t.Parallel()
	root, pair := t.TempDir(), newPair(t)
	writePair(t, root, pair)
	front := startFront(t, FrontOptions{Root: root, HealthEvery: time.Second, Env: map[string]string{
		"PORTS": "25,80,443,465,587,993,995,143,110,4190",
	}})
	assert.Contains(t, front.TLSPorts(), 587)
	servesEverywhere(t, front, pair)
	require.NoError(t, front.WaitHealthy(t.Context()))
	require.NoError(t, front.WaitReady(t.Context()))

	out, code, err := front.Exec(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3")
	require.NoError(t, err)
	assert.Equal(t, 3, code)
	assert.Contains(t, out, "out\n")
	assert.Contains(t, out, "err\n")
	pid, err := front.HostPID(t.Context())
	require.NoError(t, err)
	assert.True(t, alive(pid))

	ip, err := front.IP(t.Context())
	require.NoError(t, err)
	served, err := ServedAll(t.Context(), ip, []int{443, 444}, "mail.example.com")
	assert.ErrorContains(t, err, "asking port 444")
	assert.Equal(t, map[int]string{443: pair.SHA256()}, served)
}

func TestFrontBehindProxyOnEveryPortServesFromAVolume(t *testing.T) {
	t.Parallel()
	Need(t, NeedImage, NeedOpenSSL)
	root, pair := t.TempDir(), newPair(t)
	writePair(t, root, pair)
	volume := "mht" + randomHex(4)
	front := startFront(t, FrontOptions{
		CertsVolume: volume,
		Env:         map[string]string{"PROXY_PROTOCOL": "all", "REAL_IP_FROM": "0.0.0.0/0"},
	})
	certs, err := front.CertsDir(t.Context())
	require.NoError(t, err)
	require.Contains(t, certs, volume)
	require.NoError(t, os.CopyFS(certs, os.DirFS(filepath.Join(root, "certs"))))
	require.NoError(t, front.Restart(t.Context()))
	servesEverywhere(t, front, pair)
	ip, err := front.IP(t.Context())
	require.NoError(t, err)
	_, err = Served(t.Context(), ip, 443, "mail.example.com")
	assert.Error(t, err, "a PROXY port that answers without the header would prove nothing")
}

func TestRemovedFrontIsGoneInEveryState(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Front, context.Context) error{
		"running": (*Front).Start,
		"paused":  (*Front).Pause,
		"stopped": (*Front).Stop,
		"gone":    func(f *Front, _ context.Context) error { return f.Remove() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			volume := "mht" + randomHex(4)
			front := startFront(t, FrontOptions{CertsVolume: volume})
			require.NoError(t, end(front, t.Context()))
			require.NoError(t, RemoveLeftovers(t.Context()), "and ours stays")
			require.NoError(t, front.Remove())
			_, err := front.State(t.Context())
			assert.ErrorContains(t, err, "No such container")
			_, err = docker(t.Context(), "volume", "inspect", volume)
			assert.Error(t, err)
		})
	}
}

func TestLeftoversOfADeadProcessAreRemoved(t *testing.T) {
	t.Parallel()
	dead := exec.Command("true")
	require.NoError(t, dead.Run())
	front := startFront(t, FrontOptions{Labels: map[string]string{pidLabel: strconv.Itoa(dead.Process.Pid)}})
	require.NoError(t, RemoveLeftovers(t.Context()))
	_, err := front.State(t.Context())
	assert.ErrorContains(t, err, "No such container")
}
