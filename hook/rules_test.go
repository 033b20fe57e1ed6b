package hook

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// parsedChain is the bundle of a chain in an order of its own.
func parsedChain(t *testing.T, key []byte, chain ...[]byte) *Bundle {
	t.Helper()
	b, err := Parse(testSource, joined(chain...), key)
	require.NoError(t, err)
	return b
}

func extended(ids ...asn1.ObjectIdentifier) func(*x509.Certificate) {
	value, err := asn1.Marshal(ids)
	return func(c *x509.Certificate) {
		if err != nil {
			panic(err)
		}
		c.ExtKeyUsage, c.ExtraExtensions = nil, []pkix.Extension{{Id: oidExtendedKeyUsage, Value: value}}
	}
}

func with(id asn1.ObjectIdentifier, value ...byte) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{{Id: id, Value: value}} }
}

// Each row is refused by at least one client (internal/e2e's oracle asks them).
func TestCheckRejectsWithFileFactAndRemedy(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	future := issue(t, mint.Leaf{NotBefore: time.Now().Add(2 * time.Hour)})
	expired := issue(t, mint.Leaf{NotAfter: time.Now().Add(-time.Minute)})
	rsaCA := newCA(t, mint.CAOptions{Key: mint.RSA2048})
	sha1 := issueFrom(t, rsaCA, mint.Leaf{SigAlg: x509.SHA1WithRSA})
	md5 := issueFrom(t, rsaCA, mint.Leaf{SigAlg: x509.MD5WithRSA})
	client := issue(t, mint.Leaf{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ed := issue(t, mint.Leaf{Key: mint.Ed25519})
	edited := func(edit func(*x509.Certificate)) *Bundle { return parsed(t, issue(t, mint.Leaf{Edit: edit})) }
	usage := func(u x509.KeyUsage) *Bundle {
		return edited(func(c *x509.Certificate) { c.KeyUsage = u })
	}
	var names []string
	for i := range 5000 {
		names = append(names, fmt.Sprintf("a-rather-long-name-%d.example.com", i))
	}
	strict, loose := trusted(t), trusted(t)
	loose.AllowUntrusted = true
	noTest := loose
	noTest.NoTest = true
	for name, c := range map[string]struct {
		b            *Bundle
		rules        Rules
		fact, remedy string
	}{
		"a CA as leaf":              {parsed(t, issue(t, mint.Leaf{IsCA: true})), loose, "is a CA, not a server", "fullchain.pem"},
		"not valid yet":             {parsed(t, future), loose, "valid only from " + say.Time(future.Cert.NotBefore), "clock"},
		"expired":                   {parsed(t, expired), loose, "expired at " + say.Time(expired.Cert.NotAfter), "certbot renew"},
		"for clients only":          {parsed(t, client), loose, "lacks serverAuth", "TLS servers"},
		"for anything":              {edited(extended(asn1.ObjectIdentifier{2, 5, 29, 37, 0})), loose, "lacks serverAuth", "TLS servers"},
		"for nothing":               {edited(extended()), loose, "lacks serverAuth", "TLS servers"},
		"key for encipherment only": {usage(x509.KeyUsageKeyEncipherment), loose, "lacks digitalSignature", "TLS servers"},
		"key for agreement only":    {usage(x509.KeyUsageKeyAgreement), loose, "lacks digitalSignature", "TLS servers"},
		"must-staple":               {edited(with(oidTLSFeature, 48, 3, 2, 1, 5)), loose, "must-staple", "without must-staple"},
		"no subject, lax names":     {parsed(t, issue(t, mint.Leaf{Edit: lax})), loose, "the subject is empty", "issue it again"},
		"more than OpenSSL takes":   {parsed(t, issue(t, mint.Leaf{Names: names})), loose, "KiB of certificates", "fewer names"},
		"Ed25519 without a test":    {parsed(t, ed), noTest, "Ed25519", "start the front"},
		"signed with SHA-1":         {parsed(t, sha1), loose, "SHA1-RSA", "SHA-256"},
		"signed with MD5":           {parsed(t, md5), loose, "MD5-RSA", "SHA-256"},
		"leaf only":                 {parsedChain(t, pair.KeyPEM, pair.LeafPEM), strict, `the leaf stands alone: the certificate of its issuer "CN=mint intermediate"`, "fullchain.pem"},
		"another authority key":     {edited(with(asn1.ObjectIdentifier{2, 5, 29, 35}, 48, 6, 128, 4, 1, 2, 3, 4)), strict, `of "CN=mail.example.com" contradicts its issuer "CN=mint intermediate"`, "issue it again"},
	} {
		t.Run(name, func(t *testing.T) {
			assertRejected(t, c.rules.Check(c.b), "fullchain.pem", c.fact, c.remedy)
		})
	}
}

// lax leaves the subject empty and the alternative name not critical.
func lax(c *x509.Certificate) {
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(mint.DefaultName)}})
	if err != nil {
		panic(err)
	}
	c.Subject, c.DNSNames, c.ExtraExtensions = pkix.Name{}, nil, []pkix.Extension{{Id: oidSubjectAltName, Value: value}}
}

