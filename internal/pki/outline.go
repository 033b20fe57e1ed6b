package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"time"
)

// Outline returns what can be told of the first certificate in data, PEM, even where
// crypto/x509 refuses its form and OpenSSL does not, such as an @ in a PrintableString:
// its bytes, its key and its time, and no names. It is for what a server was given
// before; nothing is judged by it. nil means that there is no certificate.
func Outline(data []byte) *x509.Certificate {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == Certificate {
			return OutlineDER(block.Bytes)
		}
	}
	return nil
}

// IsOutline reports whether c is an outline: crypto/x509 did not parse it.
func IsOutline(c *x509.Certificate) bool { return c.RawTBSCertificate == nil }

// OutlineDER is Outline of a certificate in DER.
func OutlineDER(der []byte) *x509.Certificate {
	if c, err := Parse(der); err == nil {
		return c
	}
	var c struct {
		TBS struct { // RFC 5280, section 4.1
			Version      int `asn1:"optional,explicit,default:0,tag:0"`
			Serial       *big.Int
			Algorithm    asn1.RawValue
			Issuer       asn1.RawValue
			Validity     struct{ NotBefore, NotAfter time.Time }
			Subject, Key asn1.RawValue
			Rest         []asn1.RawValue `asn1:"optional,omitempty"`
		}
		Algorithm, Signature asn1.RawValue
	}
	_, _ = asn1.Unmarshal(der, &c) // the extensions that follow the key need not be understood
	key, err := x509.ParsePKIXPublicKey(c.TBS.Key.FullBytes)
	if err != nil {
		return nil
	}
	return &x509.Certificate{
		Raw: der, PublicKey: key, RawSubjectPublicKeyInfo: c.TBS.Key.FullBytes,
		SerialNumber: c.TBS.Serial, NotBefore: c.TBS.Validity.NotBefore, NotAfter: c.TBS.Validity.NotAfter,
	}
}
