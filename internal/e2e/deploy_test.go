package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestCertbotRenewsAndEveryPortServesTheNewLeaf(t *testing.T) {
	rig.Need(t, rig.NeedCertbot, rig.NeedPebble)
	l := newLab(t)
	ca, err := rig.StartCA(t.Context(), t.TempDir(), rig.CAOptions{})
	require.NoError(t, err)
	t.Cleanup(ca.Close)
	roots, err := ca.Roots(t.Context())
	require.NoError(t, err)
	l.env = append(l.env, "MAILU_HOOK_ROOTS="+roots)
	certbot := &rig.Certbot{Dir: filepath.Join(l.root, "certbot"), CA: ca}
	_, _, err = certbot.Certonly(t.Context(), "mail.example.com", "", []string{"mail.example.com"})
	require.NoError(t, err)
	live := certbot.Live("mail.example.com")
	for from, to := range map[string]string{"fullchain.pem": "cert.pem", "privkey.pem": "key.pem"} {
		data, err := os.ReadFile(filepath.Join(live, from))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(l.certs(), to), data, 0o600))
	}
	l.start(rig.FrontOptions{HealthEvery: time.Second})
	l.waitServing()
	certbot.Env = l.env

	for range 2 {
		before, err := l.front.Served(t.Context())
		require.NoError(t, err)
		stdout, stderr, err := certbot.Renew(t.Context(), binary)
		require.NoError(t, err)
		l.noSecretIn(stdout + stderr)
		assert.NotContains(t, stderr, "error output", "the hook wrote to stderr")
		assert.Contains(t, stdout, "installed "+live)
		renewed, err := os.ReadFile(filepath.Join(live, "fullchain.pem"))
		require.NoError(t, err)
		after, err := l.front.Served(t.Context())
		require.NoError(t, err)
		require.Len(t, after, 6)
		for port, leaf := range after {
			assert.Equal(t, sha256OfPEM(t, renewed), leaf, "port %d", port)
			assert.NotEqual(t, before[port], leaf, "port %d", port)
		}
		l.healthyAndReloadable()
	}

	assertStore(t, l.certs(), 3)
	// After three failures in a row Docker would hold it to be unhealthy.
	require.NoError(t, l.front.WaitHealthy(t.Context()))
	assert.Never(t, func() bool {
		health, err := l.front.Health(t.Context())
		return err != nil || health != "healthy"
	}, 12*time.Second, 500*time.Millisecond)
	l.healthyAndReloadable()
}

// assertStore checks names, links and modes of the layout in the contract.
func assertStore(t *testing.T, certs string, generations int) {
	t.Helper()
	home := filepath.Join(certs, ".mailu-hook")
	for name, target := range map[string]string{"cert.pem": ".mailu-hook/live/cert.pem", "key.pem": ".mailu-hook/live/key.pem"} {
		got, err := os.Readlink(filepath.Join(certs, name))
		require.NoError(t, err)
		assert.Equal(t, target, got)
	}
	found, err := filepath.Glob(filepath.Join(home, "2*Z-*"))
	require.NoError(t, err)
	assert.Len(t, found, generations)
	modes := map[string]os.FileMode{home: 0o700}
	for _, gen := range found {
		modes[gen], modes[filepath.Join(gen, "key.pem")], modes[filepath.Join(gen, "cert.pem")] = 0o700, 0o600, 0o644
	}
	for name, mode := range modes {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), name)
	}
	leftovers, err := filepath.Glob(filepath.Join(home, "tmp-*"))
	require.NoError(t, err)
	assert.Empty(t, leftovers)
}

func TestFrontStartedWithoutCertificatesIsBroughtBackWhole(t *testing.T) {
	l := newLab(t)
	l.start(rig.FrontOptions{})
	require.Eventually(t, func() bool { return l.listens(25) }, 30*time.Second, 100*time.Millisecond)
	first := l.issue(mint.Leaf{})
	r := l.hook(l.lineage(first, "mail.example.com"))
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	l.serves(first)
	l.healthyAndReloadable()

	pid, err := l.front.HostPID(t.Context())
	require.NoError(t, err)
	second := l.issue(mint.Leaf{NotBefore: time.Now()})
	require.Equal(t, 0, l.hook(l.lineage(second, "mail.example.com")).code)
	l.serves(second)
	again, err := l.front.HostPID(t.Context())
	require.NoError(t, err)
	assert.Equal(t, pid, again, "a front whose daemons all run was restarted")
}

