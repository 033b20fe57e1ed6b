package hook

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

// Bundle is a private key and its certificate chain. A Bundle that Parse
// returned holds one unencrypted key of a kind the front can use, the leaf that
// belongs to it, and the issuers of that; whether the chain deserves trust is for
// Rules.Check to say.
type Bundle struct {
	source.Source
	Chain    []*x509.Certificate // leaf first, then what issued it, and so on; never empty
	Warnings []string            // what was wrong in the file and is right in the Chain

	foreign         []*x509.Certificate // in the file, but not above the leaf
	certPEM, keyPEM []byte              // canonical PEM: what was checked and nothing else
}

// Leaf is the certificate that the ports are to show.
func (b *Bundle) Leaf() *x509.Certificate { return b.Chain[0] }

// Fingerprint is the SHA-256 of the leaf, in lower-case hex.
func (b *Bundle) Fingerprint() string { return pki.Fingerprint(b.Leaf()) }

// Rejection says why a bundle may not be installed, at all or yet. When one is
// returned, the pair and the front were not touched.
type Rejection struct {
	File, Fact, Remedy string
	Leaf               *x509.Certificate // what was to be installed, as far as it could be read
	cause              error
}

func (r *Rejection) Error() string { return r.File + ": " + r.Fact }
func (r *Rejection) Hint() string  { return r.Remedy }
func (r *Rejection) Unwrap() error { return r.cause }

const (
	minRSA   = 2048
	maxRSA   = 8192     // bits; crypto/tls refuses to check a larger key of a server
	maxKey   = 16 << 10 // bytes of a key; RSA of 8192 bits takes 5 KiB
	maxCAs   = 9        // certificates above the leaf; Java takes ten in all (jdk.tls.maxServerCertificateChainLength)
	maxCerts = 50       // in a file, whatever is above the leaf
)

// Parse reads a bundle from the content of its two files, which may be one and
// the same. Every error is a *Rejection.
//
// What is installed is not what the files hold byte by byte: of the certificates,
// the leaf of the key and what is above it, each once and in order, and the key as
// PKCS#8. Text around the PEM blocks, a byte order mark and CRLF are harmless. Go
// and OpenSSL differ in what they forgive in the encoding of a key (somebody
// else's public key in it, a wrong version), so it is written anew.
func Parse(src source.Source, cert, key []byte) (*Bundle, error) {
	b := &Bundle{Source: src}
	if err := b.swapped(cert, key); err != nil {
		return nil, err
	}
	certs, err := b.parseCerts(cert)
	if err != nil {
		return nil, err
	}
	b.Chain = certs // as far as a Rejection is concerned
	public, err := b.parseKey(key)
	if err != nil {
		return nil, err
	}
	if err := b.arrange(certs, public); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Bundle) rejectCert(remedy, fact string, args ...any) *Rejection {
	return b.reject(b.CertFile, remedy, fmt.Sprintf(fact, args...))
}

func (b *Bundle) rejectKey(remedy, fact string, args ...any) *Rejection {
	return b.reject(b.KeyFile, remedy, fmt.Sprintf(fact, args...))
}

func (b *Bundle) reject(file, remedy, fact string) *Rejection {
	r := &Rejection{File: file, Fact: fact, Remedy: remedy}
	if len(b.Chain) > 0 {
		r.Leaf = pki.LeafOf(b.Chain)
	}
	return r
}

const (
	useFullchain = "use certbot's fullchain.pem: the certificate of the server and those of its CA, except the root"
	usePrivkey   = "use certbot's privkey.pem as it is"
)

// parameters are what openssl ecparam and dhparam write into the file of a key.
func parameters(block *pem.Block) bool {
	return block.Type == "EC PARAMETERS" || block.Type == "DH PARAMETERS"
}

// swapped recognizes files that were named the wrong way round.
func (b *Bundle) swapped(cert, key []byte) error {
	certs, keys, err := kinds(cert)
	if err != nil || certs > 0 || keys == 0 {
		return nil
	}
	if certs, keys, err = kinds(key); err == nil && certs > 0 && keys == 0 {
		return b.rejectCert("name the certificate with --cert and the key with --key", "the two files are swapped: this one holds the private key, and %s the certificate", b.KeyFile)
	}
	return b.rejectCert(useFullchain, "it holds a private key and no certificate")
}

func kinds(data []byte) (certs, keys int, err error) {
	blocks, err := decodePEM(data)
	for _, block := range blocks {
		switch {
		case pki.IsKey(block):
			keys++
		case block.Type == pki.Certificate:
			certs++
		}
	}
	return certs, keys, err
}

// parseCerts reads the certificates of a file, whatever their order. A key may be
// among them, as HAProxy has it: only certificates are written where everybody
// may read.
func (b *Bundle) parseCerts(data []byte) ([]*x509.Certificate, error) {
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, b.unreadable(b.CertFile, data, err, useFullchain)
	}
	var certs []*x509.Certificate
	for i, block := range blocks {
		switch {
		case pki.IsKey(block), parameters(block):
			continue
		case block.Type != pki.Certificate:
			return nil, b.rejectCert(convertBlock(block.Type, b.CertFile), "PEM block %d is %s, not a certificate", i+1, say.Foreign(block.Type))
		}
		c, err := pki.Parse(block.Bytes)
		if err != nil {
			return nil, b.unparsable(len(certs)+1, block.Bytes, err)
		}
		certs = append(certs, c)
		if len(certs) > maxCerts {
			return nil, b.rejectCert(useFullchain, "more than %d certificates, which no chain needs", maxCerts)
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > 2*maxRSA { // takes seconds to verify with
			return nil, b.rejectCert("issue it again with RSA keys of 2048 to 8192 bits", "certificate %d has a key of RSA-%d", len(certs), key.N.BitLen())
		}
	}
	if len(certs) == 0 {
		return nil, b.rejectCert(useFullchain, "there is no certificate in it")
	}
	return certs, nil
}

