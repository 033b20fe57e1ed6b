// Package acme obtains and renews certificates by ACME (RFC 8555), on hosts
// without certbot, and keeps them in a directory of its own. It is the only
// importer of lego, which signs requests, keeps nonces and knows the DNS
// providers. This package decides what to order and when, and what survives a
// crash.
//
// The promise: the account key, the key of a certificate and the certificate are
// on disk before the CA relies on them, and each changes by one rename(2). If a
// run is killed at any instruction, the next one resumes its order as long as the
// CA knows it, and no second certificate is issued. A run that ends, however it
// ends, has removed its challenge responses.
//
// The limit: the challenge response of a killed run (a file, a DNS record) stays
// until the next run; outside the front it may stay until someone removes it.
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

// ErrFailed means that no certificate was obtained. Whatever was installed is
// unchanged.
var ErrFailed = errors.New("no certificate was obtained")

// local is an error that was found before the CA was asked. It counts against no
// rate limit and causes no back-off.
type local struct{ error }

func (l local) Unwrap() error { return l.error }

// Request describes the certificate that is wanted.
type Request struct {
	Directory string   // URL of the CA's directory
	Names     []string // the main one first; canonical, see CheckNames
	Key       KeyType
	Profile   string // "" leaves the choice to the CA

	PreferredChain string // common name of the topmost issuer; "" takes the CA's default chain
	ReuseKey       bool   // keep the key of the lineage if it has the right type
	PreparedKey    bool   // use the key that PrepareKey made
	Subset         bool   // drop names that fail validation, but never the main one

	// Lacks are names that the live certificate lacks, if they are the only reason for
	// the request: it is not replaced by one that lacks the same.
	Lacks []string
}

// LineageName is the name of the lineage for this request, chosen as certbot
// would.
func (r Request) LineageName() string { return strings.TrimPrefix(r.Names[0], "*.") }

func (r Request) sameNames(names []string) bool {
	a, b := slices.Sorted(slices.Values(r.Names)), slices.Sorted(slices.Values(names))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// Options of a Client.
type Options struct {
	Directory string
	Roots     *x509.CertPool // to verify the ACME server's TLS; nil: the system's
	UserAgent string

	Email    string // contact of the account; may be ""
	AgreeTOS bool   // agree to the terms of service; needed once, for a new account
	EAB      *ExternalAccount

	DryRun bool         // order, validate and finalize, but keep nothing
	Log    *slog.Logger // nil: no log
}

// ExternalAccount binds a new account to an existing customer account at the CA
// (RFC 8555, section 7.3.4).
type ExternalAccount struct {
	KeyID string
	HMAC  string // base64url, as the CA issues it
}

// CanonicalNames returns names in the form in which they are ordered and compared:
// lower case, A-labels, addresses as in RFC 5952, no duplicates, order kept.
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

// day ignores leap seconds, like everything here.
const day = 24 * time.Hour
