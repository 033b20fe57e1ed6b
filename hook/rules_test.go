package hook

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// parsedChain is the bundle of a chain in an order of its own.
func parsedChain(t *testing.T, key []byte, chain ...[]byte) *Bundle {
	t.Helper()
	b, err := Parse(testSource, joined(chain...), key)
	require.NoError(t, err)
	return b
}

func TestCheckRejectsWithFileFactAndRemedy(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	future := issue(t, mint.Leaf{NotBefore: time.Now().Add(2 * time.Hour)})
	expired := issue(t, mint.Leaf{NotAfter: time.Now().Add(-2 * time.Hour)})
	rsaCA := newCA(t, mint.CAOptions{Key: mint.RSA2048})
	sha1 := issueFrom(t, rsaCA, mint.Leaf{SigAlg: x509.SHA1WithRSA})
	md5 := issueFrom(t, rsaCA, mint.Leaf{SigAlg: x509.MD5WithRSA})
	client := issue(t, mint.Leaf{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ca := issue(t, mint.Leaf{IsCA: true})
	ed := issue(t, mint.Leaf{Key: mint.Ed25519})
	strict, loose := trusted(t), trusted(t)
	loose.AllowUntrusted = true
	noTest := loose
	noTest.NoTest = true
	for name, c := range map[string]struct {
		b            *Bundle
		rules        Rules
		fact, remedy string
	}{
		"a CA as leaf":           {parsed(t, ca), loose, "is a CA, not a leaf", "CA:FALSE"},
		"not valid yet":          {parsed(t, future), loose, "valid only from " + future.Cert.NotBefore.UTC().Format(time.RFC3339), "clock"},
		"expired":                {parsed(t, expired), loose, "expired at " + expired.Cert.NotAfter.UTC().Format(time.RFC3339), "certbot renew"},
		"for clients only":       {parsed(t, client), loose, "serverAuth", "TLS servers"},
		"Ed25519 without a test": {parsed(t, ed), noTest, "Ed25519", "start the front"},
		"signed with SHA-1":      {parsed(t, sha1), loose, "SHA1-RSA", "SHA-256"},
		"signed with MD5":        {parsed(t, md5), loose, "MD5-RSA", "SHA-256"},
		"leaf only":              {parsedChain(t, pair.KeyPEM, pair.LeafPEM), strict, "the leaf stands alone", "fullchain.pem"},
		"wrong order":            {parsedChain(t, pair.KeyPEM, pair.LeafPEM, pair.RootPEM, pair.IssuerPEM), strict, "certificate 1 is not signed by certificate 2", "each issuer"},
		"an unrelated one last":  {parsedChain(t, pair.KeyPEM, pair.Chain, rsaCA.IssuerPEM), strict, "certificate 2 is not signed by certificate 3", "nothing else"},
		"an unrelated leaf":      {parsedChain(t, pair.KeyPEM, pair.LeafPEM, expired.LeafPEM, pair.IssuerPEM), strict, "certificate 1 is not signed", "nothing else"},
		"the leaf twice":         {parsedChain(t, pair.KeyPEM, pair.LeafPEM, pair.Chain), strict, "certificate 1 is not signed", "nothing else"},
	} {
		t.Run(name, func(t *testing.T) {
			assertRejected(t, c.rules.Check(c.b), "fullchain.pem", c.fact, c.remedy)
		})
	}
}

func TestUntrustedChainsAreRefusedUnlessAllowed(t *testing.T) {
	private := newCA(t, mint.CAOptions{Name: "Example Corp"})
	staging := newCA(t, mint.CAOptions{Name: "(STAGING) Pretend Pear"})
	self, err := mint.SelfSigned(mint.Leaf{})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		pair         *mint.Pair
		fact, remedy string
	}{
		"self-signed":  {self, "self-signed", "--roots FILE"},
		"staging":      {issueFrom(t, staging, mint.Leaf{}), "staging CA", "--staging"},
		"unknown root": {issueFrom(t, private, mint.Leaf{}), "Example Corp root", "--roots FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			b := parsed(t, c.pair)
			assertRejected(t, trusted(t).Check(b), "fullchain.pem", c.fact, c.remedy)
			assertRejected(t, Rules{}.Check(b), "fullchain.pem", c.fact, "--allow-untrusted") // by the system's roots
			assert.NoError(t, Rules{AllowUntrusted: true}.Check(b))
		})
	}
}