// signed is a certificate for a key that issuer signs, for chains that package
// mint does not make.
func signed(t *testing.T, name string, key crypto.Signer, issuer *x509.Certificate, signer crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(2000 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if edit != nil {
		edit(template)
	}
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	require.NoError(t, err)
	c, err := pki.Parse(der)
	require.NoError(t, err)
	return c
}

func server(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.DNSNames, c.NotAfter = false, x509.KeyUsageDigitalSignature, []string{mint.DefaultName}, time.Now().Add(1000*time.Hour)
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return key
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func bundleOf(t *testing.T, key crypto.Signer, chain ...*x509.Certificate) *Bundle {
	t.Helper()
	keyPEM, err := pki.EncodeKey(key)
	require.NoError(t, err)
	return parsedChain(t, keyPEM, pki.EncodeChain(chain...))
}

func trusting(roots ...*x509.Certificate) Rules {
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	return Rules{Roots: pool}
}

// 30 of the 142 roots of Debian 12 are signed with SHA-1; GoDaddy's bundle ends in
// one. Nobody verifies the signature of a root.
func TestASelfSignedSHA1RootIsAccepted(t *testing.T) {
	rootKey, key := rsaKey(t, 2048), ecKey(t)
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	root := signed(t, "old root", rootKey, nil, rootKey, sha1)
	require.NoError(t, trusting(root).Check(bundleOf(t, key, signed(t, "mail", key, root, rootKey, server), root)))

	middleKey := rsaKey(t, 2048)
	twin := signed(t, "old root", middleKey, root, rootKey, sha1) // self-issued, and not self-signed
	b := bundleOf(t, key, signed(t, "mail", key, twin, middleKey, server), twin, root)
	assertRejected(t, trusting(root).Check(b), "fullchain.pem", `"CN=old root" is signed with SHA1-RSA`, "SHA-256")
}

func TestARootWithASmallKeyIsRefusedEvenIfItIsNotSent(t *testing.T) {
	rootKey, key := rsaKey(t, 1024), ecKey(t)
	root := signed(t, "small root", rootKey, nil, rootKey, nil)
	b := bundleOf(t, key, signed(t, "mail", key, root, rootKey, server))
	assertRejected(t, trusting(root).Check(b), "fullchain.pem", `the key of the CA "CN=small root" (RSA-1024) is not accepted`, "other keys")
}

// Clients do not trust an intermediate for its own sake, nor do they know it.
func TestALeafAloneIsRefusedEvenIfTheStoreHoldsItsIssuer(t *testing.T) {
	ca, err := sharedCA()
	require.NoError(t, err)
	pair := issue(t, mint.Leaf{})
	b := parsedChain(t, pair.KeyPEM, pair.LeafPEM)
	rules := trusting(ca.Root, ca.Issuer)
	err = rules.Check(b)
	assertRejected(t, err, "fullchain.pem", "the leaf stands alone", "fullchain.pem")
	assert.NotContains(t, rejection(t, err).Remedy, "--roots")
	rules.AllowUntrusted = true
	require.NoError(t, rules.Check(b))
}

// A private CA as plain openssl req -x509 makes it.
func TestASelfSignedCAIsInstalledOnlyOnRequest(t *testing.T) {
	pair, err := mint.SelfSigned(mint.Leaf{IsCA: true, ExtKeyUsage: []x509.ExtKeyUsage{}, Edit: func(c *x509.Certificate) { c.KeyUsage = 0 }})
	require.NoError(t, err)
	b := parsed(t, pair)
	assertRejected(t, trusting(pair.Cert).Check(b), "fullchain.pem", "is a CA, not a server", "--allow-untrusted")
	assert.NoError(t, Rules{AllowUntrusted: true}.Check(b))
}

// OpenSSL, GnuTLS and NSS's tools try one path only.
func TestOfTwoCertificatesOfACATheOneThatLeadsToARootIsInstalled(t *testing.T) {
	oldKey, youngKey, middleKey, key := ecKey(t), ecKey(t), ecKey(t), ecKey(t)
	old, young := signed(t, "old", oldKey, nil, oldKey, nil), signed(t, "young", youngKey, nil, youngKey, nil)
	crossed := signed(t, "young", youngKey, old, oldKey, nil)
	middle, twin := signed(t, "middle", middleKey, young, youngKey, nil), signed(t, "middle", middleKey, old, oldKey, nil)
	leaf := signed(t, "mail", key, middle, middleKey, server)
	for name, c := range map[string]struct{ given, want []*x509.Certificate }{
		"the root of its own":        {[]*x509.Certificate{leaf, middle, crossed, young}, []*x509.Certificate{leaf, middle, crossed}},
		"an intermediate, first":     {[]*x509.Certificate{leaf, middle, twin}, []*x509.Certificate{leaf, twin}},
		"an intermediate, last":      {[]*x509.Certificate{leaf, twin, middle}, []*x509.Certificate{leaf, twin}},
		"both lead to it":            {[]*x509.Certificate{leaf, middle, twin, crossed}, []*x509.Certificate{leaf, middle, twin, crossed}},
		"neither, but what was sent": {[]*x509.Certificate{leaf, middle}, []*x509.Certificate{leaf, middle}},
	} {
		b := trusting(old).Prefer(bundleOf(t, key, c.given...))
		assert.Equal(t, c.want, b.Chain, name)
		assert.Equal(t, pki.EncodeChain(c.want...), b.certPEM, name)
	}
	dir := t.TempDir()
	r, err := Deploy(t.Context(), bundleOf(t, key, leaf, middle, twin), openStore(t, dir), nil, Options{Rules: trusting(old)})
	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{leaf, twin}, r.Bundle.Chain)
	assert.Contains(t, r.Warnings, "fullchain.pem holds two certificates of one CA; the one that leads to no trusted root was left out")
}

func TestANegativeSerialIsAccepted(t *testing.T) {
	rootKey, key := ecKey(t), ecKey(t)
	root := signed(t, "root", rootKey, nil, rootKey, nil)
	leaf := signed(t, "mail", key, root, rootKey, func(c *x509.Certificate) { server(c); c.SerialNumber = big.NewInt(0x55aa55aa) })
	der := bytes.Clone(leaf.RawTBSCertificate)
	at := bytes.Index(der, []byte{0x02, 0x04, 0x55, 0xaa, 0x55, 0xaa})
	require.Positive(t, at)
	der[at+2] = 0xd5 // the sign
	sum := sha256.Sum256(der)
	signature, err := rootKey.Sign(rand.Reader, sum[:], crypto.SHA256)
	require.NoError(t, err)
	der, err = asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: der}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	require.NoError(t, err)
	keyPEM, err := pki.EncodeKey(key)
	require.NoError(t, err)
	b := parsedChain(t, keyPEM, pem.EncodeToMemory(&pem.Block{Type: pki.Certificate, Bytes: der}))
	require.Negative(t, b.Leaf().SerialNumber.Sign())
	assert.NoError(t, trusting(root).Check(b))
}

