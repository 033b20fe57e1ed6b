package source

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/pki"
)

// links makes symbolic links below dir, as name: target.
func links(t *testing.T, dir string, targets map[string]string) {
	t.Helper()
	for name, target := range targets {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
}

// covers counts whether a leaf covers the name.
func covers(name string) func(*x509.Certificate) int {
	return func(leaf *x509.Certificate) int {
		if leaf.VerifyHostname(name) == nil {
			return 1
		}
		return 0
	}
}

// acme-companion keeps each certificate in a directory, and beside them links for
// nginx-proxy (app/letsencrypt_service, create_links), a default certificate and
// Diffie-Hellman parameters.
func TestAllOfAcmeCompanionIsReadWithItsLinks(t *testing.T) {
	mail, www, fallback := pairFor(t, "mail.example.com", time.Hour), pairFor(t, "www.example.com", time.Hour), pairFor(t, "letsencrypt-nginx-proxy-companion", time.Hour)
	files := map[string][]byte{"default.crt": fallback.Chain, "default.key": fallback.KeyPEM, "dhparam.pem": []byte("-----BEGIN DH PARAMETERS-----\nMAYCAQUCAQI=\n-----END DH PARAMETERS-----\n")}
	for name, pair := range map[string]struct{ chain, key []byte }{"mail.example.com": {mail.Chain, mail.KeyPEM}, "www.example.com": {www.Chain, www.KeyPEM}} {
		leaf, rest := split(t, pair.chain)
		files[name+"/cert.pem"], files[name+"/chain.pem"], files[name+"/fullchain.pem"], files[name+"/key.pem"] = leaf, rest, pair.chain, pair.key
	}
	dir := tidy(t, files)
	for _, name := range []string{"mail.example.com", "www.example.com"} {
		links(t, dir, map[string]string{name + ".crt": "./" + name + "/fullchain.pem", name + ".key": "./" + name + "/key.pem",
			name + ".chain.pem": "./" + name + "/chain.pem", name + ".dhparam.pem": "./dhparam.pem"})
	}
	content, err := Read(t.Context(), At(dir))
	require.NoError(t, err)
	assert.Len(t, content.Pairs, 3)
	p := content.Best(covers("mail.example.com"))
	assert.Equal(t, mail.SHA256(), pki.Fingerprint(leafOf(t, p)))
	assert.Equal(t, string(mail.Chain), string(p.Cert))
}

// getssl keeps what it has replaced in archive/DATE.
func TestArchiveOfGetsslDoesNotStandInForWhatIsNew(t *testing.T) {
	old, now := pairFor(t, "mail.example.com", 60*24*time.Hour), pairFor(t, "mail.example.com", time.Hour)
	leaf, rest := split(t, now.Chain)
	oldLeaf, oldRest := split(t, old.Chain)
	dir := tidy(t, map[string][]byte{
		"getssl.cfg": []byte("CA=\"https://acme-v02.api.letsencrypt.org\"\n"), "mail.example.com.csr": []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
		"mail.example.com.crt": leaf, "chain.crt": rest, "fullchain.crt": now.Chain, "mail.example.com.key": now.KeyPEM,
		"archive/2026_09_01_00_00/mail.example.com.crt": oldLeaf, "archive/2026_09_01_00_00/chain.crt": oldRest, "archive/2026_09_01_00_00/mail.example.com.key": old.KeyPEM,
	})
	content, err := Read(t.Context(), At(dir))
	require.NoError(t, err)
	p := content.Best(covers("mail.example.com"))
	assert.Equal(t, now.SHA256(), pki.Fingerprint(leafOf(t, p)))
	assert.Equal(t, string(now.Chain), string(p.Cert))
}

// cert-manager adds the CA, and the kubelet replaces everything by one rename of ..data.
func TestRenewedSecretOfKubernetesIsReadAnew(t *testing.T) {
	first, second := issue(t), issue(t)
	dir := tidy(t, map[string][]byte{
		"..2027_01/tls.crt": first.Chain, "..2027_01/tls.key": first.KeyPEM, "..2027_01/ca.crt": first.RootPEM,
		"..2027_02/tls.crt": second.Chain, "..2027_02/tls.key": second.KeyPEM, "..2027_02/ca.crt": second.RootPEM,
	})
	links(t, dir, map[string]string{"..data": "..2027_01", "tls.crt": "..data/tls.crt", "tls.key": "..data/tls.key", "ca.crt": "..data/ca.crt"})
	p, err := readOne(t.Context(), At(dir))
	require.NoError(t, err)
	assert.Equal(t, first.SHA256(), pki.Fingerprint(leafOf(t, p)))
	links(t, dir, map[string]string{"..data_tmp": "..2027_02"})
	require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	p, err = readOne(t.Context(), At(dir))
	require.NoError(t, err)
	assert.Equal(t, second.SHA256(), pki.Fingerprint(leafOf(t, p)))
	assert.Equal(t, []string{dir}, Watched(At(dir)), "where the rename happens")
}
