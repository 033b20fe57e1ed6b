package hook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
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
	AllowExpired   bool           // accept a leaf that has expired: a rollback that somebody insists on
	NoTest         bool           // no running front will test the bundle, so refuse what only its test could admit
	Now            time.Time      // zero: the time of the call
}

const (
	skew     = time.Hour // by which clocks may differ before a certificate begins; CAs backdate them by as much
	maxChain = 100 << 10 // bytes of certificates; OpenSSL's limit for a peer's (SSL_CTX_set_max_cert_list)
)

// Check holds b to the rules; the contract's table is its body. It returns nil
// or a *Rejection, and touches nothing. What Check accepts, nginx and dovecot
// load and mail clients trust; where some of them do not, Caveats says so.
func (r Rules) Check(b *Bundle) error {
	now := r.now()
	if err := r.checkLeaf(b, now); err != nil {
		return err
	}
	if err := checkLoads(b); err != nil {
		return err
	}
	if r.AllowUntrusted {
		return nil
	}
	return r.checkTrust(b, clamp(now, b.Leaf().NotBefore, b.Leaf().NotAfter))
}

func (r Rules) now() time.Time {
	if r.Now.IsZero() {
		return time.Now()
	}
	return r.Now
}

// Caveats are what somebody should know of a bundle that Check accepts.
func (r Rules) Caveats(b *Bundle) []string {
	var all []string
	if slices.ContainsFunc(b.Chain, isEd25519) {
		all = append(all, "the chain has Ed25519 keys, which Thunderbird and other clients with NSS refuse; ECDSA P-256 works everywhere")
	}
	if first := pki.FirstToExpire(b.Chain, r.Roots, clamp(r.now(), b.Leaf().NotBefore, b.Leaf().NotAfter)); !first.Equal(b.Leaf()) {
		all = append(all, fmt.Sprintf("%s in its chain expires first, at %s; clients refuse the certificate from then on", subject(first), say.Time(first.NotAfter)))
	}
	return all
}

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTLSFeature       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24} // RFC 7633
)

func extension(c *x509.Certificate, id asn1.ObjectIdentifier) (value []byte, critical, found bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Value, e.Critical, true
		}
	}
	return nil, false, false
}

func (r Rules) checkLeaf(b *Bundle, now time.Time) error {
	leaf := b.Leaf()
	switch {
	case leaf.IsCA && !(r.AllowUntrusted && pki.SelfIssued(leaf)): // openssl req -x509 makes those
		remedy := useFullchain
		if pki.SelfIssued(leaf) {
			remedy = "issue one from a CA, or make a self-signed one with basicConstraints=CA:FALSE; to install it anyway: --allow-untrusted"
		}
		return b.rejectCert(remedy, "the certificate of the key is a CA, not a server")
	case now.Add(skew).Before(leaf.NotBefore):
		return b.rejectCert("check the clock of this host (date -u)", "valid only from %s", say.Time(leaf.NotBefore))
	case !r.AllowExpired && now.After(leaf.NotAfter):
		return b.rejectCert("renew it first: certbot renew", "expired at %s", say.Time(leaf.NotAfter))
	case !servesTLS(leaf):
		return b.rejectCert("issue a certificate for TLS servers", "the leaf is not meant for servers: its extended key usage lacks serverAuth")
	case !signs(leaf):
		return b.rejectCert("issue a certificate for TLS servers", "the leaf is not meant for servers: its key usage lacks digitalSignature")
	case mustStaple(leaf):
		return b.rejectCert("issue it again without must-staple (certbot: without --must-staple)", "the certificate demands a stapled OCSP response (must-staple), which Mailu's front never sends")
	case nameless(leaf):
		return b.rejectCert("have the CA issue it again", "the subject is empty, and the subject alternative name is not critical (RFC 5280, section 4.2.1.6)")
	case r.NoTest && isEd25519(leaf):
		return b.rejectCert("start the front first, or issue an ECDSA P-256 key", "Ed25519 needs the test of a running front, and none is running")
	}
	return nil
}

