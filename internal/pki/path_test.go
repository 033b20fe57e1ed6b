package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// node is a certificate with its key, for shapes that package mint does not make.
type node struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// ca is a CA of a name that parent signs, nil for a root.
func ca(t *testing.T, name string, parent *node, edit func(*x509.Certificate)) *node {
	t.Helper()
	return certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, newKey(t), parent, edit)
}

func leaf(t *testing.T, parent *node, edit func(*x509.Certificate)) *node {
	t.Helper()
	return certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: mint.DefaultName}, DNSNames: []string{mint.DefaultName}}, newKey(t), parent, edit)
}

func certify(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey, parent *node, edit func(*x509.Certificate)) *node {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)
	template.BasicConstraintsValid = true
	if edit != nil {
		edit(template)
	}
	if parent == nil {
		parent = &node{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.Certificate, key.Public(), parent.key)
	require.NoError(t, err)
	c, err := Parse(der)
	require.NoError(t, err)
	return &node{c, key}
}

func pool(roots ...*node) *x509.CertPool {
	p := x509.NewCertPool()
	for _, r := range roots {
		p.AddCert(r.Certificate)
	}
	return p
}

func certs(nodes ...*node) (all []*x509.Certificate) {
	for _, n := range nodes {
		all = append(all, n.Certificate)
	}
	return all
}

func TestOrderPutsEachIssuerBehindWhatItIssuedAndDropsTheRest(t *testing.T) {
	root := ca(t, "root", nil, nil)
	upper := ca(t, "upper", root, nil)
	lower := ca(t, "lower", upper, nil)
	l := leaf(t, lower, nil)
	other := ca(t, "other", nil, nil)
	twin := certify(t, &x509.Certificate{Subject: lower.Subject, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, lower.key, other, nil)
	impostor := ca(t, "lower", other, nil) // the same name, another key
	for name, c := range map[string]struct{ given, chain, foreign []*x509.Certificate }{
		"in order":         {certs(l, lower, upper), certs(l, lower, upper), nil},
		"swapped":          {certs(l, upper, lower), certs(l, lower, upper), nil},
		"reversed":         {certs(root, upper, lower, l), certs(l, lower, upper, root), nil},
		"twice":            {certs(l, l, lower, lower, upper), certs(l, lower, upper), nil},
		"a stranger":       {certs(l, other, lower, upper), certs(l, lower, upper), certs(other)},
		"a link missing":   {certs(l, upper, root), certs(l), certs(upper, root)},
		"two issuers":      {certs(l, twin, lower, upper), certs(l, twin, lower, upper), nil},
		"two issuers, too": {certs(l, lower, upper, twin), certs(l, lower, twin, upper), nil},
		"an impostor":      {certs(l, impostor, lower), certs(l, lower), certs(impostor)},
		"only the leaf":    {certs(l), certs(l), nil},
	} {
		chain, foreign := Order(l.Certificate, c.given)
		assert.Equal(t, c.chain, chain, name)
		assert.Equal(t, c.foreign, foreign, name)
	}
}

func TestAPathEndsInASelfIssuedCertificate(t *testing.T) {
	root := ca(t, "root", nil, nil)
	middle := ca(t, "middle", root, nil)
	l := leaf(t, middle, nil)
	_, err := RootedPaths(certs(l, middle), pool(root), time.Now())
	require.NoError(t, err)
	_, err = Paths(certs(l), pool(root, middle), time.Now())
	require.NoError(t, err, "crypto/x509 trusts an intermediate that is in the store")
	_, err = RootedPaths(certs(l), pool(root, middle), time.Now())
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)
}

func TestTheFirstToExpireIsOnThePathThatLastsLongest(t *testing.T) {
	at := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
	}
	old, young := ca(t, "old", nil, at(20*time.Hour)), ca(t, "young", nil, nil)
	crossed := certify(t, &x509.Certificate{Subject: young.Subject, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, young.key, old, at(10*time.Hour))
	middle := ca(t, "middle", young, at(100*time.Hour))
	l := leaf(t, middle, at(200*time.Hour))
	chain := certs(l, middle, crossed)
	assert.Equal(t, crossed.Certificate, FirstToExpire(chain, pool(old), time.Now()), "only the old root is trusted")
	assert.Equal(t, middle.Certificate, FirstToExpire(chain, pool(old, young), time.Now()), "clients go on to the young root")
	short := leaf(t, middle, at(5*time.Hour))
	assert.Equal(t, short.Certificate, FirstToExpire(certs(short, middle), pool(young), time.Now()), "the leaf itself")
	assert.Equal(t, crossed.Certificate, FirstToExpire(chain, pool(), time.Now()), "nothing is trusted")
}

