package hook

import (
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
