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

// check refuses what cannot work.
func (c Challenge) check() error {
	const hint = "mailu-hook help renew explains the challenge types"
	switch c.Method {
	case acme.Webroot:
		if info, err := os.Stat(c.Webroot); err != nil || !info.IsDir() {
			return usageError(hint, "--challenge webroot needs --webroot DIR, the directory that the web server serves; %s is not a directory", say.Foreign(c.Webroot))
		}
	case acme.DNS:
		if !slices.Contains(acme.DNSProviders(), c.DNSProvider) {
			return usageError(hint, "--challenge dns needs --dns-provider NAME, one of %s; not %s", strings.Join(acme.DNSProviders(), ", "), say.Foreign(c.DNSProvider))
		}
	case acme.Front, acme.Standalone, acme.TLSALPN:
	default:
		return usageError(hint, "--challenge: %s is not one of front, webroot, standalone, tls-alpn, dns", say.Foreign(string(c.Method)))
	}
	return nil
}

// solver prepares to answer challenges. done ends that.
func (r *run) solver(ctx context.Context) (s acme.Solver, done func(), err error) {
	c := r.o.Challenge
	resolver := acme.Resolver(c.Resolver)
	switch c.Method {
	case acme.Front:
		return r.frontSolver(ctx)
	case acme.Webroot:
		root, err := webroot.Open(c.Webroot)
		if err != nil {
			return nil, nil, usageError("name the directory that the web server serves: --webroot DIR", "%v", err)
		}
		return acme.HTTP(root, resolver, c.NoSelfCheck), root.Close, nil
	case acme.Standalone:
		server := acme.NewServer(cmp.Or(c.Listen, ":80"))
		return acme.HTTP(server, resolver, c.NoSelfCheck), server.Close, nil
	case acme.TLSALPN:
		server := acme.NewServer(cmp.Or(c.Listen, ":443"))
		return acme.ALPN(server, resolver, c.NoSelfCheck), server.Close, nil
	}
	if s, err = acme.DNSProvider(c.DNSProvider, c.Resolver, c.Variables, c.NoSelfCheck); err != nil {
		err = usageError(say.HintOf(err), "%v", err)
	}
	return s, func() {}, err
}

// closeLimit is for taking the override out of the front, also when the time is
// up.
const closeLimit = 10 * time.Second

func (r *run) frontSolver(ctx context.Context) (acme.Solver, func(), error) {
	front := r.target.Front
	if front == nil {
		return nil, nil, r.noFront()
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
	return acme.HTTP(challenges, acme.Resolver(r.o.Challenge.Resolver), r.o.Challenge.NoSelfCheck), done, nil
}

func (r *run) noFront() error {
	why := errors.New(r.target.Absent)
	if r.target.Unasked != nil {
		why = r.target.Unasked
	}
	return say.Hint(fmt.Errorf("no front can answer the CA's challenge: %w", why), "start Mailu, or choose --challenge standalone, webroot, tls-alpn or dns")
}
