package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// authority is a CA of a kind that mint, which is right by default, does not make.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// authority makes a CA that parent signs, nil for a root. A nil key is a new
// P-256 one.
func (f *forger) authority(name string, key crypto.Signer, parent *authority, edit func(*x509.Certificate)) *authority {
	if key == nil {
		key = f.ecKey(elliptic.P256())
	}
	a := &authority{key: key}
	if parent == nil {
		parent = a
	}
	template := &x509.Certificate{
		SerialNumber: f.nextSerial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(9999 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if edit != nil {
		edit(template)
	}
	issuer := parent.cert
	if issuer == nil {
		issuer = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), parent.key)
	require.NoError(f.t, err, name)
	a.cert, err = x509.ParseCertificate(raw)
	require.NoError(f.t, err, name)
	a.pem = block("CERTIFICATE", raw)
	return a
}

// nextSerial is another one each time: NSS refuses a second certificate with the
// issuer and serial of one that it knows.
func (f *forger) nextSerial() *big.Int {
	f.serial++
	return big.NewInt(f.serial + 1000)
}

func (f *forger) ecKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(f.t, err)
	return key
}

// leaf signs a leaf for key and returns its PEM.
func (f *forger) leaf(a *authority, key crypto.Signer, edit func(*x509.Certificate)) []byte {
	leaf := f.authority("mail.example.com", key, a, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.DNSNames, c.ExtKeyUsage = false, x509.KeyUsageDigitalSignature, []string{mint.DefaultName}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.NotAfter = time.Now().Add(90 * 24 * time.Hour)
		if edit != nil {
			edit(c)
		}
	})
	return leaf.pem
}

// chains: what can be above a leaf, in every order.
func (f *forger) chains() {
	root, strange := f.authority("oracle root", nil, nil, nil), f.authority("(STAGING) Pretend root", nil, nil, nil)
	f.trust(root.pem)
	key := f.ecKey(elliptic.P256())
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(f.t, err)
	keyPEM := block("PRIVATE KEY", raw)
	add := func(name string, parts ...[]byte) *candidate { return f.add("chain: "+name, join(parts...), keyPEM) }

	upper := f.authority("oracle upper", nil, root, nil)
	lower := f.authority("oracle lower", nil, upper, nil)
	leaf := f.leaf(lower, key, nil)
	add("two intermediates", leaf, lower.pem, upper.pem)
	add("two intermediates and the root", leaf, lower.pem, upper.pem, root.pem)
	add("no intermediate", leaf)
	add("upper intermediate missing", leaf, lower.pem)
	add("lower intermediate missing", leaf, upper.pem)
	add("intermediates in the wrong order", leaf, upper.pem, lower.pem)
	add("leaf last", lower.pem, upper.pem, leaf)
	add("leaf in the middle", lower.pem, leaf, upper.pem)
	add("root first", root.pem, leaf, lower.pem, upper.pem)
	add("leaf twice", leaf, leaf, lower.pem, upper.pem)
	add("intermediate twice", leaf, lower.pem, lower.pem, upper.pem)
	add("all twice", leaf, lower.pem, upper.pem, leaf, lower.pem, upper.pem)
	add("a stranger at the end", leaf, lower.pem, upper.pem, strange.pem)
	add("a stranger between", leaf, strange.pem, lower.pem, upper.pem)
	add("a second leaf after it", leaf, f.leaf(upper, key, nil), upper.pem)
	add("straight from the root", f.leaf(root, key, nil))
	add("straight from the root, and the root", f.leaf(root, key, nil), root.pem)

	// As ISRG Root X1 was signed by DST Root CA X3: a root of its own to some.
	young := f.authority("young root", nil, nil, nil)
	crossed := f.authority("young root", young.key, root, nil)
	middle := f.authority("young intermediate", nil, young, nil)
	twin := f.authority("young intermediate", middle.key, root, nil)
	leaf = f.leaf(middle, key, nil)
	add("cross-signed root", leaf, middle.pem, crossed.pem)
	add("cross-signed root without the cross", leaf, middle.pem)
	add("cross-signed root and the root itself", leaf, middle.pem, crossed.pem, young.pem)
	add("cross-signed root and the old root", leaf, middle.pem, crossed.pem, root.pem)
	add("cross-signed intermediate, trusted first", leaf, twin.pem, middle.pem)
	add("cross-signed intermediate, trusted last", leaf, middle.pem, twin.pem)
	add("cross-signed intermediate alone", leaf, twin.pem)

	deep, above := root, []byte(nil)
	for depth := 1; depth <= 12; depth++ {
		deep = f.authority(fmt.Sprint("oracle depth ", depth), nil, deep, nil)
		above = join(deep.pem, above)
		if depth >= 9 {
			add(fmt.Sprint("depth ", depth), f.leaf(deep, key, nil), above)
		}
	}
	f.intermediates(root, key, add)
	unknown := f.authority("(STAGING) Pretend intermediate", nil, strange, nil)
	leaf = f.leaf(unknown, key, nil)
	add("staging", leaf, unknown.pem)
	add("staging, untrusted allowed", leaf, unknown.pem).untrusted = true
	add("unknown root", f.leaf(strange, key, nil), strange.pem)
	add("unknown root, untrusted allowed", f.leaf(strange, key, nil), strange.pem).untrusted = true
	add("leaf only, untrusted allowed", leaf).untrusted = true
	add("strangers, untrusted allowed", leaf, upper.pem, lower.pem, root.pem).untrusted = true
	for _, untrusted := range []bool{false, true} {
		self, err := mint.SelfSigned(mint.Leaf{})
		require.NoError(f.t, err)
		f.add(fmt.Sprint("self-signed, untrusted allowed: ", untrusted), self.Chain, self.KeyPEM).untrusted = untrusted
	}
}

