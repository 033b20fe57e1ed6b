package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func issue(t *testing.T, leaf mint.Leaf) (*mint.CA, *mint.Pair) {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err := ca.Issue(leaf)
	require.NoError(t, err)
	return ca, pair
}

func TestAChainIsReadBackAsItWasWritten(t *testing.T) {
	ca, pair := issue(t, mint.Leaf{})
	chain, err := ParseChain(EncodeChain(pair.Cert, ca.Issuer))
	require.NoError(t, err)
	require.Len(t, chain, 2)
	assert.True(t, chain[0].Equal(pair.Cert))
	assert.True(t, chain[1].Equal(ca.Issuer))

	chain, err = ParseChain(append(pair.KeyPEM, pair.Chain...))
	require.NoError(t, err, "a key before the certificates is skipped")
	assert.True(t, chain[0].Equal(pair.Cert))

	_, err = ParseChain(pair.KeyPEM)
	require.EqualError(t, err, "there is no PEM certificate in it")
	_, err = ParseChain(append(pair.LeafPEM, pem.EncodeToMemory(&pem.Block{Type: Certificate, Bytes: []byte("damaged")})...))
	require.ErrorContains(t, err, "parsing certificate 2: ")
}

func TestAKeyIsReadInEachOfItsForms(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	older, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	pkcs8, err := EncodeKey(key)
	require.NoError(t, err)
	block, _ := pem.Decode(pkcs8)

	for _, c := range []struct {
		block *pem.Block
		want  any
	}{
		{block, key},
		{&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}, key},
		{&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(older)}, older},
	} {
		got, err := ParseKey(c.block)
		require.NoError(t, err, c.block.Type)
		assert.Equal(t, c.want, got, c.block.Type)
	}
	_, err = ParseKey(&pem.Block{Type: "OPENSSH PRIVATE KEY"})
	require.EqualError(t, err, `unknown key format "OPENSSH"`)
}

func TestAKeyOwnsItsCertificateOnly(t *testing.T) {
	_, pair := issue(t, mint.Leaf{})
	_, other := issue(t, mint.Leaf{Key: mint.RSA2048})
	assert.True(t, Owns(pair.Key.Public(), pair.Cert))
	assert.False(t, Owns(pair.Key.Public(), other.Cert))
	assert.False(t, Owns("no key", pair.Cert))
}

func TestPathsLeadToARootWhateverTheOrderOfTheChain(t *testing.T) {
	ca, pair := issue(t, mint.Leaf{})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	for name, chain := range map[string][]*x509.Certificate{
		"as it should be": {pair.Cert, ca.Issuer},
		"root first":      {pair.Cert, ca.Root, ca.Issuer},
	} {
		paths, err := Paths(chain, roots, time.Now())
		require.NoError(t, err, name)
		assert.Equal(t, []*x509.Certificate{pair.Cert, ca.Issuer, ca.Root}, paths[0], name)
	}
	_, err := Paths([]*x509.Certificate{pair.Cert}, roots, time.Now())
	require.Error(t, err, "without the intermediate")
	_, err = Paths([]*x509.Certificate{pair.Cert, ca.Issuer}, roots, pair.Cert.NotAfter.Add(time.Minute))
	require.Error(t, err, "after the end")

	assert.True(t, SelfIssued(ca.Root))
	assert.False(t, SelfIssued(ca.Issuer))
}

func TestFingerprintIsTheSHA256OfTheCertificate(t *testing.T) {
	_, pair := issue(t, mint.Leaf{})
	sum := sha256.Sum256(pair.Cert.Raw)
	assert.Equal(t, hex.EncodeToString(sum[:]), Fingerprint(pair.Cert))
}

func TestRenewalIsDueAtAThirdOfTheLifetimeOrHalfOfAShortOne(t *testing.T) {
	const day = 24 * time.Hour
	began := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ lifetime, from time.Duration }{
		{90 * day, 60 * day},
		{45 * day, 30 * day},
		{10 * day, 160 * time.Hour},
		{6 * day, 3 * day},
		{24 * time.Hour, 12 * time.Hour},
	} {
		leaf := &x509.Certificate{NotBefore: began, NotAfter: began.Add(c.lifetime)}
		assert.Equal(t, c.lifetime, Lifetime(leaf))
		assert.Equal(t, began.Add(c.from), RenewAt(leaf), c.lifetime.String())
	}
}

func TestAPairIsAMismatchOnlyIfBothHalvesCanBeRead(t *testing.T) {
	_, pair := issue(t, mint.Leaf{})
	_, other := issue(t, mint.Leaf{})
	assert.True(t, Mismatch(pair.Chain, other.KeyPEM))
	for name, p := range map[string][2][]byte{
		"a pair":             {pair.Chain, pair.KeyPEM},
		"the leaf last":      {append(pair.IssuerPEM, pair.LeafPEM...), pair.KeyPEM},
		"no certificate":     {[]byte("junk"), pair.KeyPEM},
		"no key":             {pair.Chain, nil},
		"a key of nonsense":  {pair.Chain, []byte("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n")},
		"certificates twice": {pair.Chain, pair.Chain},
	} {
		assert.False(t, Mismatch(p[0], p[1]), name)
	}
}