func TestRootsThatAreNamedAreTrusted(t *testing.T) {
	self, err := mint.SelfSigned(mint.Leaf{})
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(self.Cert)
	assert.NoError(t, Rules{Roots: roots}.Check(parsed(t, self)), "self-signed, and named")

	direct := newCA(t, mint.CAOptions{NoIntermediate: true})
	assert.NoError(t, rooted(direct).Check(parsed(t, issueFrom(t, direct, mint.Leaf{}))), "signed by the root itself")

	pair := issue(t, mint.Leaf{})
	assert.NoError(t, trusted(t).Check(parsedChain(t, pair.KeyPEM, pair.Chain, pair.RootPEM)), "the root sent along")
}

func TestValidityAllowsAnHourOfSkewAndNoMore(t *testing.T) {
	b := aged(t, time.Hour)
	from, until := b.Leaf().NotBefore, b.Leaf().NotAfter
	for name, c := range map[string]struct {
		now  time.Time
		fact string
	}{
		"an hour early":             {now: from.Add(-time.Hour)},
		"an hour and a second":      {from.Add(-time.Hour - time.Second), "valid only from"},
		"an hour late":              {now: until.Add(time.Hour)},
		"an hour and a second late": {until.Add(time.Hour + time.Second), "expired at"},
	} {
		t.Run(name, func(t *testing.T) {
			rules := trusted(t)
			rules.Now = c.now
			err := rules.Check(b)
			if c.fact == "" {
				require.NoError(t, err)
				return
			}
			assert.Contains(t, rejection(t, err).Fact, c.fact)
		})
	}
}

func TestExtendedKeyUsageAdmitsServers(t *testing.T) {
	for name, usage := range map[string][]x509.ExtKeyUsage{
		"none":   {},
		"server": {x509.ExtKeyUsageServerAuth},
		"both":   {x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		"any":    {x509.ExtKeyUsageAny},
	} {
		assert.NoError(t, trusted(t).Check(parsed(t, issue(t, mint.Leaf{ExtKeyUsage: usage}))), name)
	}
}

func TestEd25519IsLeftToTheFrontsTest(t *testing.T) {
	b := parsed(t, issue(t, mint.Leaf{Key: mint.Ed25519}))
	rules := trusted(t)
	assert.NoError(t, rules.Check(b))
	rules.NoTest = true
	assertRejected(t, rules.Check(b), "fullchain.pem", "Ed25519", "ECDSA P-256")
}

func TestExpiredIntermediateIsRefused(t *testing.T) {
	ca := newCA(t, mint.CAOptions{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)})
	err := rooted(ca).Check(parsed(t, issueFrom(t, ca, mint.Leaf{})))
	assertRejected(t, err, "fullchain.pem", "the chain does not hold", "issue it again")
}

// OpenSSL at security level 2, which is Debian's and from OpenSSL 3.2 on
// everybody's default, does not load such a chain: "ca key too small".
func TestIntermediateWithAnRSA1024KeyIsRefused(t *testing.T) {
	ca := newCA(t, mint.CAOptions{Key: mint.RSA1024})
	err := rooted(ca).Check(parsed(t, issueFrom(t, ca, mint.Leaf{})))
	assertRejected(t, err, "fullchain.pem", "certificate 2", "CA")
}

func TestForeignTextInARejectionIsCut(t *testing.T) {
	for _, name := range []string{strings.Repeat("long ", 2000), "(STAGING) " + strings.Repeat("long ", 2000)} {
		ca := newCA(t, mint.CAOptions{Name: name})
		pair := issueFrom(t, ca, mint.Leaf{})
		for _, b := range []*Bundle{parsed(t, pair), parsedChain(t, pair.KeyPEM, pair.LeafPEM)} {
			assert.Less(t, len(trusted(t).Check(b).Error()), 1000)
		}
	}
}
