package acme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/challenge/dns01"
	legolog "github.com/go-acme/lego/v4/log"
	"github.com/go-acme/lego/v4/providers/dns/acmedns"
	"github.com/go-acme/lego/v4/providers/dns/cloudflare"
	"github.com/go-acme/lego/v4/providers/dns/desec"
	"github.com/go-acme/lego/v4/providers/dns/digitalocean"
	"github.com/go-acme/lego/v4/providers/dns/gandiv5"
	"github.com/go-acme/lego/v4/providers/dns/hetzner"
	"github.com/go-acme/lego/v4/providers/dns/httpreq"
	"github.com/go-acme/lego/v4/providers/dns/ionos"
	"github.com/go-acme/lego/v4/providers/dns/netcup"
	"github.com/go-acme/lego/v4/providers/dns/ovh"

	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

// provider is one way to change DNS records.
type provider struct {
	open     func(lookup) (challenge.Provider, error)
	prefixes []string // of its variables
}

// providers are the ones linked in. lego's 200 or so together would add 54 MB to
// the program, these add less than one.
var providers = map[string]provider{
	"acme-dns":     legos(acmedns.NewDNSProvider, "ACME_DNS_", "API_BASE ALLOWLIST STORAGE_PATH STORAGE_BASE_URL"),
	"cloudflare":   legos(cloudflare.NewDNSProvider, "CLOUDFLARE_ CF_", "EMAIL API_EMAIL API_KEY DNS_API_TOKEN ZONE_API_TOKEN BASE_URL"),
	"desec":        legos(desec.NewDNSProvider, "DESEC_", "TOKEN"),
	"digitalocean": legos(digitalocean.NewDNSProvider, "DO_", "AUTH_TOKEN API_URL"),
	"exec":         ours(newProgram, "EXEC_"),
	"gandiv5":      legos(gandiv5.NewDNSProvider, "GANDIV5_", "API_KEY PERSONAL_ACCESS_TOKEN"),
	"hetzner":      legos(hetzner.NewDNSProvider, "HETZNER_", "API_KEY API_TOKEN"),
	"httpreq":      legos(httpreq.NewDNSProvider, "HTTPREQ_", "ENDPOINT MODE USERNAME PASSWORD"),
	"ionos":        legos(ionos.NewDNSProvider, "IONOS_", "API_KEY"),
	"netcup":       legos(netcup.NewDNSProvider, "NETCUP_", "CUSTOMER_NUMBER API_KEY API_PASSWORD"),
	"ovh":          legos(ovh.NewDNSProvider, "OVH_", "ENDPOINT APPLICATION_KEY APPLICATION_SECRET CONSUMER_KEY CLIENT_ID CLIENT_SECRET ACCESS_TOKEN"),
	"rfc2136":      ours(newDNSUpdate, "DNSUPDATE_ RFC2136_"),
}

// ours is a provider that takes its variables from a lookup.
func ours[P challenge.Provider](open func(lookup) (P, error), prefixes string) provider {
	return provider{func(get lookup) (challenge.Provider, error) { return open(get) }, strings.Fields(prefixes)}
}

// legos is a provider of lego's. Its constructor reads the environment of the
// process, so the variables, each prefix with each suffix, are put there for the
// duration of the call.
func legos[P challenge.Provider](open func() (P, error), prefixes, suffixes string) provider {
	const common = " TTL PROPAGATION_TIMEOUT POLLING_INTERVAL HTTP_TIMEOUT"
	p := provider{prefixes: strings.Fields(prefixes)}
	p.open = func(get lookup) (challenge.Provider, error) {
		environment.Lock()
		defer environment.Unlock()
		for _, prefix := range p.prefixes {
			for _, suffix := range strings.Fields(suffixes + common) {
				for _, name := range []string{prefix + suffix, prefix + suffix + fileSuffix} {
					defer lend(name, get(name))()
				}
			}
		}
		return open()
	}
	return p
}

var environment sync.Mutex // of the process, while lend changes it

// lend sets a variable of the process, or unsets it if value is empty, until restore.
func lend(name, value string) (restore func()) {
	old, set := os.LookupEnv(name)
	switch {
	case value != "":
		os.Setenv(name, value)
	case set:
		os.Unsetenv(name)
	}
	return func() {
		if os.Unsetenv(name); set {
			os.Setenv(name, old)
		}
	}
}

// lookup returns the value of a variable, "" if it is not set.
type lookup func(name string) string

const fileSuffix = "_FILE" // of a variable that names a file with the value

func (get lookup) orFile(name string) string {
	file := get(name + fileSuffix)
	if value := get(name); value != "" || file == "" {
		return value
	}
	data, err := os.ReadFile(file)
	if err != nil {
		legolog.Printf("%s%s: %v", name, fileSuffix, err)
	}
	return strings.TrimSuffix(string(data), "\n")
}

// seconds is the first of the variables that holds a number of seconds.
func (get lookup) seconds(standard time.Duration, names ...string) time.Duration {
	for _, name := range names {
		if n, err := strconv.ParseUint(get.orFile(name), 10, 31); err == nil {
			return time.Duration(n) * time.Second
		}
	}
	return standard
}

