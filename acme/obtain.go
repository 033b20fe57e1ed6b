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
)

// Obtain makes l what want asks for:
//
//  1. sign in, with a new account at first use;
//  2. take up the order that an earlier run left, or make the key and order;
//  3. prove the names, each by one challenge that s answers;
//  4. finalize the order;
//  5. download the chain and hold it against the request;
//  6. make it live.
//
// After nil the lineage's files are the new ones. After an error, which wraps
// ErrFailed, they are what they were, and l remembers when to try again; a
// *Problem in it is the CA's word. After a crash the next Obtain goes on from the
// last of these steps that the CA knows of. In a dry run nothing is kept but the
// account.
func (c *Client) Obtain(l *Lineage, want Request, s Solver) error {
	return c.ended(l, c.obtain(l, want, s))
}

// SignIn is the first step of Obtain, for a caller who has to change something
// before it can make a Solver: a CA that takes no account of ours is to be met
// before that.
func (c *Client) SignIn(l *Lineage) error { return c.ended(l, c.signIn()) }

// ended remembers a failure.
func (c *Client) ended(l *Lineage, err error) error {
	if err == nil {
		return nil
	}
	if c.counts(err) {
		l.fail(err, time.Now())
		if rerr := l.record(); rerr != nil {
			c.o.Log.Warn("failure not remembered", "error", rerr)
		}
	}
	if say.HintOf(err) == "" {
		err = say.Hint(err, "the next run tries again; if it stays so, ask the CA, or choose another with --server")
	}
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

// counts tells whether a failure is to make the next try wait.
func (c *Client) counts(err error) bool {
	stopped := errors.Is(c.ctx.Err(), context.Canceled) // as a person or systemd wishes
	return !c.o.DryRun && !stopped && !free(err)
}

// free tells whether a failure cost nothing at the CA, for none of the names.
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
	if failed := provable(err, want); failed != nil {
		c.o.Log.Warn("going on without names that could not be proved", "names", failed, "error", err)
		names := slices.DeleteFunc(slices.Clone(want.Names), func(name string) bool { return slices.Contains(failed, name) })
		if o, err = c.begin(l, want, names); err != nil {
			return err
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

// keep makes the chain live, and only then forgets the order and its key. The
// order says before which leaf it came to, for Complete.
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
		c.o.Log.Warn("old certificates were not removed", "error", err)
	}
	return nil
}

// Complete does what is left to do if an earlier run made a certificate live, and
// was killed before it remembered that. Else the next renewal would take up its
// order, and obtain the same certificate again.
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
	l.Record = Record{Directory: done.Directory, Names: done.Names, Key: done.Key, Profile: done.Profile, Former: former, Issued: time.Now().UTC()}
	if err := l.record(); err != nil {
		return err
	}
	return o.forget()
}

// finalize sends the request for the certificate, and waits until the CA has
// issued it. When the answer is lost or says that it is too late, the order
// itself tells whether the CA went on.
func (c *Client) finalize(o *order) error {
	if err := c.await(o, lego.StatusReady); err != nil {
		return err
	}
	if o.Status == lego.StatusReady {
		c.progress("asking for the certificate")
		csr, err := newCSR(o.key, o.Names)
		if err != nil {
			return fmt.Errorf("making the certificate request: %w", err)
		}
		updated, err := c.core.Orders.UpdateForCSR(o.Finalize, csr)
		if err != nil {
			now, gerr := c.core.Orders.Get(o.URL)
			if gerr != nil || now.Status == lego.StatusReady || now.Status == lego.StatusPending {
				return refused(c.explain(err, "asking for the certificate", ""), now.Status)
			}
			updated = now
		}
		o.Order = updated.Order
	}
	return c.await(o, lego.StatusValid)
}

// refused makes err a dead one if the CA has looked at the request, and the order
// is as ready as it was: the same request would be refused again.
func refused(err error, status string) error {
	var problem *Problem
	if status == lego.StatusReady && errors.As(err, &problem) && problem.Status < 500 && problem.Type != "rateLimited" {
		return dead{err}
	}
	return err
}

// await asks for the order until it has got as far as status.
func (c *Client) await(o *order, status string) error {
	for wait := (pace{}); ; {
		switch o.Status {
		case lego.StatusValid, status:
			return nil
		case lego.StatusInvalid:
			if o.Error != nil {
				return fmt.Errorf("the CA gave the order up: %w", problemOf(o.Error, ""))
			}
			return errors.New("the CA gave the order up, and did not say why")
		}
		if wait.next(c.ctx, later(c.http.until(o.URL), c.http.until(o.Finalize))) != nil {
			return c.stopped("waiting for the order, which is " + say.Plain(o.Status))
		}
		got, err := c.core.Orders.Get(o.URL)
		if err != nil {
			return c.explain(err, "asking for the order", "")
		}
		o.Order = got.Order
	}
}

// download fetches the chain: the first that the CA offers, or that which the
// preferred issuer ends. It refuses one that is not for the key and the names.
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
		return nil, errors.Join(errors.New("the CA sent the certificate of another key"), o.forget())
	}
	if lacks := missing(chain[0], o.Names); len(lacks) > 0 {
		return nil, errors.Join(fmt.Errorf("the CA left %s out of the certificate", strings.Join(lacks, ", ")), o.forget())
	}
	return chain, nil
}

// chains returns what the CA offers, its own choice first. Alternates that cannot
// be had or read are left out: they are a matter of taste.
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

// pace spaces questions: the first soon, then ever less often, and none before
// the CA wants it (Retry-After: RFC 8555, sections 7.4 and 7.5.1).
type pace struct{ last time.Duration }

const (
	firstAsk   = 250 * time.Millisecond
	longestAsk = 5 * time.Second
)

func (p *pace) next(ctx context.Context, notBefore time.Time) error {
	p.last = min(max(firstAsk, 2*p.last), longestAsk)
	wait := max(p.last, min(time.Until(notBefore), time.Minute))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}
