package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Issued reports whether parent issued c: its name is the issuer of c, and its
// key verifies the signature. A signature that crypto/x509 refuses to verify
// (SHA-1, MD5, an unknown algorithm) is taken as good here: whether it is good
// enough is another question.
func Issued(parent, c *x509.Certificate) bool {
	if !bytes.Equal(parent.RawSubject, c.RawIssuer) {
		return false
	}
	err := parent.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &insecure) || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}

// SelfSigned reports whether c is signed with its own key. Unlike crypto/x509 it
// can tell for SHA-1, too, because nothing depends on that signature: anyone who
// trusts a root trusts its key.
func SelfSigned(c *x509.Certificate) bool {
	if !SelfIssued(c) {
		return false
	}
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if c.SignatureAlgorithm == x509.SHA1WithRSA {
			sum := sha1.Sum(c.RawTBSCertificate)
			return rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], c.Signature) == nil
		}
	case *ecdsa.PublicKey:
		if c.SignatureAlgorithm == x509.ECDSAWithSHA1 {
			sum := sha1.Sum(c.RawTBSCertificate)
			return ecdsa.VerifyASN1(key, sum[:], c.Signature)
		}
	}
	return c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Order puts the issuers of leaf that are among certs behind it: those that
// issued it, then those that issued these, and so on, each once and otherwise in
// the order of certs. foreign are the certificates that are not above leaf.
func Order(leaf *x509.Certificate, certs []*x509.Certificate) (chain, foreign []*x509.Certificate) {
	chain = []*x509.Certificate{leaf}
	for at := 0; at < len(chain); at++ {
		for _, c := range certs {
			if !slices.ContainsFunc(chain, c.Equal) && Issued(c, chain[at]) {
				chain = append(chain, c)
			}
		}
	}
	for _, c := range certs {
		if !slices.ContainsFunc(chain, c.Equal) && !slices.ContainsFunc(foreign, c.Equal) {
			foreign = append(foreign, c)
		}
	}
	return chain, foreign
}

// RootedPaths are those of [Paths] that end in a self-issued certificate, as
// clients want it: most of them do not trust an intermediate for its own sake,
// even where it is in the trust store.
func RootedPaths(chain []*x509.Certificate, roots *x509.CertPool, at time.Time) ([][]*x509.Certificate, error) {
	paths, err := Paths(chain, roots, at)
	if err != nil {
		return nil, err
	}
	paths = slices.DeleteFunc(paths, func(path []*x509.Certificate) bool { return !SelfIssued(path[len(path)-1]) })
	if len(paths) == 0 {
		return nil, x509.UnknownAuthorityError{Cert: chain[0]}
	}
	return paths, nil
}

// Contradicts reports whether the authority key identifier of c (RFC 5280,
// section 4.2.1.1) names another certificate than parent: OpenSSL then does not
// take parent for its issuer, whatever the signature says.
func Contradicts(parent, c *x509.Certificate) bool {
	if len(c.AuthorityKeyId) > 0 && len(parent.SubjectKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, parent.SubjectKeyId) {
		return true
	}
	var id struct {
		Key    []byte        `asn1:"optional,tag:0"`
		Issuer asn1.RawValue `asn1:"optional,tag:1"`
		Serial *big.Int      `asn1:"optional,tag:2"`
	}
	value := extension(c, oidAuthorityKeyID)
	if _, err := asn1.Unmarshal(value, &id); err != nil {
		return false
	}
	if id.Serial != nil && id.Serial.Cmp(parent.SerialNumber) != 0 {
		return true
	}
	var name asn1.RawValue // [4], a directoryName (RFC 5280, section 4.2.1.6)
	if _, err := asn1.Unmarshal(id.Issuer.Bytes, &name); err != nil || name.Tag != 4 {
		return false
	}
	return !bytes.Equal(name.Bytes, parent.RawIssuer)
}

// Consistent reports whether no certificate on path contradicts the next one.
func Consistent(path []*x509.Certificate) bool {
	for i, issuer := range path[1:] {
		if Contradicts(issuer, path[i]) {
			return false
		}
	}
	return true
}

var (
	oidAuthorityKeyID  = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// extension is the value of an extension of c, nil if it has none of the kind.
func extension(c *x509.Certificate, id asn1.ObjectIdentifier) []byte {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Value
		}
	}
	return nil
}

// withinNames holds the subjects on path to the name constraints on directory
// names above them, which crypto/x509 does not (RFC 5280, section 4.2.1.10).
func withinNames(path []*x509.Certificate) error {
	for i := len(path) - 1; i > 0; i-- {
		permitted, excluded, _ := directoryNames(path[i])
		for j, c := range path[:i] {
			if j > 0 && SelfIssued(c) || len(c.Subject.Names) == 0 {
				continue
			}
			subject, err := parseName(c.RawSubject)
			if err != nil {
				return err
			}
			within := func(base name) bool { return subject.within(base) }
			if len(permitted) > 0 && !slices.ContainsFunc(permitted, within) || slices.ContainsFunc(excluded, within) {
				return fmt.Errorf("the subject %q is outside the name constraints of %q", c.Subject, path[i].Subject)
			}
		}
	}
	return nil
}
