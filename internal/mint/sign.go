package mint

import (
	"bytes"
	"crypto"
	"crypto/md5"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// signCertificate is x509.CreateCertificate with MD5 added.
func signCertificate(template, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	if template.SignatureAlgorithm != x509.MD5WithRSA {
		return x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	}
	withSHA256 := *template
	withSHA256.SignatureAlgorithm = x509.SHA256WithRSA
	der, err := x509.CreateCertificate(rand.Reader, &withSHA256, parent, pub, signer)
	if err != nil {
		return nil, err
	}
	return resignMD5(der, signer)
}

// Encoded object identifiers of RFC 8017, appendix A.2.4. They differ in the last
// byte only, so one can replace the other in DER.
var (
	oidSHA256WithRSA = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}
	oidMD5WithRSA    = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04}
)

// resignMD5 replaces the SHA-256 signature of a certificate with an MD5 signature,
// which crypto/x509 refuses to make.
func resignMD5(der []byte, signer crypto.Signer) ([]byte, error) {
	var cert struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	der = bytes.ReplaceAll(der, oidSHA256WithRSA, oidMD5WithRSA)
	if rest, err := asn1.Unmarshal(der, &cert); err != nil {
		return nil, fmt.Errorf("reading a certificate back: %w", err)
	} else if len(rest) != 0 {
		return nil, errors.New("reading a certificate back: bytes left over")
	}
	sum := md5.Sum(cert.TBS.FullBytes)
	signature, err := signer.Sign(rand.Reader, sum[:], crypto.MD5)
	if err != nil {
		return nil, fmt.Errorf("signing with MD5: %w", err)
	}
	cert.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return asn1.Marshal(cert)
}
