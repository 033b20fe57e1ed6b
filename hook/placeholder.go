package hook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/source"
	"math/big"
	"time"
)

const (
	placeholderName = "mailu-hook placeholder" // the common name that marks one
	placeholderLife = 7 * 24 * time.Hour
)

// Placeholder makes a self-signed bundle for names with which a front that has no
// certificate can start TLS, and so answer the challenge for a real one. No client
// trusts it. It counts as older than every real certificate.
func Placeholder(names []string) (*Bundle, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a placeholder: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: placeholderName},
		DNSNames:              names,
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(placeholderLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a placeholder: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making a placeholder: %w", err)
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("making a placeholder: %w", err)
	}
	return Parse(source.Files(placeholderName, placeholderName), pki.EncodeChain(leaf), keyPEM)
}

// IsPlaceholder reports whether Placeholder made a leaf.
func IsPlaceholder(leaf *x509.Certificate) bool {
	return leaf.Subject.CommonName == placeholderName && pki.SelfIssued(leaf)
}
