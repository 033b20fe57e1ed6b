package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parse is [x509.ParseCertificate], and what all mail clients can do and that
// cannot: critical name constraints on directory names. They are held by [Paths].
func Parse(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if _, _, err := directoryNames(c); err == nil {
		c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidNameConstraints.Equal)
	}
	return c, nil
}

// Pool is a pool of the certificates in data, PEM. It skips what it cannot parse,
// as [x509.CertPool.AppendCertsFromPEM] does; an empty pool is an error.
func Pool(data []byte) (*x509.CertPool, error) {
	pool, empty := x509.NewCertPool(), true
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != Certificate {
			continue
		}
		if c, err := Parse(block.Bytes); err == nil {
			pool.AddCert(c)
			empty = false
		}
	}
	if empty {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return pool, nil
}

// name is a distinguished name.
type name pkix.RDNSequence

func parseName(der []byte) (name, error) {
	var n pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) > 0 {
		return nil, errors.New("a distinguished name that cannot be parsed")
	}
	return name(n), nil
}

// within reports whether n is base or below it. Values are compared without
// regard to case, as X.520 has it for most of them.
func (n name) within(base name) bool {
	return len(n) >= len(base) && slices.EqualFunc(n[:len(base)], base, func(a, b pkix.RelativeDistinguishedNameSET) bool {
		return slices.EqualFunc(a, b, func(a, b pkix.AttributeTypeAndValue) bool {
			return a.Type.Equal(b.Type) && strings.EqualFold(fmt.Sprint(a.Value), fmt.Sprint(b.Value))
		})
	})
}

type subtree struct {
	Base asn1.RawValue
	Min  int `asn1:"optional,tag:0,default:0"`
	Max  int `asn1:"optional,tag:1"`
}

// Kinds of GeneralName (RFC 5280, section 4.2.1.6): those that crypto/x509
// handles in name constraints, and directoryName.
var handled = []int{1, 2, 6, 7}

const directoryName = 4

// directoryNames are the name constraints of c on directory names. The error is
// that there are constraints that neither crypto/x509 nor we handle.
func directoryNames(c *x509.Certificate) (permitted, excluded []name, err error) {
	value := extension(c, oidNameConstraints)
	if value == nil {
		return nil, nil, nil
	}
	var constraints struct {
		Permitted []subtree `asn1:"optional,tag:0"`
		Excluded  []subtree `asn1:"optional,tag:1"`
	}
	if _, err := asn1.Unmarshal(value, &constraints); err != nil {
		return nil, nil, err
	}
	for list, trees := range map[*[]name][]subtree{&permitted: constraints.Permitted, &excluded: constraints.Excluded} {
		for _, t := range trees {
			if t.Base.Tag != directoryName {
				if !slices.Contains(handled, t.Base.Tag) {
					err = errors.New("name constraints of an unknown kind")
				}
				continue
			}
			n, perr := parseName(bytes.Clone(t.Base.Bytes))
			if perr != nil {
				return nil, nil, perr
			}
			*list = append(*list, n)
		}
	}
	return permitted, excluded, err
}
