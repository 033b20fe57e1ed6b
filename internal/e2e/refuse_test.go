package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func sha256OfPEM(t *testing.T, data []byte) string {
	t.Helper()
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

func (l *lab) listens(port int) bool {
	ip, err := l.front.IP(l.t.Context())
	if err != nil {
		return false
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip, strconv.Itoa(port)), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func TestOnlyMailusLineageIsInstalled(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{Env: map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com"}})
	tree := snapshot(t, l.certs())
	passedOver := func(pair *mint.Pair, name, because string) {
		r := l.run([]string{"RENEWED_LINEAGE=" + l.lineage(pair, name)})
		require.Equal(t, 0, r.code)
		assert.Empty(t, r.stderr)
		assert.Equal(t, 1, strings.Count(r.stdout, "\n"), "one line")
		assert.Contains(t, r.stdout, because)
		assert.Equal(t, tree, snapshot(t, l.certs()))
		l.serves(old)
	}
	passedOver(l.issue(mint.Leaf{Names: []string{"www.example.com"}}), "www.example.com", "not Mailu's: it does not cover mail.example.com")
	passedOver(l.issue(mint.Leaf{Names: []string{"www.example.com"}, Key: mint.P521}), "odd.example.com", "not Mailu's")

	partial := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	r := l.run([]string{"RENEWED_LINEAGE=" + l.lineage(partial, "mail.example.com")})
	require.Equal(t, 0, r.code)
	assert.Empty(t, r.stderr)
	assert.Contains(t, r.stdout, "does not cover imap.example.com")
	l.serves(partial)

	tree, old = snapshot(t, l.certs()), partial
	passedOver(l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Hour)}), "mail.example.com-0001", "not newer than what is installed")
}

func TestRejectedBundlesChangeNothing(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{})
	stranger, err := mint.NewCA(mint.CAOptions{Name: "(STAGING) Pretend"})
	require.NoError(t, err)
	good := l.issue(mint.Leaf{})
	other := l.issue(mint.Leaf{})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	pairOf := func(leaf mint.Leaf) [2][]byte { p := l.issue(leaf); return [2][]byte{p.Chain, p.KeyPEM} }
	staging, err := stranger.Issue(mint.Leaf{})
	require.NoError(t, err)
	selfSigned, err := mint.SelfSigned(mint.Leaf{})
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		pair      [2][]byte
		file, why string
	}{
		"empty certificate": {[2][]byte{{}, good.KeyPEM}, "fullchain.pem", "empty"},
		"not PEM":           {[2][]byte{[]byte("hello"), good.KeyPEM}, "fullchain.pem", "no PEM block"},
		"truncated base64":  {[2][]byte{good.Chain[:len(good.Chain)/3], good.KeyPEM}, "fullchain.pem", "cannot be decoded"},
		"too large":         {[2][]byte{append(make([]byte, 2<<20), good.Chain...), good.KeyPEM}, "fullchain.pem", "larger than"},
		"files swapped":     {[2][]byte{good.KeyPEM, good.Chain}, "fullchain.pem", "the two files are swapped"},
		"no key":            {[2][]byte{good.Chain, good.LeafPEM}, "privkey.pem", "there is no private key in it"},
		"two keys":          {[2][]byte{good.Chain, append(append([]byte{}, good.KeyPEM...), other.KeyPEM...)}, "privkey.pem", "more than one private key"},
		"encrypted key":     {[2][]byte{good.Chain, encrypted}, "privkey.pem", "encrypted"},
		"mismatch":          {[2][]byte{good.Chain, other.KeyPEM}, "privkey.pem", "does not belong"},
		"weak RSA":          {pairOf(mint.Leaf{Key: mint.RSA1024}), "privkey.pem", "RSA-1024"},
		"P-521":             {pairOf(mint.Leaf{Key: mint.P521}), "privkey.pem", "P-521"},
		"CA":                {pairOf(mint.Leaf{IsCA: true}), "fullchain.pem", "is a CA"},
		"expired":           {pairOf(mint.Leaf{NotAfter: time.Now().Add(-time.Minute)}), "fullchain.pem", "expired"},
		"future":            {pairOf(mint.Leaf{NotBefore: time.Now().Add(2 * time.Hour)}), "fullchain.pem", "valid only from"},
		"no serverAuth":     {pairOf(mint.Leaf{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), "fullchain.pem", "serverAuth"},
		"no signing":        {pairOf(mint.Leaf{Edit: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }}), "fullchain.pem", "lacks digitalSignature"},
		"leaf only":         {[2][]byte{good.LeafPEM, good.KeyPEM}, "fullchain.pem", "stands alone"},
		"staging":           {[2][]byte{staging.Chain, staging.KeyPEM}, "fullchain.pem", "staging"},
		"self-signed":       {[2][]byte{selfSigned.Chain, selfSigned.KeyPEM}, "fullchain.pem", "self-signed"},
	} {
		dir := filepath.Join(l.root, "lineage", strings.ReplaceAll(name, " ", "-"))
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "fullchain.pem"), tc.pair[0], 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "privkey.pem"), tc.pair[1], 0o600))
		tree := snapshot(t, l.root)
		r := l.hook(dir)
		assert.Equal(t, 3, r.code, name)
		assert.Equal(t, "rejected", r.doc.Outcome, name)
		assert.Contains(t, r.doc.Error, filepath.Join(dir, tc.file), name)
		assert.Contains(t, r.doc.Error, tc.why, name)
		assert.NotEmpty(t, r.doc.Hint, name)
		assert.Equal(t, tree, snapshot(t, l.root), name)
	}
	l.serves(old)
	l.healthyAndReloadable()
}