// checkLoads holds the chain to what OpenSSL loads at security level 2, the
// default of Debian and of OpenSSL since 3.2, and accepts from a server.
func checkLoads(b *Bundle) error {
	size := 0
	for i, c := range b.Chain {
		size += 3 + len(c.Raw)                                             // RFC 8446, section 4.4.2
		if name, ok := KeyType(c.PublicKey); i > 0 && !ok && !isLarge(c) { // "ca key too small"
			return b.rejectCert("issue it again from a CA with other keys", "the key of the CA %s (%s) is not accepted: too small, or not known to clients", subject(c), name)
		}
		if weak(c.SignatureAlgorithm) && !pki.SelfSigned(c) {
			return b.rejectCert("issue it again from a CA that signs with SHA-256", "%s is signed with %s, which clients refuse", subject(c), c.SignatureAlgorithm)
		}
	}
	if size > maxChain {
		return b.rejectCert("issue a certificate with fewer names", "%d KiB of certificates: OpenSSL takes no more than %d from a server", size>>10, maxChain>>10)
	}
	return nil
}

// checkTrust wants a path from the leaf through the chain to a self-issued
// certificate among the roots, and on it nothing that a client minds.
func (r Rules) checkTrust(b *Bundle, at time.Time) error {
	roots := r.Roots
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return b.rejectCert("install the package ca-certificates, or name the roots with --roots FILE", "the system's roots cannot be loaded: %v", err)
		}
		if roots.Equal(x509.NewCertPool()) {
			return b.rejectCert("install the package ca-certificates, or name the roots with --roots FILE", "this host trusts no CA at all: its trust store is empty")
		}
	}
	paths, err := pki.RootedPaths(b.Chain, roots, at)
	if err != nil {
		return r.untrusted(b, err)
	}
	var objection error
	for _, path := range paths {
		if objection = b.objection(path); objection == nil {
			return nil
		}
	}
	return objection
}

// objection is what clients mind about a path that crypto/x509 accepts.
func (b *Bundle) objection(path []*x509.Certificate) error {
	const remedy = "have the CA issue it again"
	for i, issuer := range path[1:] {
		if c := path[i]; pki.Contradicts(issuer, c) {
			return b.rejectCert(remedy, "the authority key identifier of %s contradicts its issuer %s: OpenSSL does not accept that", subject(c), subject(issuer))
		}
		if name, ok := KeyType(issuer.PublicKey); !ok && !isLarge(issuer) {
			return b.rejectCert("issue it again from a CA with other keys", "the key of the CA %s (%s) is not accepted: too small, or not known to clients", subject(issuer), name)
		}
		if i < len(path)-2 && !servesTLS(issuer) {
			return b.rejectCert(remedy, "the extended key usage of the CA %s lacks serverAuth: OpenSSL does not accept that", subject(issuer))
		}
	}
	return nil
}

