package hook

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	"mailu-hook/internal/pki"
)

// Root is the trusted root that chain leads to. It is nil if the chain holds its
// root already, or leads to none.
func (r Rules) Root(chain []*x509.Certificate) *x509.Certificate {
	at := clamp(time.Now(), chain[0].NotBefore, chain[0].NotAfter)
	paths, _ := pki.RootedPaths(chain, r.Roots, at)
	var found *x509.Certificate
	for _, path := range paths {
		root := path[len(path)-1]
		if slices.ContainsFunc(chain, root.Equal) {
			return nil
		}
		if found == nil {
			found = root
		}
	}
	return found
}

// Append returns b with one more certificate at the end of its chain, which is
// then sent in every handshake. It returns b itself if the chain holds the root
// already, and a *Rejection if root issued none of its certificates.
func (b *Bundle) Append(root *x509.Certificate) (*Bundle, error) {
	if slices.ContainsFunc(b.Chain, root.Equal) {
		return b, nil
	}
	if !slices.ContainsFunc(b.Chain, func(c *x509.Certificate) bool { return c.CheckSignatureFrom(root) == nil }) {
		return nil, b.rejectCert("name the root that issued its last certificate, or let it be found: --append-root auto", "its chain does not lead to the root that is to be appended")
	}
	longer := *b
	longer.Chain = append(slices.Clone(b.Chain), root)
	longer.certPEM = pki.EncodeChain(longer.Chain...)
	return &longer, nil
}

// Prefer returns b without the certificates of a CA that lead nowhere if another
// one for the same key leads to a root: a root of its own beside the one that an
// older root signed, or the same with an intermediate. OpenSSL and GnuTLS take the
// first that they meet, and try no other. It returns b itself if there are none.
func (r Rules) Prefer(b *Bundle) *Bundle {
	twins := func(a, c *x509.Certificate) bool {
		return !a.Equal(c) && bytes.Equal(a.RawSubject, c.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo)
	}
	if !slices.ContainsFunc(b.Chain, func(a *x509.Certificate) bool {
		return slices.ContainsFunc(b.Chain, func(c *x509.Certificate) bool { return twins(a, c) })
	}) {
		return b
	}
	paths, _ := pki.RootedPaths(b.Chain, r.Roots, clamp(r.now(), b.Leaf().NotBefore, b.Leaf().NotAfter))
	leads := func(c *x509.Certificate) bool {
		return slices.ContainsFunc(paths, func(path []*x509.Certificate) bool { return slices.ContainsFunc(path, c.Equal) })
	}
	kept := slices.DeleteFunc(slices.Clone(b.Chain), func(c *x509.Certificate) bool {
		return !leads(c) && slices.ContainsFunc(b.Chain, func(a *x509.Certificate) bool { return twins(a, c) && leads(a) })
	})
	if len(kept) == len(b.Chain) {
		return b
	}
	shorter := *b
	shorter.Chain, _ = pki.Order(b.Leaf(), kept)
	shorter.certPEM = pki.EncodeChain(shorter.Chain...)
	shorter.Warnings = slices.Clone(b.Warnings)
	shorter.warn("%s holds two certificates of one CA; the one that leads to no trusted root was left out", b.CertFile)
	return &shorter
}
