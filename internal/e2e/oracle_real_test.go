package e2e

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// realCAs: the shapes of what real CAs hand out, made anew.
func (f *forger) realCAs() {
	rsaKey := func(bits int) crypto.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(f.t, err)
		return key
	}
	p384 := func() crypto.Signer { return f.ecKey(elliptic.P384()) }
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	pss := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }
	root := func(name string, key crypto.Signer, edit func(*x509.Certificate)) *authority {
		a := f.authority(name, key, nil, edit)
		f.trust(a.pem)
		return a
	}
	ecdsa, rsaLeaf := f.ecKey(elliptic.P256()), rsaKey(2048)
	add := func(name string, key crypto.Signer, parts ...[]byte) *candidate {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(f.t, err)
		return f.add("CA: "+name, join(parts...), block("PRIVATE KEY", der))
	}
	both := func(name string, issuer *authority, edit func(*x509.Certificate), above ...[]byte) {
		add(name+", ECDSA", ecdsa, append([][]byte{f.leaf(issuer, ecdsa, edit)}, above...)...)
		add(name+", RSA", rsaLeaf, append([][]byte{f.leaf(issuer, rsaLeaf, func(c *x509.Certificate) {
			c.KeyUsage |= x509.KeyUsageKeyEncipherment // as every CA has it for RSA
			if edit != nil {
				edit(c)
			}
		})}, above...)...)
	}

	// Let's Encrypt: ISRG Root X1, of which an old root signed a copy that has
	// expired since; X2, of which X1 did; and the roots of 2025 below both.
	x1 := root("ISRG Root X1", rsaKey(4096), nil)
	dst := f.authority("DST Root CA X3", rsaKey(2048), nil, sha1)
	dstX1 := f.authority("ISRG Root X1", x1.key, dst, nil)
	gone := f.authority("ISRG Root X1", x1.key, dst, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	r3 := f.authority("R3", rsaKey(2048), x1, nil)
	both("Let's Encrypt, long chain", r3, nil, r3.pem, dstX1.pem)
	both("Let's Encrypt, long chain with an expired end", r3, nil, r3.pem, gone.pem)
	both("Let's Encrypt, short chain", r3, nil, r3.pem)
	x2 := root("ISRG Root X2", p384(), nil)
	x1x2 := f.authority("ISRG Root X2", x2.key, x1, nil)
	e7 := f.authority("E7", p384(), x2, nil)
	both("Let's Encrypt, X2", e7, nil, e7.pem)
	both("Let's Encrypt, X2 by X1", e7, nil, e7.pem, x1x2.pem)
	ye := f.authority("Root YE", p384(), nil, nil)
	x2ye := f.authority("Root YE", ye.key, x2, nil)
	ye1 := f.authority("YE1", p384(), ye, nil)
	both("Let's Encrypt, generation Y", ye1, nil, ye1.pem, x2ye.pem, x1x2.pem)
	both("Let's Encrypt, generation Y, six days and no subject", ye1, func(c *x509.Certificate) {
		c.Subject, c.NotAfter = pkix.Name{}, time.Now().Add(150*time.Hour)
	}, ye1.pem, x2ye.pem, x1x2.pem)

	// ZeroSSL and Sectigo: USERTrust, cross-signed by AAA of 2004.
	aaa := root("AAA Certificate Services", rsaKey(2048), sha1)
	userTrust := root("USERTrust ECC", p384(), nil)
	aaaUser := f.authority("USERTrust ECC", userTrust.key, aaa, nil)
	zero := f.authority("ZeroSSL ECC DV", p384(), userTrust, nil)
	both("ZeroSSL", zero, nil, zero.pem, aaaUser.pem)
	both("ZeroSSL with the SHA-1 root", zero, nil, zero.pem, aaaUser.pem, aaa.pem)
	r46 := root("Sectigo R46", rsaKey(2048), nil)
	userR46 := f.authority("Sectigo R46", r46.key, userTrust, nil)
	r36 := f.authority("Sectigo DV R36", rsaKey(3072), r46, nil)
	both("Sectigo", r36, nil, r36.pem, userR46.pem)
	both("Sectigo in the order of its mail", r36, nil, userR46.pem, r36.pem)

	// GTS R4 by GlobalSign's SHA-1 root; SSL.com by Certum; Buypass and Actalis
	// alone, Actalis with its root; GoDaddy's bundle.
	globalSign := root("GlobalSign Root CA", rsaKey(2048), sha1)
	r4 := root("GTS Root R4", p384(), nil)
	crossR4 := f.authority("GTS Root R4", r4.key, globalSign, nil)
	we1 := f.authority("WE1", f.ecKey(elliptic.P256()), r4, nil)
	both("GTS", we1, nil, we1.pem, crossR4.pem)
	certum := root("Certum Trusted Network CA", rsaKey(2048), sha1)
	sslRoot := root("SSL.com Root RSA", rsaKey(2048), nil)
	crossSSL := f.authority("SSL.com Root RSA", sslRoot.key, certum, nil)
	ssl := f.authority("SSL.com RSA subCA", rsaKey(2048), sslRoot, nil)
	both("SSL.com", ssl, nil, ssl.pem, crossSSL.pem)
	buypass := root("Buypass Class 2 Root", rsaKey(2048), nil)
	class2 := f.authority("Buypass Class 2 CA 5", rsaKey(2048), buypass, nil)
	both("Buypass", class2, nil, class2.pem)
	actalis := root("Actalis Authentication Root", rsaKey(2048), nil)
	actalis3 := f.authority("Actalis DV G3", rsaKey(2048), actalis, nil)
	both("Actalis with its root", actalis3, nil, actalis3.pem, actalis.pem)
	goOld := root("Go Daddy Class 2", rsaKey(2048), sha1)
	goG2 := root("Go Daddy Root G2", rsaKey(2048), nil)
	goCross := f.authority("Go Daddy Root G2", goG2.key, goOld, nil)
	goIssuer := f.authority("Go Daddy Secure G2", rsaKey(2048), goG2, nil)
	both("GoDaddy's bundle with its SHA-1 root", goIssuer, nil, goIssuer.pem, goCross.pem, goOld.pem)
	both("GoDaddy's bundle, reversed", goIssuer, nil, goOld.pem, goCross.pem, goIssuer.pem)

	// Private CAs: step-ca, ADCS with PSS, name constraints, and openssl's own.
	step := root("Smallstep Root", nil, nil)
	stepSub := f.authority("Smallstep Intermediate", nil, step, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	both("step-ca", stepSub, func(c *x509.Certificate) { c.Subject, c.NotAfter = pkix.Name{}, time.Now().Add(24*time.Hour) }, stepSub.pem)
	adcs := root("ADCS Root", rsaKey(2048), pss)
	adcsSub := f.authority("ADCS Issuing", rsaKey(2048), adcs, pss)
	both("ADCS with PSS", adcsSub, pss, adcsSub.pem)
	both("ADCS with PSS and its root", adcsSub, pss, adcsSub.pem, adcs.pem)
	names := root("Constrained Root", nil, nil)
	for name, edit := range map[string]func(*x509.Certificate){
		"a DNS name": func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.com"}, true
		},
		"another DNS name": func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
		},
		"a directory name":       f.directoryName("Example"),
		"another directory name": f.directoryName("Other"),
	} {
		sub := f.authority("Constrained Intermediate", nil, names, edit)
		both("private, constrained to "+name, sub, func(c *x509.Certificate) {
			c.Subject = pkix.Name{Organization: []string{"Example"}, CommonName: mint.DefaultName}
		}, sub.pem)
	}
	direct := root("Direct Root", rsaKey(2048), nil)
	both("private, without an intermediate", direct, nil)
	both("private, without an intermediate, with its root", direct, nil, direct.pem)

	// What clients refuse of a leaf, each by itself.
	add("an RSA key for signatures only", rsaLeaf, f.leaf(e7, rsaLeaf, nil), e7.pem)
	both("a key for encipherment only", e7, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, e7.pem)
	both("an authority key that contradicts", e7, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 35}, Value: []byte{48, 6, 128, 4, 1, 2, 3, 4}}}
	}, e7.pem)
	both("extended usage any alone", e7, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, e7.pem)
	both("a name with a trailing dot", e7, func(c *x509.Certificate) { c.DNSNames = []string{mint.DefaultName + "."} }, e7.pem)
	both("expired a minute ago", e7, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, e7.pem)
	small := root("RSA-1024 Root", rsaKey(1024), nil)
	both("a root of RSA-1024", small, nil)
	both("the leaf alone", e7, nil)
	both("the leaf twice", e7, nil, e7.pem, e7.pem)
	both("an unrelated CA", e7, nil, aaa.pem, e7.pem)
}

// directoryName permits subjects of an organization only, and is critical.
func (f *forger) directoryName(organization string) func(*x509.Certificate) {
	name, err := asn1.Marshal(pkix.Name{Organization: []string{organization}}.ToRDNSequence())
	require.NoError(f.t, err)
	raw := func(class, tag int, content []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: true, Bytes: content})
		require.NoError(f.t, err)
		return der
	}
	const universal, context = asn1.ClassUniversal, asn1.ClassContextSpecific
	value := raw(universal, asn1.TagSequence, raw(context, 0, raw(universal, asn1.TagSequence, raw(context, 4, name))))
	return func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: value}}
	}
}
