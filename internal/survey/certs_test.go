package survey

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/source"
)

// certsDir is a certs directory as a deploy leaves it.
func certsDir(t *testing.T) (dir string, pair *mint.Pair) {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err = ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	dir = t.TempDir()
	const gen = "20261123T150536Z-3076aa61"
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".mailu-hook", gen), 0o700))
	require.NoError(t, os.Symlink(gen, filepath.Join(dir, ".mailu-hook", "live")))
	for name, data := range map[string][]byte{"cert.pem": pair.Chain, "key.pem": pair.KeyPEM} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, ".mailu-hook", gen, name), data, 0o600))
		require.NoError(t, os.Symlink(".mailu-hook/live/"+name, filepath.Join(dir, name)))
	}
	return dir, pair
}

func look(dir string) health.Directory {
	return Directory(mailu.Facts{CertsDir: dir, CertName: "cert.pem", KeyName: "key.pem"})
}

func TestDirectoryOfADeployIsSeenWhole(t *testing.T) {
	dir, pair := certsDir(t)
	d := look(dir)
	require.NoError(t, d.Err)
	assert.True(t, d.Used)
	assert.Equal(t, health.File{Name: "cert.pem", Kind: health.Ours, Target: ".mailu-hook/live/cert.pem"}, d.Cert)
	assert.Equal(t, health.Ours, d.Key.Kind)
	require.Len(t, d.Chain, 2)
	assert.Equal(t, pair.SHA256(), pki.Fingerprint(d.Chain[0]))
}

func TestNameIsWhatTheContainerWouldMeet(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.pem")
	require.NoError(t, os.WriteFile(outside, nil, 0o600))
	for name, c := range map[string]struct {
		target string
		want   health.Kind
	}{
		"nothing":                            {"", health.Missing},
		"a link to a file beside it":         {"own.pem", health.Link},
		"a link through the container's own": {"/certs/own.pem", health.Link},
		"the same, written carelessly":       {"/certs//./own.pem", health.Link},
		"a link to a link":                   {"second", health.Link},
		"a link to nothing":                  {"gone/cert.pem", health.Dangling},
		"a link of ours to nothing":          {".mailu-hook/live/gone.pem", health.Dangling},
		"a link to itself":                   {"cert.pem", health.Dangling},
		"an absolute link":                   {outside, health.Outward},
		"a relative link that leaves":        {"../certs2/cert.pem", health.Outward},
		"a link by way of a directory out":   {"away/outside.pem", health.Outward},
		"a link to the mount point's parent": {"/certs/../etc/cert.pem", health.Outward},
	} {
		t.Run(name, func(t *testing.T) {
			dir, pair := certsDir(t)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "own.pem"), pair.Chain, 0o600))
			require.NoError(t, os.Symlink("own.pem", filepath.Join(dir, "second")))
			require.NoError(t, os.Symlink(filepath.Dir(outside), filepath.Join(dir, "away")))
			cert := filepath.Join(dir, "cert.pem")
			require.NoError(t, os.Remove(cert))
			if c.target != "" {
				require.NoError(t, os.Symlink(c.target, cert))
			}
			d := look(dir)
			assert.Equal(t, c.want, d.Cert.Kind)
			assert.Equal(t, c.target, d.Cert.Target)
			assert.Equal(t, c.want == health.Link, d.Chain != nil, "what leads to a file is read: %v", d.ChainErr)
		})
	}
}

func TestPlainFilesAndDamagedOnesAreToldApart(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{"": "no PEM certificate in it", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "parsing certificate 1: "} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), []byte(content), 0o600))
		d := look(dir)
		assert.False(t, d.Used)
		assert.Equal(t, health.Plain, d.Cert.Kind)
		assert.ErrorContains(t, d.ChainErr, want)
	}
}

func TestFifoInPlaceOfTheCertificateDoesNotHoldUpALook(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "cert.pem"), 0o600))
	assert.ErrorContains(t, look(dir).ChainErr, "not a regular file")
}

func TestDirectoryThatCannotBeLookedAtIsAnErrorOfItsOwn(t *testing.T) {
	assert.Error(t, look(filepath.Join(t.TempDir(), "none")).Err)
	assert.ErrorContains(t, Directory(mailu.Facts{CertsDir: t.TempDir(), CertName: "sub/cert.pem", KeyName: "key.pem"}).Err, "not a file directly in")
}

func TestLineageIsReadWithoutItsKey(t *testing.T) {
	_, pair := certsDir(t)
	live, err := pair.WriteLineage(t.TempDir(), "mail.example.com", 1)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(live, "privkey.pem")))
	l := Lineage(t.Context(), source.At(live), nil)
	require.NoError(t, l.Err)
	assert.Equal(t, pair.SHA256(), pki.Fingerprint(l.Chain[0]))
	require.NoError(t, os.RemoveAll(live))
	assert.True(t, Lineage(t.Context(), source.At(live), nil).Gone)
}

func TestADeployIsRecognizedAsOurs(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	live, err := pair.WriteLineage(t.TempDir(), "mail", 1)
	require.NoError(t, err)
	offer, err := hook.Read(t.Context(), source.At(live))
	require.NoError(t, err)
	bundle, err := offer.For(nil)
	require.NoError(t, err)
	dir := t.TempDir()
	assert.False(t, look(dir).Used)
	store, err := hook.OpenStore(hook.Place{CertsDir: dir, StateDir: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	_, err = hook.Deploy(t.Context(), bundle, store, nil, hook.Options{Rules: hook.Rules{Roots: roots, NoTest: true}})
	require.NoError(t, err)
	d := look(dir)
	assert.True(t, d.Used)
	assert.Equal(t, []health.Kind{health.Ours, health.Ours}, []health.Kind{d.Cert.Kind, d.Key.Kind})
	assert.Equal(t, pair.SHA256()[:8], d.Live.LeafID())
	assert.Equal(t, pair.SHA256(), pki.Fingerprint(d.Chain[0]))
}

func TestAnInstalledLeafThatOnlyGoCannotParseIsSeen(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	odd, err := ca.Odd(mint.Leaf{})
	require.NoError(t, err)
	facts := mailu.Facts{CertsDir: t.TempDir(), CertName: "cert.pem", KeyName: "key.pem"}
	require.NoError(t, os.WriteFile(filepath.Join(facts.CertsDir, "cert.pem"), odd.Chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(facts.CertsDir, "key.pem"), odd.KeyPEM, 0o600))
	d := Directory(facts)
	require.NoError(t, d.ChainErr)
	require.Len(t, d.Chain, 1)
	assert.Equal(t, odd.SHA256(), pki.Fingerprint(d.Chain[0]))
}
