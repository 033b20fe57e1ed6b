package source

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"slices"

	"mailu-hook/internal/pki"
)

// collection is the certificates and keys that were found in files, whichever.
type collection struct {
	certs     []foundCert
	keys      []foundKey
	encrypted string // a file with an encrypted key; "" if there was none
}

type foundCert struct {
	*x509.Certificate
	file string
}

type foundKey struct {
	public crypto.PublicKey
	block  *pem.Block
	file   string
}

// add takes what the file holds in PEM. What is none of it, or cannot be read, is
// left out: other files lie about in the directories of ACME clients.
func (c *collection) add(file string, data []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == pki.Certificate:
			if cert, err := pki.Parse(block.Bytes); err == nil {
				c.certs = append(c.certs, foundCert{cert, file})
			}
		case pki.IsEncrypted(block):
			c.encrypted = file
		case pki.IsKey(block):
			if key, err := pki.ParseKey(block); err == nil {
				c.keys = append(c.keys, foundKey{key.Public(), block, file})
			}
		}
	}
}

// pairs returns each leaf with its key and the chain above it, as far as it was
// found.
func (c *collection) pairs(lineage string) (all []Pair) {
	for _, key := range c.keys {
		for _, cert := range c.certs {
			known := func(p Pair) bool { return p.Leaf.Equal(cert.Certificate) }
			if pki.Owns(key.public, cert.Certificate) && !slices.ContainsFunc(all, known) {
				all = append(all, Pair{
					Source: Source{Lineage: lineage, CertFile: c.fullest(cert), KeyFile: key.file},
					Cert:   pki.EncodeChain(c.chain(cert.Certificate)...), Key: pem.EncodeToMemory(key.block), Leaf: cert.Certificate,
				})
			}
		}
	}
	if slices.ContainsFunc(all, isLeaf) { // the key of a CA is not what is meant, unless there is no other
		all = slices.DeleteFunc(all, func(p Pair) bool { return !isLeaf(p) })
	}
	return all
}

func isLeaf(p Pair) bool { return !p.Leaf.IsCA }

func (c *collection) chain(leaf *x509.Certificate) []*x509.Certificate {
	certs := make([]*x509.Certificate, len(c.certs))
	for i, cert := range c.certs {
		certs[i] = cert.Certificate
	}
	chain, _ := pki.Order(leaf, certs)
	return chain
}

// fullest is the file with the leaf that holds most certificates.
func (c *collection) fullest(leaf foundCert) string {
	best, most := leaf.file, 0
	for _, cert := range c.certs {
		count := 0
		for _, other := range c.certs {
			if other.file == cert.file {
				count++
			}
		}
		if cert.Equal(leaf.Certificate) && count > most {
			best, most = cert.file, count
		}
	}
	return best
}

// lack says what is missing where there is no pair.
func (c *collection) lack(place string) *Error {
	const remedy = "name a directory or a file that holds the certificate and its private key, or --cert FILE --key FILE"
	switch {
	case len(c.certs) == 0 && len(c.keys) == 0 && c.encrypted == "":
		return lacks(place, remedy, "it holds no certificate and no private key")
	case len(c.certs) == 0:
		return lacks(place, remedy, "it holds a private key and no certificate")
	case len(c.keys) == 0 && c.encrypted != "":
		return lacks(place, "nobody can type a passphrase when the front starts; decrypt it: openssl pkey -in KEY -out PLAIN", "the private key in %s is encrypted", c.encrypted)
	case len(c.keys) == 0:
		return lacks(place, remedy, "it holds %d certificates and no private key", len(c.certs))
	}
	return lacks(place, remedy, "none of its %d private keys belongs to one of its %d certificates", len(c.keys), len(c.certs))
}

func isPEM(data []byte) bool { return bytes.Contains(data, []byte("-----BEGIN ")) }
