package health

import (
	"crypto/x509"
	"time"

	"mailu-hook/internal/pki"
)

// Life is how long clients accept a chain.
type Life struct {
	Leaf *x509.Certificate
	// First is the first certificate on the path to expire: Leaf, or an issuer that
	// ends before it.
	First *x509.Certificate
}

// LifeOf finds out how long a chain is accepted, according to the roots of the
// look.
func (l *Look) LifeOf(chain []*x509.Certificate) Life {
	roots := l.Roots
	if roots == nil {
		roots = x509.NewCertPool()
	}
	return Life{Leaf: chain[0], First: pki.FirstToExpire(chain, roots, l.At)}
}

// End is when clients stop accepting the chain.
func (l Life) End() time.Time { return l.First.NotAfter }

// Left is the time until then, negative afterwards.
func (l Life) Left(now time.Time) time.Duration { return l.End().Sub(now) }

// Fraction is what is left of the leaf's lifetime until then: 1 before it begins,
// negative afterwards.
func (l Life) Fraction(now time.Time) float64 {
	life := pki.Lifetime(l.Leaf)
	if life <= 0 {
		return 0
	}
	return min(1, float64(l.Left(now))/float64(life))
}
