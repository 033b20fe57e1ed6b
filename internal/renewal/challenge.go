package renewal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"mailu-hook/acme"
	"mailu-hook/internal/say"
	"mailu-hook/internal/webroot"
)

// Challenge is how the CA's challenges are answered.
type Challenge struct {
	Method      acme.Method // "": as the other fields imply, else by the front
	Webroot     string
	Listen      string // "": :80 or :443, as the method needs
	DNSProvider string
	Variables   func(string) string // of the DNS provider
	Resolver    string              // "": those in /etc/resolv.conf
	NoSelfCheck bool
}

// Resolved is the challenge with its method chosen. Whether a front runs matters
// only once a certificate is due.
func (c Challenge) Resolved() Challenge {
	switch {
	case c.Method != "":
	case c.DNSProvider != "":
		c.Method = acme.DNS
	case c.Webroot != "":
		c.Method = acme.Webroot
	default:
		c.Method = acme.Front
	}
	return c
}

// challenges are the ways to answer a CA, the default first. To add one, write
// its acme.Solver and name it here.
var challenges = []struct {
	method acme.Method
	check  func(Challenge) error // that its options make sense; nil: they always do
	solver func(*run, context.Context) (s acme.Solver, done func(), err error)
}{
	{acme.Front, nil, (*run).frontSolver},
	{acme.Webroot, checkWebroot, (*run).webrootSolver},
	{acme.Standalone, nil, (*run).standaloneSolver},
	{acme.TLSALPN, nil, (*run).alpnSolver},
	{acme.DNS, checkDNS, (*run).dnsSolver},
}

// Methods are the words that choose a challenge.
func Methods() []string {
	var names []string
	for _, c := range challenges {
		names = append(names, string(c.method))
	}
	return names
}

// helpHint leads to the text that explains the challenges.
const helpHint = "mailu-hook help renew explains the challenge types"

// check refuses what cannot work.
func (c Challenge) check() error {
	for _, known := range challenges {
		switch {
		case known.method != c.Method:
		case known.check == nil:
			return nil
		default:
			return known.check(c)
		}
	}
	return usageError(helpHint, "--challenge: %s is not one of %s", say.Foreign(string(c.Method)), strings.Join(Methods(), ", "))
}

func checkWebroot(c Challenge) error {
	if info, err := os.Stat(c.Webroot); err != nil || !info.IsDir() {
		return usageError(helpHint, "--challenge webroot needs --webroot DIR, the directory that the web server serves; %s is not a directory", say.Foreign(c.Webroot))
	}
	return nil
}

func checkDNS(c Challenge) error {
	if !slices.Contains(acme.DNSProviders(), c.DNSProvider) {
		return usageError(helpHint, "--challenge dns needs --dns-provider NAME, one of %s; not %s", strings.Join(acme.DNSProviders(), ", "), say.Foreign(c.DNSProvider))
	}
	return nil
}

// solver prepares to answer challenges of a method that was checked. done ends
// that.
func (r *run) solver(ctx context.Context) (s acme.Solver, done func(), err error) {
	for _, c := range challenges {
		if c.method == r.o.Challenge.Method {
			return c.solver(r, ctx)
		}
	}
	return nil, nil, r.o.Challenge.check()
}

// http makes a Solver for http-01 of a place where the CA looks for the answers.
func (r *run) http(tokens acme.Tokens) acme.Solver {
	return acme.HTTP(tokens, acme.Resolver(r.o.Challenge.Resolver), r.o.Challenge.NoSelfCheck)
}

func (r *run) webrootSolver(context.Context) (acme.Solver, func(), error) {
	root, err := webroot.Open(r.o.Challenge.Webroot)
	if err != nil {
		return nil, nil, usageError("name the directory that the web server serves: --webroot DIR", "%v", err)
	}
	return r.http(root), root.Close, nil
}

func (r *run) standaloneSolver(context.Context) (acme.Solver, func(), error) {
	server := acme.NewServer(cmp.Or(r.o.Challenge.Listen, ":80"))
	return r.http(server), server.Close, nil
}

func (r *run) alpnSolver(context.Context) (acme.Solver, func(), error) {
	c := r.o.Challenge
	server := acme.NewServer(cmp.Or(c.Listen, ":443"))
	return acme.ALPN(server, acme.Resolver(c.Resolver), c.NoSelfCheck), server.Close, nil
}

func (r *run) dnsSolver(context.Context) (acme.Solver, func(), error) {
	c := r.o.Challenge
	s, err := acme.DNSProvider(c.DNSProvider, c.Resolver, c.Variables, c.NoSelfCheck)
	if err != nil {
		return nil, nil, usageError(say.HintOf(err), "%v", err)
	}
	return s, func() {}, nil
}

// closeLimit is for taking the override out of the front, also when the time is
// up.
const closeLimit = 10 * time.Second

func (r *run) frontSolver(ctx context.Context) (acme.Solver, func(), error) {
	front := r.target.Front
	if front == nil {
		return nil, nil, r.noFront()
	}
	if r.target.Facts.NoHTTP && !r.o.Challenge.NoSelfCheck {
		return nil, nil, say.Hint(errors.New("the front cannot answer the CA's challenge: its PORTS leave out 80"),
			"add 80 to PORTS in mailu.env, or choose --challenge dns, standalone, webroot or tls-alpn; if a proxy forwards port 80: --no-self-check")
	}
	if err := r.target.Placeholder(ctx, r.want.Names); err != nil {
		return nil, nil, err
	}
	r.tell("letting the front answer challenges")
	challenges, err := front.ServeChallenges(ctx)
	if err != nil {
		return nil, nil, err
	}
	done := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		if err := challenges.Close(ctx); err != nil {
			r.note("%v", err)
		}
	}
	return r.http(challenges), done, nil
}

func (r *run) noFront() error {
	why := errors.New(r.target.Absent)
	if r.target.Unasked != nil {
		why = r.target.Unasked
	}
	return say.Hint(fmt.Errorf("no front can answer the CA's challenge: %w", why), "start Mailu, or choose --challenge standalone, webroot, tls-alpn or dns")
}
