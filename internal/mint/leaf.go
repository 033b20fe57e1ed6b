package mint

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"time"
)

// DefaultName is the host name of a leaf without names.
const DefaultName = "mail.example.com"

// Leaf says what to issue. The zero value is a P-256 server certificate for
// DefaultName, valid since an hour ago and for 90 days.
type Leaf struct {
	Names []string // DNS names; default DefaultName, unless IPs are given
	IPs   []net.IP
	Key   Key
	// Signer is used instead of a new key, for pairs that share one.
	Signer crypto.Signer

	// NotBefore defaults to an hour ago, or to 90 days before NotAfter if
	// that is in the past. NotAfter defaults to 90 days after NotBefore.
	NotBefore, NotAfter time.Time

	IsCA bool
	// ExtKeyUsage defaults to serverAuth; empty but not nil means none.
	ExtKeyUsage []x509.ExtKeyUsage
	// SigAlg must fit the issuer's key; the default does. Unlike in
	// crypto/x509, x509.MD5WithRSA works too.
	SigAlg x509.SignatureAlgorithm
	// Edit changes the template last, for everything without a field here.
	Edit func(*x509.Certificate)
}

// Pair is a certificate with its key and its chain, as they are kept in files.
// Chain is certbot's fullchain.pem, LeafPEM its cert.pem, IssuerPEM its chain.pem;
// KeyPEM is PKCS#8, as in current versions of its privkey.pem.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	Chain, LeafPEM, IssuerPEM, RootPEM []byte

	KeyPEM, KeySEC1PEM, KeyPKCS1PEM []byte // SEC1: EC only; PKCS#1: RSA only; else nil
}

// SHA256 returns the lower-case hex digest of the leaf, which identifies a
// certificate in the tests, the probe and mailu-hook's JSON.
func (p *Pair) SHA256() string {
	sum := sha256.Sum256(p.Cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Issue signs a leaf.
func (ca *CA) Issue(l Leaf) (*Pair, error) {
	return l.issue(func(template *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
		return certify(template, ca.Issuer, key, ca.key)
	}, ca.IssuerPEM, ca.RootPEM)
}

// SelfSigned makes a leaf that is its own issuer and its own root.
func SelfSigned(l Leaf) (*Pair, error) {
	return l.issue(func(template *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
		return certify(template, nil, key, key)
	}, nil, nil)
}

func (l Leaf) issue(sign func(*x509.Certificate, crypto.Signer) (*x509.Certificate, error), issuer, root []byte) (*Pair, error) {
	key := l.Signer
	if key == nil {
		var err error
		if key, err = l.Key.generate(); err != nil {
			return nil, err
		}
	}
	cert, err := sign(l.template(), key)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate: %w", err)
	}
	pair := &Pair{Cert: cert, Key: key, LeafPEM: certPEM(cert), IssuerPEM: issuer, RootPEM: root}
	pair.Chain = slices.Concat(pair.LeafPEM, issuer)
	if root == nil {
		pair.RootPEM = pair.LeafPEM
	}
	pair.KeyPEM, pair.KeySEC1PEM, pair.KeyPKCS1PEM, err = keyPEM(key)
	if err != nil {
		return nil, err
	}
	return pair, nil
}

func (l Leaf) template() *x509.Certificate {
	if l.Names == nil && l.IPs == nil {
		l.Names = []string{DefaultName}
	}
	if l.ExtKeyUsage == nil {
		l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	notBefore, notAfter := l.validity()
	t := &x509.Certificate{
		SerialNumber:          serial(),
		DNSNames:              l.Names,
		IPAddresses:           l.IPs,
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		IsCA:                  l.IsCA,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           l.ExtKeyUsage,
		SignatureAlgorithm:    l.SigAlg,
	}
	if len(l.Names) > 0 && len(l.Names[0]) <= 64 { // the limit of X.520 for a common name
		t.Subject = pkix.Name{CommonName: l.Names[0]}
	}
	if l.IsCA {
		t.KeyUsage |= x509.KeyUsageCertSign
	}
	if l.Edit != nil {
		l.Edit(t)
	}
	return t
}

func (l Leaf) validity() (notBefore, notAfter time.Time) {
	notBefore, notAfter = l.NotBefore, l.NotAfter
	if notBefore.IsZero() {
		notBefore = time.Now().Add(-time.Hour)
		if !notAfter.IsZero() && notAfter.Before(notBefore) {
			notBefore = notAfter.Add(-90 * day)
		}
	}
	if notAfter.IsZero() {
		notAfter = notBefore.Add(90 * day)
	}
	return notBefore, notAfter
}