func TestTheReasonForAnUntrustedChainIsTheRealOne(t *testing.T) {
	rootKey, middleKey, key := ecKey(t), ecKey(t), ecKey(t)
	root := signed(t, "root", rootKey, nil, rootKey, nil)
	middle := signed(t, "middle", middleKey, root, rootKey, nil)
	leaf := signed(t, "mail", key, middle, middleKey, server)
	impostor := signed(t, "middle", ecKey(t), root, rootKey, nil)
	stale := signed(t, "middle", middleKey, root, rootKey, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	origin := signed(t, "x", rootKey, nil, rootKey, func(c *x509.Certificate) {
		c.Subject = pkix.Name{Country: []string{"US"}, Organization: []string{"CloudFlare, Inc."}, OrganizationalUnit: []string{"CloudFlare Origin SSL Certificate Authority"}}
	})
	lay := signed(t, "middle", middleKey, root, rootKey, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 })
	outside := signed(t, "middle", middleKey, root, rootKey, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} })
	named, system, empty := trusting(root), Rules{}, trusting()
	for name, c := range map[string]struct {
		b            *Bundle
		rules        Rules
		fact, remedy string
	}{
		"another key of that name": {bundleOf(t, key, leaf, impostor), named, `"CN=mail" was not signed with the key of "CN=middle"`, "fullchain.pem"},
		"the upper one is missing": {bundleOf(t, key, leaf, middle), empty, `the chain ends at "CN=middle", whose issuer "CN=root" is neither in the file nor among the roots in the file of --roots`, "--roots FILE"},
		"not of this system":       {bundleOf(t, key, leaf, middle, root), system, `the chain ends at "CN=root", which is not among the trusted roots of this system`, "install the root"},
		"an expired intermediate":  {bundleOf(t, key, leaf, stale), named, `"CN=middle" in its chain is valid only from`, "issue it again"},
		"an issuer that is no CA":  {bundleOf(t, key, leaf, lay), named, `"CN=middle" issued a certificate in the chain, but is not allowed to`, "issue it again"},
		"names that are not its":   {bundleOf(t, key, leaf, outside), named, "the chain is not valid: ", "issue it again"},
		"Cloudflare's Origin CA":   {bundleOf(t, key, signed(t, "mail", key, origin, rootKey, server)), named, "no mail client ever will", "public CA"},
	} {
		t.Run(name, func(t *testing.T) {
			assertRejected(t, c.rules.Check(c.b), "fullchain.pem", c.fact, c.remedy)
		})
	}
}