// intermediates: one that is odd in itself, with the chain held to the roots,
// and with --allow-untrusted.
func (f *forger) intermediates(root *authority, key crypto.Signer, add func(string, ...[]byte) *candidate) {
	rsaKey := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(f.t, err)
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f.t, err)
	rsaRoot := f.authority("oracle RSA root", rsaKey(2048), nil, nil)
	oldRoot := f.authority("oracle SHA-1 root", rsaRoot.key, nil, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	smallRoot := f.authority("oracle small root", rsaKey(1024), nil, nil)
	for _, r := range []*authority{rsaRoot, oldRoot, smallRoot} {
		f.trust(r.pem)
	}
	now := time.Now()
	network := &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}
	for name, c := range map[string]struct {
		key    crypto.Signer
		parent *authority
		edit   func(*x509.Certificate)
	}{
		"RSA-1024":                  {rsaKey(1024), root, nil},
		"RSA-2048":                  {rsaKey(2048), root, nil},
		"P-224":                     {f.ecKey(elliptic.P224()), root, nil},
		"P-384":                     {f.ecKey(elliptic.P384()), root, nil},
		"P-521":                     {f.ecKey(elliptic.P521()), root, nil},
		"Ed25519":                   {ed, root, nil},
		"of an RSA-1024 root":       {nil, smallRoot, nil},
		"of a SHA-1 root":           {nil, oldRoot, nil},
		"signed with SHA-1":         {nil, rsaRoot, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }},
		"signed with RSA-PSS":       {nil, rsaRoot, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }},
		"self-issued with SHA-1":    {nil, rsaRoot, func(c *x509.Certificate) { c.Subject, c.SignatureAlgorithm = rsaRoot.cert.Subject, x509.SHA1WithRSA }},
		"expired":                   {nil, root, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }},
		"future":                    {nil, root, func(c *x509.Certificate) { c.NotBefore = now.Add(24 * time.Hour) }},
		"no CA":                     {nil, root, func(c *x509.Certificate) { c.IsCA = false }},
		"without basic constraints": {nil, root, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false }},
		"path length 0":             {nil, root, func(c *x509.Certificate) { c.MaxPathLenZero = true }},
		"without certSign":          {nil, root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }},
		"without key usage":         {nil, root, func(c *x509.Certificate) { c.KeyUsage = 0 }},
		"for clients only":          {nil, root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }},
		"name permitted":            {nil, root, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }},
		"name not permitted":        {nil, root, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} }},
		"name excluded":             {nil, root, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"mail.example.com"} }},
		"other name excluded":       {nil, root, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"www.example.com"} }},
		"critical name constraints": {nil, root, func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.com"}, true
		}},
		"addresses only":             {nil, root, func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{network} }},
		"unknown critical extension": {nil, root, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{strangeExtension(true)} }},
		"unknown extension":          {nil, root, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{strangeExtension(false)} }},
		"empty subject":              {nil, root, func(c *x509.Certificate) { c.Subject = pkix.Name{} }},
	} {
		a := f.authority("oracle odd intermediate", c.key, c.parent, c.edit)
		leaf := f.leaf(a, key, nil)
		add("intermediate "+name, leaf, a.pem)
		if soak {
			add("intermediate "+name+", and its root", leaf, a.pem, c.parent.pem)
		}
		add("intermediate "+name+", untrusted allowed", leaf, a.pem).untrusted = true
	}
	add("straight from an RSA-1024 root, and the root", f.leaf(smallRoot, key, nil), smallRoot.pem)
	add("straight from a SHA-1 root, and the root", f.leaf(oldRoot, key, nil), oldRoot.pem)
}

func strangeExtension(critical bool) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1}, Critical: critical, Value: []byte{5, 0}}
}

