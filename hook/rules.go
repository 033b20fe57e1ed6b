package hook

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Rules are what a bundle must satisfy beyond being a matching pair. The zero
// value is strict: the system's roots, now, no exception.
type Rules struct {
	Roots          *x509.CertPool // nil: the roots of this system
	AllowUntrusted bool           // accept a chain that leads to none of the roots
	AllowExpired   bool           // accept a leaf that is past its time: a rollback that a person insists on
	NoTest         bool           // no running front will test the bundle, so refuse what only its test could admit
	Now            time.Time      // zero: the time of the call
}

const skew = time.Hour // by which clocks may differ, as CAs themselves assume when they backdate

// Check holds b to the rules; the contract's table is its body. It returns nil
// or a *Rejection, and touches nothing. What Check accepts, nginx and dovecot
// load.
func (r Rules) Check(b *Bundle) error {
	now := r.Now
	if now.IsZero() {
		now = time.Now()
	}
	leaf := b.Leaf()
	switch {
	case leaf.IsCA:
		return b.rejectCert(useFullchain+" (a self-made certificate needs basicConstraints=CA:FALSE)", "the first certificate is a CA, not a leaf")
	case now.Add(skew).Before(leaf.NotBefore):
		return b.rejectCert("check the clock of this host (date -u)", "valid only from %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case !r.AllowExpired && now.Add(-skew).After(leaf.NotAfter):
		return b.rejectCert("renew it first: certbot renew", "expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case !servesTLS(leaf):
		return b.rejectCert("issue a certificate for TLS servers", "the leaf is not meant for servers: its extended key usage lacks serverAuth")
	case r.NoTest && isEd25519(leaf):
		return b.rejectCert("start the front first, or issue an ECDSA P-256 key", "Ed25519 needs the test of a running front, and none is running")
	}
	for i, c := range b.Chain {
		if _, ok := KeyType(c.PublicKey); i > 0 && !ok && isRSA(c) { // OpenSSL's security level 2: "ca key too small"
			return b.rejectCert("issue it again from a CA with larger keys", "the key of the CA in certificate %d is too small, or larger than clients accept", i+1)
		}
		if weak(c.SignatureAlgorithm) {
			return b.rejectCert("issue it again from a CA that signs with SHA-256; if it is the root, leave it out of the file", "certificate %d is signed with %s, which clients refuse", i+1, c.SignatureAlgorithm)
		}
	}
	if r.AllowUntrusted {
		return nil
	}
	return r.checkChain(b, clamp(now, leaf.NotBefore, leaf.NotAfter))
}

// checkChain wants every certificate signed by the next one, and the last one
// by a root, because nginx and dovecot send the file as it stands.
func (r Rules) checkChain(b *Bundle, at time.Time) error {
	for i, c := range b.Chain[:len(b.Chain)-1] {
		if err := c.CheckSignatureFrom(b.Chain[i+1]); err != nil {
			return b.rejectCert(useFullchain, "certificate %d is not signed by certificate %d: wrong order, or one that does not belong", i+1, i+2)
		}
	}
	roots := r.Roots
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return b.rejectCert("install the package ca-certificates, or name the roots with --roots FILE", "the system's roots cannot be loaded: %v", err)
		}
	}
	_, err := pki.Paths(b.Chain, roots, at)
	if err == nil {
		return nil
	}
	return b.untrusted(err)
}

// untrusted turns x509's verdict into the commonest reason that explains it.
func (b *Bundle) untrusted(err error) error {
	const insist = "; to install it all the same: --allow-untrusted"
	last := b.Chain[len(b.Chain)-1]
	issuer := say.Foreign(last.Issuer.String())
	var unknown x509.UnknownAuthorityError
	switch {
	case !errors.As(err, &unknown):
		return b.rejectCert("clients would refuse it as well; issue it again"+insist, "the chain does not hold: %s", say.Plain(err.Error()))
	case len(b.Chain) == 1 && pki.SelfIssued(b.Leaf()):
		return b.rejectCert("issue one from a CA, or name it with --roots FILE"+insist, "the certificate is self-signed")
	case strings.Contains(issuer, "(STAGING)"):
		return b.rejectCert("issue it from the CA's production server (certbot without --staging or --test-cert)"+insist, "issued by a staging CA (%s)", issuer)
	case len(b.Chain) == 1:
		return b.rejectCert(useFullchain+", or name the CA with --roots FILE"+insist, "the leaf stands alone: its issuer %s is neither in the file nor a root of this system", issuer)
	}
	return b.rejectCert("install the CA's root or name it with --roots FILE"+insist, "the chain ends at %s, which is no root of this system", issuer)
}

// servesTLS: an absent extended key usage does not restrict (RFC 5280, 4.2.1.12).
func servesTLS(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func isRSA(c *x509.Certificate) bool { return c.PublicKeyAlgorithm == x509.RSA }

func isEd25519(c *x509.Certificate) bool {
	_, is := c.PublicKey.(ed25519.PublicKey)
	return is
}

func weak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

func clamp(t, low, high time.Time) time.Time {
	if t.Before(low) {
		return low
	}
	if t.After(high) {
		return high
	}
	return t
}
