package acme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/go-acme/lego/v4/providers/dns/acmedns"
	"github.com/go-acme/lego/v4/providers/dns/cloudflare"
	"github.com/go-acme/lego/v4/providers/dns/desec"
	"github.com/go-acme/lego/v4/providers/dns/digitalocean"
	"github.com/go-acme/lego/v4/providers/dns/exec"
	"github.com/go-acme/lego/v4/providers/dns/gandiv5"
	"github.com/go-acme/lego/v4/providers/dns/hetzner"
	"github.com/go-acme/lego/v4/providers/dns/httpreq"
	"github.com/go-acme/lego/v4/providers/dns/ionos"
	"github.com/go-acme/lego/v4/providers/dns/netcup"
	"github.com/go-acme/lego/v4/providers/dns/ovh"

	"mailu-hook/internal/say"
)

// provider is one way to change DNS records, with the prefixes of the variables that
// configure it.
type provider struct {
	open     func() (challenge.Provider, error)
	prefixes []string
}

// as adapts the constructor of one provider.
func as[P challenge.Provider](open func() (P, error)) func() (challenge.Provider, error) {
	return func() (challenge.Provider, error) { return open() }
}

// providers are the ones linked in. lego's 200 or so together would add 54 MB to
// the program, these add less than one.
var providers = map[string]provider{
	"acme-dns":     {as(acmedns.NewDNSProvider), []string{"ACME_DNS_"}},
	"cloudflare":   {as(cloudflare.NewDNSProvider), []string{"CLOUDFLARE_", "CF_"}},
	"desec":        {as(desec.NewDNSProvider), []string{"DESEC_"}},
	"digitalocean": {as(digitalocean.NewDNSProvider), []string{"DO_"}},
	"exec":         {as(exec.NewDNSProvider), []string{"EXEC_"}},
	"gandiv5":      {as(gandiv5.NewDNSProvider), []string{"GANDIV5_"}},
	"hetzner":      {as(hetzner.NewDNSProvider), []string{"HETZNER_"}},
	"httpreq":      {as(httpreq.NewDNSProvider), []string{"HTTPREQ_"}},
	"ionos":        {as(ionos.NewDNSProvider), []string{"IONOS_"}},
	"netcup":       {as(netcup.NewDNSProvider), []string{"NETCUP_"}},
	"ovh":          {as(ovh.NewDNSProvider), []string{"OVH_"}},
	"rfc2136":      {as(newDNSUpdate), []string{"DNSUPDATE_", "RFC2136_"}},
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

// DNSProvider answers dns-01 by a provider of that name, which takes what it
// needs from the environment of the process: lego documents the variables, and
// each may end in _FILE and name a file that holds the value.
//
// The answer counts as seen once every authoritative server of the zone shows it;
// with a resolver given, once that one does.
func DNSProvider(name, resolver string, noCheck bool) (Solver, error) {
	p, ok := providers[name]
	if !ok {
		return nil, say.Hint(fmt.Errorf("unknown DNS provider %s", say.Foreign(name)), "choose one of %s; exec runs your own program", strings.Join(DNSProviders(), ", "))
	}
	opened, err := p.open()
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
	return &dnsSolver{provider: opened, hint: hint, options: options, skip: noCheck}, nil
}

type dnsSolver struct {
	provider challenge.Provider
	hint     string // if it fails
	options  []dns01.ChallengeOption
	skip     bool
	mu       sync.Mutex // some services read the whole zone and write it back
}

func (*dnsSolver) kind() challenge.Type { return challenge.DNS01 }

// width is one for providers that cannot hold several responses at once.
func (s *dnsSolver) width() int {
	if _, one := s.provider.(interface{ Sequential() time.Duration }); one {
		return 1
	}
	return width
}

func (s *dnsSolver) present(_ context.Context, a answerTo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.foreign(s.provider.Present(a.name, a.token, a.keyAuth))
}

func (s *dnsSolver) cleanUp(_ context.Context, a answerTo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
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
