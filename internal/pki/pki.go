// Package pki is the one home for what the rest of mailu-hook does with
// certificates and keys and crypto/x509 does not offer ready-made: naming a
// certificate, reading and writing chains and keys as PEM, matching a key with
// its certificate, finding a path to a root, and telling how long a certificate
// lives. It has no type of its own, reads no file and decides nothing: what is
// acceptable is for package hook to say.
package pki

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PEM types (RFC 7468). The type of every form of private key ends in PrivateKey.
const (
	Certificate = "CERTIFICATE"
	PrivateKey  = "PRIVATE KEY" // as it stands: PKCS#8
)

// Fingerprint is the SHA-256 of c in lower-case hex.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// ParseChain parses the certificates in data, in the order of the file. It skips
// all other blocks, including keys. An empty chain is an error.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != Certificate {
			continue
		}
		c, err := Parse(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate %d: %w", len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return chain, nil
}

// EncodeChain writes a chain as PEM, without headers or text between the blocks.
func EncodeChain(chain ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: Certificate, Bytes: c.Raw})...)
	}
	return out
}

// ParseKey parses an unencrypted private key in PKCS#8, PKCS#1 or SEC1.
func ParseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case PrivateKey:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("unknown key format %s", strconv.QuoteToASCII(strings.TrimSpace(strings.TrimSuffix(block.Type, PrivateKey))))
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key that cannot sign (%T)", key)
	}
	return signer, nil
}

// EncodeKey writes a private key as PEM in PKCS#8.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: PrivateKey, Bytes: der}), nil
}

// Owns reports whether public is the key that c certifies.
func Owns(public crypto.PublicKey, c *x509.Certificate) bool {
	key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(c.PublicKey)
}

// LeafOf is the certificate that a file of certificates, which must not be empty, is
// taken to be for while its key is not known: the first that is not a CA, else the first.
func LeafOf(certs []*x509.Certificate) *x509.Certificate {
	return certs[max(0, slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA }))]
}

// IsKey reports whether a PEM block holds a private key, encrypted or not.
func IsKey(block *pem.Block) bool { return strings.HasSuffix(block.Type, PrivateKey) }

// IsEncrypted reports whether a PEM block holds an encrypted private key, in the form
// of PKCS#8 (RFC 7468, section 11) or of OpenSSL's older one (RFC 1421, section 4.6.1.1).
func IsEncrypted(block *pem.Block) bool {
	return block.Type == "ENCRYPTED "+PrivateKey || block.Headers["Proc-Type"] != ""
}

// SelfIssued reports whether c names itself as its issuer, as every root does
// (RFC 5280, section 3.2).
func SelfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// Paths verifies the first certificate of chain with the help of the others, in
// whatever order they stand, and returns the paths that lead to one of roots at
// a given time. Nil roots are those of the system.
func Paths(chain []*x509.Certificate, roots *x509.CertPool, at time.Time) (paths [][]*x509.Certificate, err error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	all, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at})
	for _, path := range all {
		if nerr := withinNames(path); nerr != nil {
			err = nerr
			continue
		}
		paths = append(paths, path)
	}
	if len(paths) > 0 {
		return paths, nil
	}
	return nil, err
}

// FirstToExpire is the certificate that ends the life of chain, leaf first: the
// first to expire on its path to one of roots, on the longest-lived path if there
// are several. Clients reject all of it from then on. Without a path, the
// certificates that are sent decide, as far as each was issued by the next.
func FirstToExpire(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) *x509.Certificate {
	var last *x509.Certificate
	for _, at := range []time.Time{now, chain[0].NotAfter, chain[0].NotBefore} { // a path may exist no longer, or not yet
		paths, _ := Paths(chain, roots, at)
		for _, path := range paths {
			if first := earliest(path); last == nil || first.NotAfter.After(last.NotAfter) {
				last = first
			}
		}
		if last != nil {
			return last
		}
	}
	linked := 1
	for linked < len(chain) && bytes.Equal(chain[linked-1].RawIssuer, chain[linked].RawSubject) {
		linked++
	}
	return earliest(chain[:linked])
}

func earliest(path []*x509.Certificate) *x509.Certificate {
	return slices.MinFunc(path, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

// Lifetime is how long c is valid in all.
func Lifetime(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }

const short = 10 * 24 * time.Hour // a lifetime below this is renewed at half of it

// RenewAt is when c is due if its CA gives no advice: when a third of its
// lifetime is left, or half of one shorter than ten days. Let's Encrypt
// recommends this for its profiles classic and shortlived, and certbot does so
// (certbot/_internal/renewal.py, since version 4; before that it renewed with 30
// days left, which is the same for a lifetime of 90).
func RenewAt(c *x509.Certificate) time.Time {
	if Lifetime(c) < short {
		return c.NotAfter.Add(-Lifetime(c) / 2)
	}
	return c.NotAfter.Add(-Lifetime(c) / 3)
}

// Mismatch reports whether cert and key, both PEM, were made for each other by
// nobody: both can be read, and the key is that of none of the certificates.
func Mismatch(cert, key []byte) bool {
	chain, err := ParseChain(cert)
	if err != nil {
		return false
	}
	for block, rest := pem.Decode(key); block != nil; block, rest = pem.Decode(rest) {
		if private, err := ParseKey(block); err == nil {
			return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return Owns(private.Public(), c) })
		}
	}
	return false
}