// untrusted turns crypto/x509's verdict into the most common reason for it.
func (r Rules) untrusted(b *Bundle, err error) error {
	const insist = "; to install it anyway: --allow-untrusted"
	end := b.end()
	issuer := say.Foreign(end.Issuer.String())
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	lay := slices.IndexFunc(b.Chain[1:], func(c *x509.Certificate) bool { return !certifies(c) })
	impostor := slices.IndexFunc(b.foreign, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, end.RawIssuer) })
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && !invalid.Cert.Equal(b.Leaf()):
		return b.rejectCert("issue it again"+insist, "%s in its chain is valid only from %s to %s", subject(invalid.Cert), say.Time(invalid.Cert.NotBefore), say.Time(invalid.Cert.NotAfter))
	case lay >= 0:
		return b.rejectCert("have the CA issue it again"+insist, "%s issued a certificate in the chain, but is not allowed to: its basic constraints or its key usage are not those of a CA", subject(b.Chain[1+lay]))
	case !errors.As(err, &unknown):
		return b.rejectCert("clients would refuse it as well; issue it again"+insist, "the chain is not valid: %s", say.Plain(err.Error()))
	case len(b.Chain) == 1 && pki.SelfIssued(b.Leaf()):
		return b.rejectCert("issue one from a CA, or name it with --roots FILE"+insist, "the certificate is self-signed")
	case strings.Contains(issuer, "(STAGING)"):
		return b.rejectCert("issue it from the CA's production server (certbot without --staging or --test-cert)"+insist, "issued by a staging CA (%s)", issuer)
	case strings.Contains(strings.ToLower(issuer), "cloudflare") && strings.Contains(issuer, "Origin"):
		return b.rejectCert("issue one from a public CA, such as Let's Encrypt (certbot, or mailu-hook renew)", "issued by Cloudflare's Origin CA (%s), which only Cloudflare itself trusts: no mail client ever will", issuer)
	case impostor >= 0:
		return b.rejectCert(useFullchain, "%s was not signed with the key of %s, the certificate of its issuer in the file", subject(end), subject(b.foreign[impostor]))
	case len(b.Chain) == 1:
		return b.rejectCert(useFullchain, "the leaf stands alone: the certificate of its issuer %s is not in the file, and clients need it", issuer)
	case pki.SelfIssued(end):
		return b.rejectCert("install the root of the CA"+insist, "the chain ends at %s, which is not among the %s", issuer, r.rootsName())
	}
	return b.rejectCert("if a certificate is missing, "+useFullchain+"; if the CA is your own, name its root with --roots FILE"+insist,
		"the chain ends at %s, whose issuer %s is neither in the file nor among the %s", subject(end), issuer, r.rootsName())
}

func (r Rules) rootsName() string {
	if r.Roots == nil {
		return "trusted roots of this system"
	}
	return "roots in the file of --roots"
}

// end is the last certificate of the chain that nothing in it issued, or that is
// a root.
func (b *Bundle) end() *x509.Certificate {
	for _, c := range slices.Backward(b.Chain) {
		if !slices.ContainsFunc(b.Chain, func(parent *x509.Certificate) bool { return !parent.Equal(c) && pki.Issued(parent, c) }) {
			return c
		}
	}
	return b.Chain[len(b.Chain)-1]
}

// certifies reports whether c may issue certificates (RFC 5280, sections 4.2.1.3
// and 4.2.1.9). Roots older than version 3 say nothing.
func certifies(c *x509.Certificate) bool {
	return c.Version < 3 || c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}

// servesTLS: an absent extended key usage does not restrict (RFC 5280, section
// 4.2.1.12). OpenSSL does not take anyExtendedKeyUsage for serverAuth.
func servesTLS(c *x509.Certificate) bool {
	_, _, restricted := extension(c, oidExtendedKeyUsage)
	return !restricted || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
}

// signs: TLS 1.3 needs a key that signs, and so do the ECDHE suites of 1.2;
// GnuTLS, Java and Chromium insist (RFC 5280, section 4.2.1.3).
func signs(c *x509.Certificate) bool {
	_, _, restricted := extension(c, oidKeyUsage)
	return !restricted || c.KeyUsage&x509.KeyUsageDigitalSignature != 0
}

// mustStaple reports whether c demands status_request or status_request_v2 (RFC
// 7633, section 4.2.3).
func mustStaple(c *x509.Certificate) bool {
	value, _, found := extension(c, oidTLSFeature)
	var features []int
	if _, err := asn1.Unmarshal(value, &features); !found || err != nil {
		return found
	}
	return slices.Contains(features, 5) || slices.Contains(features, 17)
}

func nameless(c *x509.Certificate) bool {
	_, critical, _ := extension(c, oidSubjectAltName)
	return len(c.Subject.Names) == 0 && !critical
}

// isLarge: P-521 is good enough for a CA, and not what servers use.
func isLarge(c *x509.Certificate) bool {
	key, is := c.PublicKey.(*ecdsa.PublicKey)
	return is && key.Curve == elliptic.P521()
}

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