func TestRefusedCertificateIsRolledBack(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{})
	for _, c := range []struct{ daemon, override string }{
		{"dovecot", "dovecot/proxy.conf"}, // first: it must not be reloading when its configuration breaks
		{"nginx", "broken.conf"},
	} {
		l.sub(c.daemon, func(t *testing.T) {
			file := filepath.Join(l.root, "overrides", "nginx", c.override)
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte("no_such_setting = yes;\n"), 0o644))
			renewed := l.renews()
			live := filepath.Join(l.root, "letsencrypt", "live", "mail.example.com")
			r := l.hook(live)
			assert.Equal(t, 4, r.code)
			assert.Equal(t, "rolled_back", r.doc.Outcome)
			assert.Contains(t, r.doc.Error, "no_such_setting")
			assert.Contains(t, r.doc.Hint, "overrides")
			l.serves(old)
			installed, err := os.ReadFile(filepath.Join(l.certs(), "cert.pem"))
			require.NoError(t, err)
			assert.Equal(t, old.SHA256(), sha256OfPEM(t, installed))
			require.NoError(t, l.front.CheckHealth(t.Context()))

			require.NoError(t, os.Remove(file))
			require.Equal(t, 0, l.hook(live).code)
			l.serves(renewed)
			l.healthyAndReloadable()
			old = renewed
		})
	}
}

func TestFrontThatCannotBeServedIsRefusedWithTheReason(t *testing.T) {
	l := newLab(t)
	pair := l.issue(mint.Leaf{})
	l.writePlain(pair, "cert.pem", "key.pem")
	live := l.lineage(pair, "mail.example.com")
	for name, tc := range map[string]struct {
		options rig.FrontOptions
		says    string
	}{
		"letsencrypt": {rig.FrontOptions{Env: map[string]string{"TLS_FLAVOR": "letsencrypt"}}, "obtains its own certificates"},
		"notls":       {rig.FrontOptions{Env: map[string]string{"TLS_FLAVOR": "notls"}}, "serves no TLS"},
		"single files": {rig.FrontOptions{Root: t.TempDir(), ExtraArgs: []string{
			"--volume", filepath.Join(l.certs(), "cert.pem") + ":/certs/cert.pem:ro",
			"--volume", filepath.Join(l.certs(), "key.pem") + ":/certs/key.pem:ro",
		}}, "mounted as a single file"},
	} {
		t.Run(name, func(t *testing.T) { // the front of one ends before that of the next starts: they share a directory
			front := &lab{t: t, ca: l.ca, root: l.root, roots: l.roots, env: l.env}
			front.start(tc.options)
			tree := snapshot(t, l.certs())
			r := front.hook(live)
			assert.Equal(t, 2, r.code, name)
			assert.Contains(t, r.doc.Error, tc.says, name)
			assert.NotEmpty(t, r.doc.Hint, name)
			assert.Equal(t, tree, snapshot(t, l.certs()), name)
		})
	}
}

