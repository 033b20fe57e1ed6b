// Package mint makes certificates for tests: a throw-away CA, and leaves that are
// valid by default and wrong in exactly the way a test asks for.
//
// Everything is made at run time, so nothing that is checked in can expire. RSA keys
// are slow to generate: each size is generated once per process and shared. None of
// this is fit for use outside tests.
package mint

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// day is a unit of validity; leap seconds do not matter here.
const day = 24 * time.Hour

// CAOptions describe a CA. The zero value is a P-256 root with one P-256
// intermediate that signs the leaves, as with public CAs.
type CAOptions struct {
	Name string // in the subjects; default "mint"
	Key  Key    // of root and intermediate; default P256

	// NoIntermediate makes the root sign the leaves itself.
	NoIntermediate bool
	// NotBefore and NotAfter are the validity of root and intermediate; by
	// default from a day ago to ten years from now.
	NotBefore, NotAfter time.Time
}

// CA is a root, an intermediate unless there is none, and the key that signs leaves.
// Its methods may be called from several goroutines.
type CA struct {
	Root    *x509.Certificate
	RootPEM []byte
	// Issuer signs the leaves: the intermediate, or the root without one.
	Issuer *x509.Certificate
	// IssuerPEM is what certbot calls chain.pem: the intermediate, empty
	// without one.
	IssuerPEM []byte

	key crypto.Signer
}

// NewCA makes a CA with new keys (see the package comment on RSA).
func NewCA(o CAOptions) (*CA, error) {
	if o.Name == "" {
		o.Name = "mint"
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-day)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = time.Now().Add(3650 * day)
	}
	rootKey, err := o.Key.generate()
	if err != nil {
		return nil, err
	}
	root, err := certify(o.template("root"), nil, rootKey, rootKey)
	if err != nil {
		return nil, fmt.Errorf("making the root: %w", err)
	}
	ca := &CA{Root: root, RootPEM: certPEM(root), Issuer: root, key: rootKey}
	if o.NoIntermediate {
		return ca, nil
	}
	ca.key, err = o.Key.generate()
	if err != nil {
		return nil, err
	}
	ca.Issuer, err = certify(o.template("intermediate"), root, ca.key, rootKey)
	if err != nil {
		return nil, fmt.Errorf("making the intermediate: %w", err)
	}
	ca.IssuerPEM = certPEM(ca.Issuer)
	return ca, nil
}

func (o CAOptions) template(role string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: o.Name + " " + role},
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// certify signs template; a nil parent makes it self-signed.
func certify(template, parent *x509.Certificate, key, signer crypto.Signer) (*x509.Certificate, error) {
	if parent == nil {
		parent = template
	}
	der, err := signCertificate(template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// serial returns 64 random bits with the top bit clear and the next one set:
// positive, never zero, always eight bytes.
func serial() *big.Int {
	var b [8]byte
	rand.Read(b[:]) // never fails; see its documentation
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b[:])
}