func TestAnEmptyTrustStoreIsNamed(t *testing.T) {
	if os.Getenv(emptyStore) == "" { // the system's roots are loaded once a process
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), emptyStore+"=1", "SSL_CERT_FILE=/dev/null", "SSL_CERT_DIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Contains(t, string(out), "--- PASS")
		return
	}
	err := Rules{}.Check(parsed(t, issue(t, mint.Leaf{})))
	assertRejected(t, err, "fullchain.pem", "its trust store is empty", "ca-certificates")
}

const emptyStore = "MAILU_HOOK_TEST_EMPTY_STORE"

func TestCaveatsSayWhatEndsFirstAndWhoRefusesIt(t *testing.T) {
	rootKey, middleKey, key := ecKey(t), ecKey(t), ecKey(t)
	root := signed(t, "root", rootKey, nil, rootKey, nil)
	middle := signed(t, "middle", middleKey, root, rootKey, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	b := bundleOf(t, key, signed(t, "mail", key, middle, middleKey, server), middle)
	require.NoError(t, trusting(root).Check(b))
	assert.Equal(t, []string{`"CN=middle" in its chain expires first, at ` + say.Time(middle.NotAfter) + "; clients refuse the certificate from then on"}, trusting(root).Caveats(b))

	assert.Empty(t, trusted(t).Caveats(parsed(t, issue(t, mint.Leaf{}))))
	caveats := trusted(t).Caveats(parsed(t, issue(t, mint.Leaf{Key: mint.Ed25519})))
	require.Len(t, caveats, 1)
	assert.Contains(t, caveats[0], "Thunderbird")
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

func TestValidityAllowsAnHourOfSkewBeforeItBeginsAndNoneAfterItEnds(t *testing.T) {
	b := aged(t, time.Hour)
	from, until := b.Leaf().NotBefore, b.Leaf().NotAfter
	for name, c := range map[string]struct {
		now  time.Time
		fact string
	}{
		"an hour early":        {now: from.Add(-time.Hour)},
		"an hour and a second": {from.Add(-time.Hour - time.Second), "valid only from"},
		"the last moment":      {now: until},
		"a second late":        {until.Add(time.Second), "expired at"},
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
		"any":    {x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth},
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
	assertRejected(t, err, "fullchain.pem", "in its chain is valid only from", "issue it again")
}

// OpenSSL at security level 2, which is Debian's and from OpenSSL 3.2 on
// everybody's default, does not load such a chain: "ca key too small".
func TestIntermediateWithAnRSA1024KeyIsRefused(t *testing.T) {
	ca := newCA(t, mint.CAOptions{Key: mint.RSA1024})
	err := rooted(ca).Check(parsed(t, issueFrom(t, ca, mint.Leaf{})))
	assertRejected(t, err, "fullchain.pem", `the key of the CA "CN=mint intermediate" (RSA-1024)`, "CA")
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