func TestStoppedFrontLoadsTheCertificateAtItsStart(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	require.NoError(t, l.front.Stop(t.Context()))
	renewed := l.issue(mint.Leaf{})
	r := l.run([]string{"RENEWED_LINEAGE=" + l.lineage(renewed, "mail.example.com")})
	require.Equal(t, 0, r.code)
	assert.Contains(t, r.stdout, "the front will load it when it starts")
	assert.Empty(t, r.stderr)
	require.NoError(t, l.front.Start(t.Context()))
	require.NoError(t, l.front.WaitServing(t.Context()))
	l.serves(renewed)
}

func TestAbsentFrontIsServedFromWhatIsRemembered(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	first := l.issue(mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour)})
	require.Equal(t, 0, l.hook(l.lineage(first, "mail.example.com")).code)
	require.NoError(t, l.front.Remove())
	second := l.issue(mint.Leaf{})
	r := l.run([]string{"RENEWED_LINEAGE=" + l.lineage(second, "mail.example.com")}, "--output", "json", "--certs-dir", l.certs())
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	l.start(rig.FrontOptions{Project: l.front.Project})
	l.waitServing()
	l.serves(second)
}

func TestPausedFrontIsPending(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{})
	require.NoError(t, l.front.Pause(t.Context()))
	t.Cleanup(func() { _ = l.front.Unpause(t.Context()) })
	r := l.hook(l.lineage(l.issue(mint.Leaf{}), "mail.example.com"))
	assert.Equal(t, 8, r.code)
	assert.Equal(t, "pending", r.doc.Outcome)
	assert.Contains(t, r.doc.Hint, "docker unpause "+l.front.Name)
	require.NoError(t, l.front.Unpause(t.Context()))
	_ = old
}

func TestRecreatedFrontIsFoundByItsNewID(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	for range 2 {
		renewed := l.issue(mint.Leaf{NotBefore: time.Now()})
		r := l.hook(l.lineage(renewed, "mail.example.com"))
		require.Equal(t, 0, r.code)
		l.serves(renewed)
		require.NoError(t, l.front.Remove())
		l.start(rig.FrontOptions{Project: l.front.Project})
		l.waitServing()
		l.serves(renewed)
	}
}

func TestTwoProjectsOfOneNameAreBothServedUntilOneIsChosen(t *testing.T) {
	twins := rig.FrontOptions{Env: map[string]string{"HOSTNAMES": "twins.example.com"}} // the fronts of other tests are not meant
	l, old := startServing(t, twins)
	other, otherOld := startAnother(t, l, twins)
	renewed := l.issue(mint.Leaf{Names: []string{"twins.example.com"}})
	live := l.lineage(renewed, "twins.example.com")
	before := snapshot(t, other.certs())
	r := l.run([]string{"MAILU_HOOK_PROJECT="}, "rollback", "--output", "json")
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.doc.Error, l.front.Name)
	assert.Contains(t, r.doc.Error, other.front.Name)
	assert.Contains(t, r.doc.Hint, "--project")
	l.serves(old)

	require.Equal(t, 0, l.hook(live).code)
	l.serves(renewed)
	other.serves(otherOld)
	assert.Equal(t, before, snapshot(t, other.certs()))

	r = l.run([]string{"RENEWED_LINEAGE=" + live, "MAILU_HOOK_PROJECT="}, "--output", "json")
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome, "the other one comes first: more was done there")
	assert.Equal(t, other.front.Name, r.doc.Front.Container)
	require.Len(t, r.doc.Also, 1)
	assert.Equal(t, "unchanged", r.doc.Also[0].Outcome)
	l.serves(renewed)
	other.serves(renewed)
	require.NoError(t, l.front.WaitHealthy(t.Context()))
	require.NoError(t, other.front.WaitHealthy(t.Context()))
}