func TestEngineThatCannotBeAskedLeavesTheDeployPending(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	require.NoError(t, os.WriteFile(filepath.Join(l.root, "mailu.env"), []byte("HOSTNAMES=mail.example.com\nTLS_FLAVOR=cert\n"), 0o644))
	hanging := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", hanging) // never accepts
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	live := l.lineage(l.issue(mint.Leaf{}), "mail.example.com")
	for name, socket := range map[string]string{"hanging": hanging, "stopped": filepath.Join(t.TempDir(), "none.sock")} {
		began := time.Now()
		r := l.run([]string{"RENEWED_LINEAGE=" + live, "DOCKER_HOST=unix://" + socket},
			"--output", "json", "--certs-dir", l.certs(), "--timeout", "9s")
		assert.Equal(t, 8, r.code, name)
		assert.Equal(t, "pending", r.doc.Outcome, name)
		assert.Contains(t, r.doc.Error, "cannot query the container engine", name)
		assert.Contains(t, r.doc.Hint, "is the engine running", name)
		assert.Less(t, time.Since(began), 9*time.Second, name)
	}
	assertStore(t, l.certs(), 2)
	require.Equal(t, 0, l.hook(live).code, "a later run finishes")
	l.healthyAndReloadable()
}

func TestHooksAtTheSameTimeSwitchOnceEach(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	pairs := []*mint.Pair{l.issue(mint.Leaf{}), l.issue(mint.Leaf{})}
	var wg sync.WaitGroup
	for i, pair := range pairs {
		live := l.lineage(pair, "mail"+strconv.Itoa(i))
		wg.Go(func() {
			r := l.run(nil, "install", "--lineage", live, "--output", "json")
			assert.Equal(t, 0, r.code)
			assert.Equal(t, "installed", r.doc.Outcome)
		})
	}
	wg.Wait()
	installed, err := os.ReadFile(filepath.Join(l.certs(), "cert.pem"))
	require.NoError(t, err)
	last := sha256OfPEM(t, installed)
	assert.Contains(t, []string{pairs[0].SHA256(), pairs[1].SHA256()}, last)
	served, err := l.front.Served(t.Context())
	require.NoError(t, err)
	for port, leaf := range served {
		assert.Equal(t, last, leaf, "port %d", port)
	}
	assertStore(t, l.certs(), 3)
}

func TestKilledRunReleasesTheLockAndTheNextOneFinishes(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	renewed := l.issue(mint.Leaf{})
	live := l.lineage(renewed, "mail.example.com")
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(append(os.Environ(), l.env...), "RENEWED_LINEAGE="+live)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		found, err := filepath.Glob(filepath.Join(l.root, "state", "deployed", "*.json"))
		return err == nil && len(found) == 1
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	require.Error(t, cmd.Wait())
	r := l.hook(live)
	require.Equal(t, 0, r.code)
	l.serves(renewed)
	l.healthyAndReloadable()
}

func TestInterruptedRunPutsTheOldPairBack(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{})
	live := l.lineage(l.issue(mint.Leaf{}), "mail.example.com")
	file := filepath.Join(l.root, "overrides", "nginx", "dovecot", "proxy.conf") // keeps dovecot on the old pair
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("ssl_key = </nonexistent\n"), 0o644))
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP} { // SIGHUP: the terminal is closed
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Env = append(append(os.Environ(), l.env...), "RENEWED_LINEAGE="+live)
		require.NoError(t, cmd.Start())
		linked := filepath.Join(l.certs(), ".mailu-hook", "live")
		require.Eventually(t, func() bool {
			served, err := l.front.Served(t.Context(), 443)
			_, linkErr := os.Lstat(linked)
			return err == nil && linkErr == nil && served[443] != old.SHA256()
		}, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, cmd.Process.Signal(signal))
		err := cmd.Wait()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		assert.Equal(t, 4, exit.ExitCode())
		l.serves(old)
	}
}