// DNSProviders are the names of the providers, sorted.
func DNSProviders() []string { return slices.Sorted(maps.Keys(providers)) }

// IsProviderVariable reports whether a variable configures one of the providers.
func IsProviderVariable(name string) bool {
	for _, p := range providers {
		if slices.ContainsFunc(p.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			return true
		}
	}
	return false
}

// DNSProvider answers dns-01 with the provider of that name. get looks up its
// variables, which lego documents; each may end in _FILE and name a file that holds
// the value.
//
// The record counts as visible once every authoritative server of the zone returns
// it or, if a resolver is given, once that does.
func DNSProvider(name, resolver string, get func(string) string, noCheck bool) (Solver, error) {
	p, ok := providers[name]
	if !ok {
		return nil, say.Hint(fmt.Errorf("unknown DNS provider %s", say.Foreign(name)), "choose one of %s; exec runs your own program", strings.Join(DNSProviders(), ", "))
	}
	opened, err := p.open(get)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("setting up the DNS provider %s: %s", name, say.Plain(err.Error())),
			"set its variables (%s…) in the environment or in the configuration file; see https://go-acme.github.io/lego/dns/", strings.Join(p.prefixes, "…, "))
	}
	var options []dns01.ChallengeOption
	if resolver != "" {
		options = append(options, dns01.AddRecursiveNameservers([]string{resolver}),
			dns01.DisableAuthoritativeNssPropagationRequirement(), dns01.RecursiveNSsPropagationRequirement())
	}
	hint := fmt.Sprintf("check the credentials and the zone in the variables of %s (%s…); --log-level debug shows what it printed",
		name, strings.Join(p.prefixes, "…, "))
	return &dnsSolver{provider: opened, hint: hint, options: options, skip: noCheck, removed: map[string]time.Time{}}, nil
}

type dnsSolver struct {
	provider challenge.Provider
	hint     string // if it fails
	options  []dns01.ChallengeOption
	skip     bool
	mu       sync.Mutex // some services read the whole zone and write it back
	removed  map[string]time.Time
}

func (*dnsSolver) kind() challenge.Type { return challenge.DNS01 }

// width is one for providers that cannot hold several responses at once.
func (s *dnsSolver) width() int {
	if _, one := s.provider.(interface{ Sequential() time.Duration }); one {
		return 1
	}
	return width
}

// endable is a provider whose calls a context ends.
type endable interface {
	present(ctx context.Context, domain, token, keyAuth string) error
	cleanUp(ctx context.Context, domain, token, keyAuth string) error
}

func (s *dnsSolver) present(ctx context.Context, a answerTo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.apart(ctx, a.name); err != nil {
		return err
	}
	if p, ok := s.provider.(endable); ok {
		return s.foreign(p.present(ctx, a.name, a.token, a.keyAuth))
	}
	return s.foreign(s.provider.Present(a.name, a.token, a.keyAuth))
}

// apart waits until the last record of the name, that of its wildcard for example,
// has left the caches, as long as a provider wants that does one after the other.
func (s *dnsSolver) apart(ctx context.Context, name string) error {
	one, ok := s.provider.(interface{ Sequential() time.Duration })
	if last := s.removed[name]; ok && !last.IsZero() {
		return wait.For(ctx, time.Until(last.Add(one.Sequential())))
	}
	return nil
}

func (s *dnsSolver) cleanUp(ctx context.Context, a answerTo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.removed[a.name] = time.Now() }()
	if p, ok := s.provider.(endable); ok {
		return s.foreign(p.cleanUp(ctx, a.name, a.token, a.keyAuth))
	}
	return s.foreign(s.provider.CleanUp(a.name, a.token, a.keyAuth))
}

// check waits until the record is visible, up to the provider's propagation
// timeout. lego's wait takes no context; the wrapped check ends it.
func (s *dnsSolver) check(ctx context.Context, a answerTo) error {
	if s.skip {
		return nil
	}
	untilDone := dns01.WrapPreCheck(func(_, fqdn, value string, check dns01.PreCheckFunc) (bool, error) {
		if ctx.Err() != nil {
			return true, context.Cause(ctx)
		}
		return check(fqdn, value)
	})
	seen := func(*api.Core, string, lego.Challenge) error { return nil }
	waiter := dns01.NewChallenge(a.core, seen, s.provider, append(s.options, untilDone)...)
	err := waiter.Solve(lego.Authorization{
		Identifier: lego.Identifier{Type: "dns", Value: a.name},
		Challenges: []lego.Challenge{{Type: string(challenge.DNS01), Token: a.token}},
	})
	if err != nil && ctx.Err() == nil {
		return say.Hint(fmt.Errorf("waiting for the TXT record to appear: %s", say.Plain(err.Error())),
			"check that the public DNS serves this zone and that _acme-challenge is not delegated elsewhere; the provider's …PROPAGATION_TIMEOUT variable sets how long to wait, --no-self-check skips the check")
	}
	return err
}

func (s *dnsSolver) foreign(err error) error {
	if err == nil {
		return nil
	}
	return say.Hint(errors.New(say.Plain(err.Error())), "%s", s.hint)
}
