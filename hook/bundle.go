package hook

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

// Bundle is a private key and its certificate chain, leaf first. A Bundle that
// Parse returned holds one unencrypted key of a kind the front can use, and
// the key belongs to the leaf; whether the chain deserves trust is for
// Rules.Check to say.
type Bundle struct {
	source.Source
	Chain []*x509.Certificate // leaf first; never empty

	certPEM, keyPEM []byte // canonical PEM: what was validated and nothing else
}

// Leaf is the certificate that the ports are to show.
func (b *Bundle) Leaf() *x509.Certificate { return b.Chain[0] }

// Fingerprint is the SHA-256 of the leaf, in lower-case hex.
func (b *Bundle) Fingerprint() string { return pki.Fingerprint(b.Leaf()) }

// Rejection says why a bundle may not be installed, at all or yet. When one is
// returned, the pair and the front were not touched.
type Rejection struct {
	File, Fact, Remedy string
	Leaf               *x509.Certificate // what was to be installed, as far as it could be read, wherever it stands in the file
	cause              error
}

func (r *Rejection) Error() string { return r.File + ": " + r.Fact }
func (r *Rejection) Hint() string  { return r.Remedy }
func (r *Rejection) Unwrap() error { return r.cause }

const (
	minRSA = 2048
	maxRSA = 8192 // bits; crypto/tls refuses to check a larger key of a server
	maxCAs = 10   // certificates above the leaf
)

// Parse reads a bundle from the content of its two files. Every error is a
// *Rejection. Text around the PEM blocks, a byte order mark and CRLF are
// harmless: what is installed is the certificates as they are and the key as
// PKCS#8, written anew. Go and OpenSSL differ in what they forgive a key's
// encoding (a public key in it that is another's, a wrong version).
func Parse(src source.Source, cert, key []byte) (*Bundle, error) {
	b := &Bundle{Source: src}
	if err := b.parseChain(cert); err != nil {
		return nil, err
	}
	public, err := b.parseKey(key)
	if err != nil {
		return nil, err
	}
	if err := b.match(public); err != nil {
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
		r.Leaf = b.Chain[max(0, slices.IndexFunc(b.Chain, func(c *x509.Certificate) bool { return !c.IsCA }))]
	}
	return r
}

const useFullchain = "use certbot's fullchain.pem: the leaf first, then each issuer, nothing else"

func (b *Bundle) parseChain(data []byte) error {
	blocks, err := decodePEM(data)
	if err != nil {
		return b.rejectCert("the file is damaged or not PEM: "+useFullchain, "%v", err)
	}
	for i, block := range blocks {
		if strings.HasSuffix(block.Type, pki.PrivateKey) {
			return b.rejectCert(useFullchain, "PEM block %d is a private key, in a file that everybody may read", i+1)
		}
		if block.Type != pki.Certificate {
			return b.rejectCert(useFullchain, "PEM block %d is %s, not a certificate", i+1, say.Foreign(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return b.rejectCert("the file is damaged: "+useFullchain, "certificate %d cannot be parsed: %v", i+1, err)
		}
		b.Chain = append(b.Chain, c)
		b.certPEM = append(b.certPEM, pki.EncodeChain(c)...)
	}
	if len(b.Chain) > 1+maxCAs {
		return b.rejectCert(useFullchain, "%d certificates: more than any chain needs", len(b.Chain))
	}
	return nil
}

func (b *Bundle) parseKey(data []byte) (crypto.PublicKey, error) {
	const remedy = "use certbot's privkey.pem, as it is"
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, b.rejectKey(remedy, "%v", err)
	}
	var private *pem.Block
	for _, block := range blocks {
		switch {
		case block.Type == "EC PARAMETERS": // openssl ecparam writes it before the key, which repeats it
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["Proc-Type"] != "":
			return nil, b.rejectKey("nobody is there to type a passphrase when the front starts; decrypt it: openssl pkey -in KEY -out PLAIN", "the private key is encrypted")
		case !strings.HasSuffix(block.Type, pki.PrivateKey):
			return nil, b.rejectKey(remedy, "%s is not a private key", say.Foreign(block.Type))
		case private != nil:
			return nil, b.rejectKey("keep the one key that belongs to the leaf", "more than one private key")
		default:
			private = block
		}
	}
	if private == nil {
		return nil, b.rejectKey(remedy, "no private key")
	}
	key, err := pki.ParseKey(private)
	if err != nil {
		return nil, b.rejectKey("the file is damaged, or its key is of a kind that mail clients cannot use; issue again with --key-type ecdsa or rsa", "the private key cannot be parsed: %v", err)
	}
	if b.keyPEM, err = pki.EncodeKey(key); err != nil {
		return nil, b.rejectKey(remedy, "%v", err)
	}
	return key.Public(), nil
}

// match holds the chain against the key: the leaf must own it. It also tells a
// chain whose leaf is not first from a key of another certificate.
func (b *Bundle) match(public crypto.PublicKey) error {
	kind, ok := KeyType(public)
	if !ok {
		return b.rejectKey("issue again with an ECDSA P-256 or P-384 key, or RSA of 2048 to 8192 bits", "%s key: not accepted", kind)
	}
	for i, c := range b.Chain {
		if !pki.Owns(public, c) {
			continue
		}
		if i > 0 {
			return b.rejectCert(useFullchain, "the leaf is certificate %d, not the first", i+1)
		}
		return nil
	}
	return b.rejectKey("take both files from the same lineage and the same renewal", "the key does not belong to the leaf in %s", b.CertFile)
}

// KeyType names a public key in the field's terms, and tells whether nginx,
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

// decodePEM returns all blocks of data. encoding/pem passes over blocks that it
// cannot decode, where OpenSSL stops with an error; so a block that begins and
// does not decode is an error here.
func decodePEM(data []byte) ([]*pem.Block, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	begun := bytes.Count(data, []byte("-----BEGIN "))
	var blocks []*pem.Block
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	switch {
	case len(data) == 0:
		return nil, errors.New("the file is empty")
	case begun == 0:
		return nil, errors.New("no PEM block in it")
	case len(blocks) != begun:
		return nil, fmt.Errorf("%d of its %d PEM blocks cannot be decoded", begun-len(blocks), begun)
	}
	return blocks, nil
}