// unparsable tells a certificate that lost or changed bytes from one that is
// whole and of a form that crypto/x509 refuses.
func (b *Bundle) unparsable(n int, der []byte, err error) *Rejection {
	var whole struct{ TBS, Algorithm, Signature asn1.RawValue }
	if rest, aerr := asn1.Unmarshal(der, &whole); aerr != nil || len(rest) > 0 {
		return b.rejectCert("the file is damaged: "+useFullchain, "certificate %d cannot be parsed: %v", n, err)
	}
	return b.rejectCert("have the CA issue it again as RFC 5280 requires; clients written in Go, including this one, cannot read it, even if OpenSSL can",
		"certificate %d is not valid: %v", n, err)
}

func (b *Bundle) parseKey(data []byte) (crypto.PublicKey, error) {
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, b.unreadable(b.KeyFile, data, err, usePrivkey)
	}
	var private *pem.Block
	for _, block := range blocks {
		switch {
		case block.Type == pki.Certificate, parameters(block):
		case pki.IsEncrypted(block):
			return nil, b.rejectKey("nobody can type a passphrase when the front starts; decrypt it: openssl pkey -in KEY -out PLAIN", "the private key is encrypted")
		case !pki.IsKey(block):
			return nil, b.rejectKey(usePrivkey, "%s is not a private key", say.Foreign(block.Type))
		case private != nil:
			return nil, b.rejectKey("keep only the key that belongs to the certificate", "more than one private key")
		default:
			private = block
		}
	}
	switch {
	case private == nil:
		return nil, b.rejectKey(usePrivkey, "there is no private key in it")
	case len(private.Bytes) > maxKey:
		return nil, b.rejectKey("issue again with an ECDSA P-256 or P-384 key, or RSA of 2048 to 8192 bits", "a private key of %d bytes: larger than clients accept", len(private.Bytes))
	}
	key, err := pki.ParseKey(private)
	if err != nil {
		return nil, b.rejectKey("the file is damaged, or mail clients cannot use this kind of key; issue again with --key-type ecdsa or rsa", "the private key cannot be parsed: %v", err)
	}
	if b.keyPEM, err = pki.EncodeKey(key); err != nil {
		return nil, b.rejectKey(usePrivkey, "%v", err)
	}
	return key.Public(), nil
}

// arrange makes the chain: the certificate of the key, and from the others in
// the file those that are above it.
func (b *Bundle) arrange(certs []*x509.Certificate, public crypto.PublicKey) error {
	name, ok := KeyType(public)
	if !ok {
		return b.rejectKey("issue again with an ECDSA P-256 or P-384 key, or RSA of 2048 to 8192 bits", "%s key: not accepted", name)
	}
	ours := func(c *x509.Certificate) bool { return pki.Owns(public, c) }
	at := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return ours(c) && !c.IsCA })
	if at < 0 {
		at = slices.IndexFunc(certs, ours)
	}
	if at < 0 {
		return b.rejectKey("take both files from the same lineage and the same renewal", "the key does not belong to the certificate in %s", b.CertFile)
	}
	b.Chain, b.foreign = pki.Order(certs[at], certs)
	if len(b.Chain) > 1+maxCAs {
		return b.rejectCert(useFullchain, "a chain of %d certificates, which is more than clients accept", len(b.Chain))
	}
	b.certPEM = pki.EncodeChain(b.Chain...)
	b.describe(certs)
	return nil
}

// describe warns of what differs between the file and the chain.
func (b *Bundle) describe(certs []*x509.Certificate) {
	var once []*x509.Certificate
	for _, c := range certs {
		if !slices.ContainsFunc(once, c.Equal) {
			once = append(once, c)
		}
	}
	if len(once) < len(certs) {
		b.warn("%s holds certificates more than once; each was installed once", b.CertFile)
	}
	if len(b.foreign) > 0 {
		b.warn("%s holds certificates that do not belong to the chain and were left out: %s", b.CertFile, subjects(b.foreign))
	}
	inOrder := slices.DeleteFunc(once, func(c *x509.Certificate) bool { return slices.ContainsFunc(b.foreign, c.Equal) })
	if !slices.EqualFunc(inOrder, b.Chain, (*x509.Certificate).Equal) {
		b.warn("the certificates in %s are in the wrong order; they were installed in the right one", b.CertFile)
	}
}

func (b *Bundle) warn(format string, args ...any) {
	b.Warnings = append(b.Warnings, fmt.Sprintf(format, args...))
}

// subject names a certificate in a message.
func subject(c *x509.Certificate) string { return say.Foreign(c.Subject.String()) }

func subjects(certs []*x509.Certificate) string {
	const shown = 3
	var all []string
	for _, c := range certs[:min(shown, len(certs))] {
		all = append(all, subject(c))
	}
	if more := len(certs) - shown; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, ", ")
}

// KeyType names a public key in the usual terms, and reports whether nginx,
// dovecot and the clients of a mail server can be expected to work with it.
// Ed25519 is left to the front's own test.
func KeyType(public crypto.PublicKey) (name string, ok bool) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		return fmt.Sprintf("RSA-%d", bits), bits >= minRSA && bits <= maxRSA
	case *ecdsa.PublicKey:
		return "ECDSA-" + key.Curve.Params().Name, key.Curve == elliptic.P256() || key.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return "Ed25519", true
	}
	return fmt.Sprintf("%T", public), false
}
