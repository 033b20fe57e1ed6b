package hook

import (
	"crypto/x509"
	"mailu-hook/internal/pki"
	"slices"
	"time"
)

// Root is the trusted root that chain leads to, directly after its last
// certificate. It is nil if the chain holds its root already, or leads to none.
func (r Rules) Root(chain []*x509.Certificate) *x509.Certificate {
	at := clamp(time.Now(), chain[0].NotBefore, chain[0].NotAfter)
	paths, _ := pki.Paths(chain, r.Roots, at)
	for _, path := range paths {
		if len(path) == len(chain)+1 && slices.EqualFunc(path[:len(chain)], chain, (*x509.Certificate).Equal) {
			return path[len(chain)]
		}
	}
	return nil
}

// Append returns b with one more certificate at the end of its chain, which is
// then sent in every handshake. It returns b itself if the chain ends in a root
// already, and a *Rejection if root has not signed the last certificate.
func (b *Bundle) Append(root *x509.Certificate) (*Bundle, error) {
	last := b.Chain[len(b.Chain)-1]
	if pki.SelfIssued(last) {
		return b, nil
	}
	if err := last.CheckSignatureFrom(root); err != nil {
		return nil, b.rejectCert("name the root that has issued its last certificate, or let it be found: --append-root auto", "its chain does not lead to the root that is to be appended")
	}
	longer := *b
	longer.Chain = append(slices.Clone(b.Chain), root)
	longer.certPEM = append(slices.Clone(b.certPEM), pki.EncodeChain(root)...)
	return &longer, nil
}
