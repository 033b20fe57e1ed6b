// Package acme obtains and renews certificates by ACME (RFC 8555), on hosts
// without certbot, and keeps them in a directory of its own. It is the only
// importer of lego, which signs the requests, keeps the nonces, and knows the
// DNS providers. What is ordered and when, and what survives a crash, is decided
// here.
//
// The promise: an account key, the key of a certificate and a certificate are on
// disk before the CA could count on them, and each changes by one rename(2). A
// run that is killed at any instruction is taken up by the next one where the CA
// still knows its order, so that it costs no second certificate. A run that ends,
// however it ends, has removed what it showed to answer challenges.
//
// Its limit: what a killed run showed (a file, a DNS record) stays until the next
// run, or where the front does not show it, perhaps until somebody removes it.
package acme

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/mailu"
)

// Directories of Let's Encrypt.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// ErrFailed means that no certificate was obtained. What was installed before
// is as it was.
var ErrFailed = errors.New("no certificate was obtained")

// local is an error that cost nothing at the CA: it was found before the CA was
// asked, and need not make the next try wait.
type local struct{ error }

func (l local) Unwrap() error { return l.error }

// Request is what a certificate is wanted for.
type Request struct {
	Directory string   // URL of the CA's directory
	Names     []string // the main one first; canonical, see CheckNames
	Key       KeyType
	Profile   string // "" leaves the choice to the CA

	PreferredChain string // common name of the issuer at its top; "" takes the CA's first
	ReuseKey       bool   // certify the key of the lineage once more, if it is of that type
	PreparedKey    bool   // certify the key that PrepareKey made
	Subset         bool   // go on without names that cannot be proved, but never without the main one
}

// LineageName is the name of the lineage that answers the request, as certbot
// would choose it.
func (r Request) LineageName() string { return strings.TrimPrefix(r.Names[0], "*.") }

func (r Request) sameNames(names []string) bool {
	a, b := slices.Sorted(slices.Values(r.Names)), slices.Sorted(slices.Values(names))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// Options of a Client.
type Options struct {
	Directory string
	Roots     *x509.CertPool // that the directory's own TLS is held to; nil: the system's
	UserAgent string

	Email    string // contact of a new account; may be ""
	AgreeTOS bool   // consent to the terms of service, once, for a new account
	EAB      *ExternalAccount

	DryRun bool         // order, prove and finalize, but keep nothing
	Log    *slog.Logger // nil: no log
}

// ExternalAccount binds a new account to one that the CA knows by other means
// (RFC 8555, section 7.3.4).
type ExternalAccount struct {
	KeyID string
	HMAC  string // base64url, as CAs hand it out
}

// CanonicalNames are names as they are ordered and compared: in lower case, in
// their A-label form, addresses in their shortest form (RFC 5952), each once, the
// first one first.
func CanonicalNames(names []string) []string {
	var canonical []string
	for _, name := range names {
		bare, wild := strings.CutPrefix(strings.TrimSpace(name), "*.")
		ip, err := netip.ParseAddr(bare)
		switch bare = mailu.CanonicalName(bare); {
		case wild:
			bare = "*." + bare
		case err == nil:
			bare = ip.Unmap().String()
		}
		if !slices.Contains(canonical, bare) {
			canonical = append(canonical, bare)
		}
	}
	return canonical
}

// day is a unit of lifetimes; nothing here cares about leap seconds.
const day = 24 * time.Hour
