package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	lego "github.com/go-acme/lego/v4/acme"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

// Obtain gets the certificate that want describes:
//
//  1. sign in, creating an account on first use;
//  2. resume the order of an earlier run, or generate a key and place an order;
//  3. validate the names, with one challenge each, which s answers;
//  4. finalize the order;
//  5. download the chain and compare it with the request;
//  6. make it live.
//
// After success the lineage's files are the new ones. After an error, which wraps
// ErrFailed, they are unchanged and l records when to try again; a *Problem in the
// error is what the CA said. After a crash the next Obtain continues after the last
// step that the CA knows of. A dry run keeps only the account.
func (c *Client) Obtain(l *Lineage, want Request, s Solver) error {
	return c.ended(l, want, c.obtain(l, want, s))
}

// SignIn is the first step of Obtain, for a caller that has to change something
// before it can make a Solver: if the CA rejects the account, nothing should have
// been changed.
func (c *Client) SignIn(l *Lineage, want Request) error { return c.ended(l, want, c.signIn()) }

// ended records a failure.
func (c *Client) ended(l *Lineage, want Request, err error) error {
	if err == nil {
		return nil
	}
	if c.counts(err) {
		now := time.Now()
		l.limit(want, err, now)
		if want.Lacks != nil && want.Subset {
			l.miss(err.Error(), now)
		} else {
			l.fail(want, err, now)
		}
		if rerr := l.record(); rerr != nil {
			c.o.Log.Warn("the failure could not be recorded", "error", rerr)
		}
	}
	if say.HintOf(err) == "" {
		err = say.Hint(err, "the next run tries again; if this persists, ask the CA, or choose another with --server")
	}
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

// counts reports whether a failure causes back-off.
func (c *Client) counts(err error) bool {
	stopped := errors.Is(c.ctx.Err(), context.Canceled) // by Ctrl-C or systemd
	return !c.o.DryRun && !stopped && !free(err)
}

// free reports whether a failure cost nothing at the CA, for any of the names.
func free(err error) bool {
	var failed unproved
	var found local
	if !errors.As(err, &failed) {
		return errors.As(err, &found)
	}
	for _, reason := range failed {
		if !free(reason) {
			return false
		}
	}
	return true
}

func (c *Client) obtain(l *Lineage, want Request, s Solver) error {
	if err := l.Complete(); err != nil {
		return err
	}
	if err := c.signIn(); err != nil { // 1
		return err
	}
	o, err := c.order(l, want) // 2
	if err != nil {
		return err
	}
	err = c.prove(o, s) // 3
	if failed := dropped(err, want); failed != nil {
		if want.Lacks != nil && !slices.ContainsFunc(want.Lacks, func(name string) bool { return !slices.Contains(failed, name) }) {
			return errors.Join(err, o.forget()) // another certificate would lack the same
		}
		c.o.Log.Warn("continuing without the names that failed validation", "names", failed, "error", err)
		names := slices.DeleteFunc(slices.Clone(want.Names), func(name string) bool { return slices.Contains(failed, name) })
		reason := err
		if o, err = c.begin(l, want, names); err != nil {
			return err
		}
		if o.Dropped = cut(reason.Error()); !c.o.DryRun {
			if err := o.keep(); err != nil {
				return local{err}
			}
		}
		err = c.prove(o, s)
	}
	if err == nil {
		err = c.finalize(o) // 4
	}
	if err != nil {
		return errors.Join(err, o.forgetIfDead(err))
	}
	chain, err := c.download(o, want) // 5
	if err != nil {
		return err
	}
	if c.o.DryRun {
		return nil
	}
	return c.keep(l, o, chain) // 6
}

// keep makes the chain live, and only then removes the order and its key. Before
// that it records the leaf in the order, for Complete.
func (c *Client) keep(l *Lineage, o *order, chain []*x509.Certificate) error {
	o.Leaf = pki.Fingerprint(chain[0])
	if err := o.keep(); err != nil {
		return err
	}
	if err := l.install(chain, o.key); err != nil {
		return err
	}
	if err := l.complete(o); err != nil {
		return err
	}
	if err := l.prune(); err != nil {
		c.o.Log.Warn("old certificates could not be removed", "error", err)
	}
	return nil
}

// Complete finishes an earlier run that was killed between making a certificate live
// and recording that. Otherwise the next renewal would resume that order and obtain
// the same certificate again.
func (l *Lineage) Complete() error {
	o, err := l.unfinished()
	if err != nil || o == nil || l.Leaf == nil || o.Leaf != pki.Fingerprint(l.Leaf) {
		return err
	}
	return l.complete(o)
}

func (l *Lineage) complete(o *order) error {
	done := Request{Directory: o.Directory, Names: o.Wanted, Key: keyTypeOf(o.key.Public()), Profile: o.Profile}
	former := l.Former
	if last := (&Former{l.Directory, l.Names, l.Key, l.Profile}); l.Directory != "" && !last.is(done) {
		former = last
	}
	l.Record = Record{Directory: done.Directory, Names: done.Names, Key: done.Key, Profile: done.Profile, Former: former, Issued: time.Now().UTC(),
		Ran: l.Ran, Limits: l.Limits, Missed: l.Missed}
	delete(l.Limits, done.Directory)
	if len(missing(l.Leaf, done.Names)) == 0 {
		l.Missed = nil
	} else {
		l.miss(o.Dropped, l.Issued)
	}
	if err := l.record(); err != nil {
		return err
	}
	return o.forget()
}

// finalize sends the certificate request and waits until the CA has issued. If the
// response is lost or says that it is too late, the status of the order shows
// whether the CA went on.
func (c *Client) finalize(o *order) error {
	if err := c.await(o, lego.StatusReady); err != nil {
		return err
	}
	if o.Status == lego.StatusReady {
		c.progress("requesting the certificate")
		csr, err := newCSR(o.key, o.Names)
		if err != nil {
			return fmt.Errorf("making the certificate request: %w", err)
		}
		updated, err := c.core.Orders.UpdateForCSR(o.Finalize, csr)
		if err != nil {
			now, gerr := c.core.Orders.Get(o.URL)
			if gerr != nil || now.Status == lego.StatusReady || now.Status == lego.StatusPending {
				return refused(c.explain(err, "requesting the certificate", ""), now.Status)
			}
			updated = now
		}
		o.Order = updated.Order
	}
	return c.await(o, lego.StatusValid)
}

// refused marks err as dead if the CA has judged the request and the order is still
// ready: the same request would be refused again.
func refused(err error, status string) error {
	var problem *Problem
	if status == lego.StatusReady && errors.As(err, &problem) && problem.Status < 500 && problem.Type != "rateLimited" {
		return dead{err}
	}
	return err
}

// await polls the order until it reaches status.
func (c *Client) await(o *order, status string) error {
	for wait := (pace{}); ; {
		switch o.Status {
		case lego.StatusValid, status:
			return nil
		case lego.StatusInvalid:
			if o.Error != nil {
				return fmt.Errorf("the CA marked the order invalid: %w", problemOf(o.Error, ""))
			}
			return errors.New("the CA marked the order invalid and gave no reason")
		}
		if wait.next(c.ctx, later(c.http.until(o.URL), c.http.until(o.Finalize))) != nil {
			return c.stopped("waiting for the order, which is " + say.Plain(o.Status))
		}
		got, err := c.core.Orders.Get(o.URL)
		if err != nil {
			return c.explain(err, "fetching the order", "")
		}
		o.Order = got.Order
	}
}

// download fetches the chain: the CA's default, or the one that ends at the
// preferred issuer. It refuses a certificate for another key or without all names.
func (c *Client) download(o *order, want Request) ([]*x509.Certificate, error) {
	c.progress("downloading the certificate")
	chains, err := c.chains(o.Certificate, want.PreferredChain != "")
	if err != nil {
		return nil, err
	}
	chain := chains[0]
	if want.PreferredChain != "" {
		i := slices.IndexFunc(chains, func(chain []*x509.Certificate) bool {
			return chain[len(chain)-1].Issuer.CommonName == want.PreferredChain
		})
		if i < 0 {
			c.o.Log.Warn("the preferred chain is not offered", "preferred", want.PreferredChain, "taken", chain[len(chain)-1].Issuer.CommonName)
		} else {
			chain = chains[i]
		}
	}
	if !pki.Owns(o.key.Public(), chain[0]) {
		return nil, errors.Join(errors.New("the CA sent a certificate for another key"), o.forget())
	}
	if lacks := missing(chain[0], o.Names); len(lacks) > 0 {
		return nil, errors.Join(fmt.Errorf("the CA left %s out of the certificate", strings.Join(lacks, ", ")), o.forget())
	}
	return chain, nil
}

// chains returns the chains that the CA offers, its default first. Alternates that
// cannot be downloaded or read are left out, since they are optional.
func (c *Client) chains(url string, alternates bool) ([][]*x509.Certificate, error) {
	raw := map[string]*lego.RawCertificate{}
	var err error
	if alternates {
		if raw, err = c.core.Certificates.GetAll(url, true); err != nil {
			c.o.Log.Warn("no alternate chain", "error", c.explain(err, "downloading the alternate chains", ""))
		}
	}
	if raw[url] == nil {
		raw = map[string]*lego.RawCertificate{url: {}}
		if raw[url].Cert, raw[url].Issuer, err = c.core.Certificates.Get(url, true); err != nil {
			return nil, c.explain(err, "downloading the certificate", "")
		}
	}
	first, err := pki.ParseChain(raw[url].Cert)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate that the CA sent: %w", err)
	}
	chains := [][]*x509.Certificate{first}
	delete(raw, url)
	for _, at := range slices.Sorted(maps.Keys(raw)) {
		if chain, err := pki.ParseChain(raw[at].Cert); err == nil {
			chains = append(chains, chain)
		} else {
			c.o.Log.Warn("an alternate chain cannot be read", "url", at, "error", err)
		}
	}
	return chains, nil
}

// pace spaces polls: the first soon, later ones less and less often, and none before
// the CA's Retry-After (RFC 8555, sections 7.4 and 7.5.1).
type pace struct{ last time.Duration }

const (
	firstAsk   = 10 * time.Millisecond // some CAs are done by then
	longestAsk = 5 * time.Second
)

func (p *pace) next(ctx context.Context, notBefore time.Time) error {
	p.last = min(max(firstAsk, 2*p.last), longestAsk)
	return wait.For(ctx, max(p.last, min(time.Until(notBefore), time.Minute)))
}