func TestASelfSignatureIsOneWhateverItsHash(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, alg := range []x509.SignatureAlgorithm{x509.SHA1WithRSA, x509.SHA256WithRSA} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}, SignatureAlgorithm: alg}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		c, err := Parse(der)
		require.NoError(t, err)
		assert.True(t, SelfSigned(c), alg)
		c.Signature[0] ^= 1
		assert.False(t, SelfSigned(c), alg)
	}
	root := ca(t, "root", nil, nil)
	assert.True(t, SelfSigned(root.Certificate))
	assert.False(t, SelfSigned(ca(t, "middle", root, nil).Certificate))
	assert.False(t, SelfSigned(ca(t, "root", root, nil).Certificate), "self-issued, with another key")
}

func TestAnAuthorityKeyIdentifierCanContradictTheIssuer(t *testing.T) {
	root := ca(t, "root", nil, nil)
	assert.False(t, Contradicts(root.Certificate, leaf(t, root, nil).Certificate))
	aki := func(value any) func(*x509.Certificate) {
		der, err := asn1.Marshal(value)
		require.NoError(t, err)
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidAuthorityKeyID, Value: der}}
		}
	}
	type keyID struct {
		Key []byte `asn1:"tag:0"`
	}
	type serialID struct {
		Issuer []asn1.RawValue `asn1:"tag:1"`
		Serial *big.Int        `asn1:"tag:2"`
	}
	named := func(subject []byte) []asn1.RawValue {
		return []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: subject}}
	}
	assert.True(t, Contradicts(root.Certificate, leaf(t, root, aki(keyID{[]byte("another")})).Certificate))
	assert.False(t, Contradicts(root.Certificate, leaf(t, root, aki(serialID{named(root.RawSubject), root.SerialNumber})).Certificate))
	assert.True(t, Contradicts(root.Certificate, leaf(t, root, aki(serialID{named(root.RawSubject), big.NewInt(1)})).Certificate))
	other := ca(t, "other", nil, nil)
	assert.True(t, Contradicts(root.Certificate, leaf(t, root, aki(serialID{named(other.RawSubject), root.SerialNumber})).Certificate))
}

func TestNameConstraintsOnDirectoryNamesAreHeld(t *testing.T) {
	constrained := func(org string, excluded bool) func(*x509.Certificate) {
		base, err := asn1.Marshal(pkix.Name{Organization: []string{org}}.ToRDNSequence())
		require.NoError(t, err)
		trees := []subtree{{Base: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: directoryName, IsCompound: true, Bytes: base}}}
		var value []byte
		if excluded {
			value, err = asn1.Marshal(struct {
				Trees []subtree `asn1:"tag:1"`
			}{trees})
		} else {
			value, err = asn1.Marshal(struct {
				Trees []subtree `asn1:"tag:0"`
			}{trees})
		}
		require.NoError(t, err)
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidNameConstraints, Critical: true, Value: value}}
		}
	}
	root := ca(t, "root", nil, nil)
	for name, c := range map[string]struct {
		edit    func(*x509.Certificate)
		subject pkix.Name
		ok      bool
	}{
		"permitted":             {constrained("Example", false), pkix.Name{Organization: []string{"Example"}, CommonName: "mail"}, true},
		"in other letters":      {constrained("Example", false), pkix.Name{Organization: []string{"EXAMPLE"}}, true},
		"not permitted":         {constrained("Example", false), pkix.Name{Organization: []string{"Other"}}, false},
		"excluded":              {constrained("Example", true), pkix.Name{Organization: []string{"Example"}}, false},
		"another is excluded":   {constrained("Example", true), pkix.Name{Organization: []string{"Other"}}, true},
		"without a subject":     {constrained("Example", false), pkix.Name{}, true},
		"a name that is longer": {constrained("Example Corporation", false), pkix.Name{Organization: []string{"Example"}}, false},
	} {
		middle := ca(t, "middle", root, c.edit)
		l := leaf(t, middle, func(l *x509.Certificate) { l.Subject = c.subject })
		_, err := Paths(certs(l, middle), pool(root), time.Now())
		if c.ok {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, "outside the name constraints", name)
		}
	}
}

func TestAPoolIsReadWithTheSameLeniency(t *testing.T) {
	root := ca(t, "root", nil, nil)
	p, err := Pool(EncodeChain(root.Certificate))
	require.NoError(t, err)
	assert.True(t, p.Equal(pool(root)))
	_, err = Pool([]byte("junk"))
	require.Error(t, err)
}
