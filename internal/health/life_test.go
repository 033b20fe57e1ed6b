package health

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// endingCA makes a CA that ends then the one of the scene.
func (s *scene) endingCA(then time.Time) {
	s.t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{Name: "Ending", NotBefore: s.now.Add(-400 * day24), NotAfter: then})
	require.NoError(s.t, err)
	s.ca = ca
	s.Roots.AddCert(ca.Root)
}

func TestAnIntermediateThatEndsFirstEndsThePair(t *testing.T) {
	s := newScene(t)
	s.endingCA(s.now.Add(5*day24 + time.Hour))
	s.everywhere(s.issue(mint.Leaf{}))
	findings := Judge(s.Look, thresholds)
	require.Len(t, findings, 1)
	assert.Equal(t, CertExpiring, findings[0].Code)
	assert.Equal(t, Critical, findings[0].Severity)
	assert.Contains(t, findings[0].Text, `"CN=Ending intermediate", an issuer of the installed certificate, which every port serves, expires in 5 days (5 % of its lifetime is left), on `)
	assert.Contains(t, findings[0].Remedy, "newer chain")

	s = newScene(t)
	s.endingCA(s.now.Add(-time.Hour))
	s.everywhere(s.issue(mint.Leaf{}))
	findings = Judge(s.Look, thresholds)
	assert.Equal(t, []Code{CertExpired}, codesOf(findings), "and that is not a missing root: %+v", findings)
}

func TestACertificateThatIsNotOnThePathDoesNotCount(t *testing.T) {
	s := newScene(t)
	pair, err := s.ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	chain := []*x509.Certificate{pair.Cert, s.ca.Issuer}
	assert.Equal(t, pair.Cert.NotAfter, s.LifeOf(chain).End())
	s.endingCA(s.now.Add(day24))
	assert.Equal(t, pair.Cert.NotAfter, s.LifeOf(append(chain, s.ca.Issuer)).End())
	s.Roots = nil
	assert.Equal(t, pair.Cert.NotAfter, s.LifeOf(append(chain, s.ca.Issuer)).End())
}

func TestACertificateWithoutAnEndHasAShortText(t *testing.T) {
	s := newScene(t)
	s.everywhere(s.issue(mint.Leaf{NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}))
	life := s.LifeOf(s.f.Directory.Chain)
	assert.Less(t, life.Left(s.now), 11*365*day24, "its CA ends first")
	s.Roots = x509.NewCertPool()
	life = s.LifeOf(s.f.Directory.Chain[:1])
	assert.Equal(t, "292 years", Left(life.Left(s.now)))
	assert.InDelta(t, 1, life.Fraction(s.now), 0.01)
}