// startAnother starts a second front, of another project, beside that of l.
func startAnother(t *testing.T, l *lab, o rig.FrontOptions) (*lab, *mint.Pair) {
	t.Helper()
	other := &lab{t: t, ca: l.ca, root: t.TempDir()}
	require.NoError(t, os.MkdirAll(other.certs(), 0o755))
	old := other.issue(mint.Leaf{})
	other.writePlain(old, "cert.pem", "key.pem")
	other.start(o)
	other.waitServing()
	return other, old
}

func TestMailu20WithNginxAloneIsServedOnAllItsPorts(t *testing.T) {
	image := os.Getenv("FRONT_IMAGE_OLD")
	if image == "" {
		image = "mailu-hook-front:2.0"
	}
	l := newLab(t)
	l.writePlain(l.issue(mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour)}), "cert.pem", "key.pem")
	l.start(rig.FrontOptions{Image: image})
	ports := []int{25, 110, 143, 443, 465, 587, 993, 995}
	require.NoError(t, l.front.WaitServing(t.Context(), ports...))
	renewed := l.issue(mint.Leaf{})
	r := l.hook(l.lineage(renewed, "mail.example.com"))
	require.Equal(t, 0, r.code)
	assert.Len(t, r.doc.Endpoints, len(ports))
	l.serves(renewed, ports...)
	l.execOK("nginx", "-s", "reload")
	require.NoError(t, l.front.CheckHealth(t.Context()))
}

func TestNamedVolumeOtherNamesAndMorePorts(t *testing.T) {
	l := newLab(t)
	l.start(rig.FrontOptions{
		CertsVolume: "mailu-hook-e2e-" + strings.ToLower(t.Name()),
		Env: map[string]string{
			"TLS_CERT_FILENAME": "mail.crt", "TLS_KEYPAIR_FILENAME": "mail.key",
			"PORTS": "25,80,443,465,587,993,995,143,110,4190",
		},
	})
	dir, err := l.front.CertsDir(t.Context())
	require.NoError(t, err)
	old := l.issue(mint.Leaf{Key: mint.RSA2048, NotBefore: time.Now().Add(-2 * time.Hour)})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mail.crt"), old.Chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mail.key"), old.KeyPEM, 0o600))
	require.NoError(t, l.front.Restart(t.Context()))
	l.waitServing()
	renewed := l.issue(mint.Leaf{})
	r := l.hook(l.lineage(renewed, "mail.example.com"))
	require.Equal(t, 0, r.code)
	assert.Len(t, r.doc.Endpoints, 9)
	l.serves(renewed)
	target, err := os.Readlink(filepath.Join(dir, "mail.key"))
	require.NoError(t, err)
	assert.Equal(t, ".mailu-hook/live/key.pem", target)
	assert.NoFileExists(t, filepath.Join(dir, "cert.pem"))
}

func TestPortsBehindAProxyAreAskedWithAHeader(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{Env: map[string]string{
		"PROXY_PROTOCOL": "all-but-http", "REAL_IP_FROM": "0.0.0.0/0", "PORTS": "25,443,465,587,993,995,143,110,4190",
	}})
	renewed := l.issue(mint.Leaf{})
	r := l.hook(l.lineage(renewed, "mail.example.com"))
	require.Equal(t, 0, r.code)
	require.Len(t, r.doc.Endpoints, 9)
	for _, e := range r.doc.Endpoints {
		assert.True(t, e.OK, "port %d", e.Port)
	}
	l.serves(renewed)
}

func TestPublishedPortsAreAskedWhereTheContainerHasNoAddress(t *testing.T) {
	l := newLab(t)
	l.writePlain(l.issue(mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour)}), "cert.pem", "key.pem")
	l.start(rig.FrontOptions{ExtraArgs: []string{"--publish", "127.0.0.1::993", "--publish", "127.0.0.1::25"}})
	l.waitServing()
	renewed := l.issue(mint.Leaf{})
	require.Equal(t, 0, l.hook(l.lineage(renewed, "mail.example.com")).code)
	l.serves(renewed)
}
