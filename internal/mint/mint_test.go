package mint

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newCA(t *testing.T, o CAOptions) *CA {
	t.Helper()
	ca, err := NewCA(o)
	require.NoError(t, err)
	return ca
}

func issue(t *testing.T, ca *CA, l Leaf) *Pair {
	t.Helper()
	pair, err := ca.Issue(l)
	require.NoError(t, err)
	return pair
}

// verify checks a chain as a TLS client does: leaf, intermediates, root.
func verify(t *testing.T, pair *Pair, name string) error {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pair.RootPEM))
	intermediates.AppendCertsFromPEM(pair.IssuerPEM)
	_, err := pair.Cert.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates})
	return err
}

func TestZeroLeafIsAValidServerCertificate(t *testing.T) {
	for _, o := range []CAOptions{{}, {NoIntermediate: true}, {Key: RSA2048}, {Key: Ed25519}} {
		pair := issue(t, newCA(t, o), Leaf{})
		require.NoError(t, verify(t, pair, "mail.example.com"))
		assert.Error(t, verify(t, pair, "www.example.com"))
		assert.Equal(t, 90*24*time.Hour, pair.Cert.NotAfter.Sub(pair.Cert.NotBefore))
		assert.Len(t, pair.SHA256(), 64)
	}
}

func TestEveryKindOfKeyLoadsInEveryFormat(t *testing.T) {
	ca := newCA(t, CAOptions{})
	for _, kind := range []Key{RSA1024, RSA2048, RSA3072, RSA4096, P224, P256, P384, P521, Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			pair := issue(t, ca, Leaf{Key: kind})
			forms := map[string][]byte{"PRIVATE KEY": pair.KeyPEM}
			if strings.HasPrefix(string(kind), "rsa") {
				forms["RSA PRIVATE KEY"] = pair.KeyPKCS1PEM
			} else if kind != Ed25519 {
				forms["EC PRIVATE KEY"] = pair.KeySEC1PEM
			}
			assert.Equal(t, len(forms) > 1, pair.KeyPKCS1PEM != nil || pair.KeySEC1PEM != nil)
			for label, form := range forms {
				block, rest := pem.Decode(form)
				require.NotNil(t, block)
				assert.Empty(t, rest)
				assert.Equal(t, label, block.Type)
				_, err := tls.X509KeyPair(pair.Chain, form)
				assert.NoError(t, err, "key must match the leaf")
			}
		})
	}
}

func TestRSAKeysAreMadeOnceAndECKeysEachTime(t *testing.T) {
	ca := newCA(t, CAOptions{})
	assert.Same(t, issue(t, ca, Leaf{Key: RSA2048}).Key, issue(t, ca, Leaf{Key: RSA2048}).Key)
	assert.NotEqual(t, issue(t, ca, Leaf{}).Key, issue(t, ca, Leaf{}).Key)
}

func TestLeafIsWrongAsAsked(t *testing.T) {
	ca := newCA(t, CAOptions{Key: RSA2048})
	past := time.Now().Add(-48 * time.Hour)
	for name, c := range map[string]struct {
		leaf Leaf
		want string
	}{
		"expired":         {Leaf{NotAfter: past}, "expired or is not yet valid"},
		"not yet valid":   {Leaf{NotBefore: time.Now().Add(day)}, "expired or is not yet valid"},
		"other name":      {Leaf{Names: []string{"www.example.com"}}, "not mail.example.com"},
		"address only":    {Leaf{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, "mail.example.com"},
		"not for servers": {Leaf{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "incompatible key usage"},
		"SHA-1":           {Leaf{SigAlg: x509.SHA1WithRSA}, "SHA1-RSA"},
		"MD5":             {Leaf{SigAlg: x509.MD5WithRSA}, "MD5-RSA"},
	} {
		t.Run(name, func(t *testing.T) {
			pair := issue(t, ca, c.leaf)
			assert.ErrorContains(t, verify(t, pair, "mail.example.com"), c.want)
			assert.True(t, pair.Cert.NotBefore.Before(pair.Cert.NotAfter))
		})
	}
}

func TestCALeafAndEditReachTheCertificate(t *testing.T) {
	pair := issue(t, newCA(t, CAOptions{}), Leaf{IsCA: true, Edit: func(c *x509.Certificate) { c.OCSPServer = []string{"http://o.example"} }})
	assert.True(t, pair.Cert.IsCA)
	assert.Equal(t, []string{"http://o.example"}, pair.Cert.OCSPServer)
	assert.NotZero(t, pair.Cert.KeyUsage&x509.KeyUsageCertSign)
}

func TestSelfSignedIsItsOwnRoot(t *testing.T) {
	pair, err := SelfSigned(Leaf{})
	require.NoError(t, err)
	assert.Equal(t, pair.LeafPEM, pair.Chain)
	assert.NoError(t, verify(t, pair, "mail.example.com"))
}

func TestUnknownKindOfKeyIsAnError(t *testing.T) {
	_, err := NewCA(CAOptions{Key: "dsa"})
	assert.EqualError(t, err, `making a key "dsa": unknown kind of key`)
}

// OpenSSL is the library of nginx and dovecot: what it calls a valid MD5
// signature is one, whatever crypto/x509 thinks of it.
func TestOpenSSLAcceptsTheMD5SignatureAsValid(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("MAILU_HOOK_E2E") == "require" {
			t.Fatal(err)
		}
		t.Skip("needs openssl")
	}
	pair := issue(t, newCA(t, CAOptions{Key: RSA2048, NoIntermediate: true}), Leaf{SigAlg: x509.MD5WithRSA})
	dir := t.TempDir()
	root, leaf := filepath.Join(dir, "root.pem"), filepath.Join(dir, "leaf.pem")
	require.NoError(t, os.WriteFile(root, pair.RootPEM, 0o600))
	require.NoError(t, os.WriteFile(leaf, pair.LeafPEM, 0o600))
	out, err := exec.Command("openssl", "verify", "-auth_level", "0", "-CAfile", root, leaf).CombinedOutput()
	assert.NoError(t, err, "%s", out)
	text, err := exec.Command("openssl", "x509", "-in", leaf, "-noout", "-text").CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(text), "md5WithRSAEncryption")
}

func TestWriteLineageLooksLikeCertbots(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, CAOptions{})
	first, second := issue(t, ca, Leaf{}), issue(t, ca, Leaf{})
	live, err := first.WriteLineage(dir, "mail.example.com", 1)
	require.NoError(t, err)
	_, err = second.WriteLineage(dir, "mail.example.com", 2)
	require.NoError(t, err)

	target, err := os.Readlink(filepath.Join(live, "privkey.pem"))
	require.NoError(t, err)
	assert.Equal(t, "../../archive/mail.example.com/privkey2.pem", target)
	key, err := os.Stat(filepath.Join(live, "privkey.pem"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), key.Mode())
	_, err = tls.LoadX509KeyPair(filepath.Join(live, "fullchain.pem"), filepath.Join(live, "privkey.pem"))
	assert.NoError(t, err)
	chain, err := os.ReadFile(filepath.Join(live, "fullchain.pem"))
	require.NoError(t, err)
	assert.Equal(t, second.Chain, chain)
}