// leaves: what can be odd in the leaf itself.
func (f *forger) leaves() {
	now := time.Now()
	many := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("mail%d.example.com", i))
		}
		return append(names, mint.DefaultName)
	}
	huge := func(bytes int) *big.Int { return new(big.Int).Lsh(big.NewInt(0x5a), uint(8*(bytes-1))) }
	edit := func(e func(*x509.Certificate)) mint.Leaf { return mint.Leaf{Edit: e} }
	usage := func(u x509.KeyUsage) mint.Leaf { return edit(func(c *x509.Certificate) { c.KeyUsage = u }) }
	oids := []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}, {1, 3, 6, 1, 4, 1, 55555, 2}}
	for name, l := range map[string]mint.Leaf{
		"expired 2 hours ago": {NotAfter: now.Add(-2 * time.Hour)}, "expired 50 minutes ago": {NotAfter: now.Add(-50 * time.Minute)},
		"valid in 2 hours": {NotBefore: now.Add(2 * time.Hour)}, "valid in 50 minutes": {NotBefore: now.Add(50 * time.Minute)},
		"valid until 2051": {NotAfter: time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC)}, "valid until 9999": {NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
		"valid since 1950": {NotBefore: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: now.Add(999 * time.Hour)},
		"6 days":           {NotAfter: now.Add(160 * time.Hour)}, "ends before it begins": {NotBefore: now, NotAfter: now.Add(-time.Minute)},
		"serial of 20 bytes": edit(func(c *x509.Certificate) { c.SerialNumber = huge(20) }), "serial 1": edit(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }),
		"serial of 21 bytes": edit(func(c *x509.Certificate) { c.SerialNumber = huge(21) }), "serial of 200 bytes": edit(func(c *x509.Certificate) { c.SerialNumber = huge(200) }),
		"empty subject": edit(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), "no name at all": edit(func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{}, nil }),
		"empty subject, names not critical": edit(func(c *x509.Certificate) {
			names := append([]byte{48, 18, 130, 16}, mint.DefaultName...)
			c.Subject, c.DNSNames, c.ExtraExtensions = pkix.Name{}, nil, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}}
		}),
		"name in the subject only": edit(func(c *x509.Certificate) { c.DNSNames = nil }), "subject of 64 bytes": edit(func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 64) }),
		"subject in Chinese": edit(func(c *x509.Certificate) { c.Subject.Organization = []string{"中文電郵"} }), "subject of 4 KiB": edit(func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 4096)} }),
		"wildcard": {Names: []string{"*.example.com"}}, "wildcard of everything": {Names: []string{"*", mint.DefaultName}}, "100 names": {Names: many(100)}, "1000 names": {Names: many(1000)},
		"underscore": {Names: []string{"_x.example.com", mint.DefaultName}}, "other name": {Names: []string{"www.example.com"}},
		"address, mail and URI beside the name": edit(func(c *x509.Certificate) {
			c.IPAddresses, c.EmailAddresses = []net.IP{net.ParseIP("2001:db8::1")}, []string{"a@example.com"}
		}),
		"CA true": {IsCA: true}, "no basic constraints": edit(func(c *x509.Certificate) { c.BasicConstraintsValid = false }),
		"usage: none": usage(0), "usage: keyEncipherment": usage(x509.KeyUsageKeyEncipherment), "usage: keyAgreement": usage(x509.KeyUsageKeyAgreement), "usage: certSign": usage(x509.KeyUsageCertSign),
		"extended usage: none": {ExtKeyUsage: []x509.ExtKeyUsage{}}, "extended usage: client": {ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		"extended usage: both": {ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, "extended usage: mail": {ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}},
		"extended usage: any": edit(func(c *x509.Certificate) { c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, oids[:1] }), "extended usage: unknown": edit(func(c *x509.Certificate) { c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, oids[1:] }),
		"must-staple": edit(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{48, 3, 2, 1, 5}}}
		}),
		"unknown extension":          edit(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{strangeExtension(false)} }),
		"unknown critical extension": edit(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{strangeExtension(true)} }),
	} {
		for _, kind := range someKeys() {
			l.Key = kind
			p := f.issue(l)
			f.add(fmt.Sprintf("leaf %s: %s", kind, name), p.Chain, p.KeyPEM)
			if name == "unknown critical extension" {
				f.add(fmt.Sprintf("leaf %s: %s, untrusted allowed", kind, name), p.Chain, p.KeyPEM).untrusted = true
			}
		}
	}
	for host, l := range map[string]mint.Leaf{
		"192.0.2.1": {IPs: []net.IP{net.ParseIP("192.0.2.1")}}, "2001:db8::1": {IPs: []net.IP{net.ParseIP("2001:db8::1")}},
		"mail.bücher.example": {Names: []string{"mail.xn--bcher-kva.example"}}, "*.example.com": {Names: []string{"*.example.com"}},
	} {
		p := f.issue(l)
		f.add("host "+host, p.Chain, p.KeyPEM).host = host
	}
	for _, alg := range []x509.SignatureAlgorithm{x509.MD5WithRSA, x509.SHA1WithRSA, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA1, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512} {
		ca, err := mint.NewCA(mint.CAOptions{Name: alg.String(), Key: map[bool]mint.Key{true: mint.P256, false: mint.RSA2048}[strings.HasPrefix(alg.String(), "ECDSA")]})
		require.NoError(f.t, err)
		f.trust(ca.RootPEM)
		p, err := ca.Issue(mint.Leaf{SigAlg: alg})
		require.NoError(f.t, err)
		f.add("signature "+alg.String(), p.Chain, p.KeyPEM)
		f.add("signature "+alg.String()+", untrusted allowed", p.Chain, p.KeyPEM).untrusted = true
	}
}
