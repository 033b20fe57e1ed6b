package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"

	"mailu-hook/internal/disk"
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
	var problem *Problem
	var free local
	switch {
	case c.o.DryRun, errors.Is(c.ctx.Err(), context.Canceled): // a person's or systemd's wish
		return false
	case errors.As(err, &problem):
		return true
	}
	return !errors.As(err, &free)
}

func (c *Client) obtain(l *Lineage, want Request, s Solver) error {
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
		provable := slices.DeleteFunc(slices.Clone(want.Names), func(name string) bool { return slices.Contains(failed, name) })
		if o, err = c.begin(l, want, provable); err == nil {
			err = c.prove(o, s)
		}
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
	if err := o.cameTo(chain[0]); err != nil {
		return err
	}
	if err := l.install(chain, o.key); err != nil {
		return err
	}
	return l.complete(o)
}

// Complete does what is left to do if an earlier run made a certificate live, and
// was killed before it remembered that. Else the next renewal would take up its
// order, and obtain the same certificate again.
func (l *Lineage) Complete() error {
	o, err := l.unfinished()
	if err != nil || o == nil || l.Leaf == nil || o.Leaf != fingerprint(l.Leaf) {
		return err
	}
	return l.complete(o)
}

func (l *Lineage) complete(o *order) error {
	l.Record = Record{Directory: o.Directory, Names: o.Wanted, Profile: o.Profile, Issued: time.Now().UTC()}
	if err := l.record(); err != nil {
		return err
	}
	return o.forget()
}

// order is an order under way. It is kept in renewal/NAME/order.json, and its
// key beside it, from before the CA has been asked to sign that key until the
// certificate is live.
type order struct {
	URL       string    `json:"url"`
	Directory string    `json:"directory"`
	Account   string    `json:"account"`
	Names     []string  `json:"names"`  // that were ordered
	Wanted    []string  `json:"wanted"` // that were asked for
	Profile   string    `json:"profile,omitempty"`
	Made      time.Time `json:"made"`
	Leaf      string    `json:"leaf,omitempty"` // SHA-256 of what is about to be live

	lego.Order `json:"-"`
	key        crypto.Signer
	lineage    *Lineage
	dry        bool
}

const orderFile = "order.json"

// order takes up the order of an earlier run if it is for the same and the CA
// has not given it up, and else begins one.
func (c *Client) order(l *Lineage, want Request) (*order, error) {
	o, err := l.unfinished()
	if err != nil {
		return nil, err
	}
	if o != nil && !c.o.DryRun && o.Directory == want.Directory && o.Account == c.account.URL && want.sameNames(o.Wanted) &&
		o.Profile == want.Profile && keyTypeOf(o.key.Public()) == want.Key {
		got, err := c.core.Orders.Get(o.URL)
		if err == nil && got.Status != lego.StatusInvalid {
			c.progress("taking up the order of %s", instant(o.Made))
			o.Order = got.Order
			return o, nil
		}
		if err != nil && c.http.unheard(o.URL) { // it may hold a certificate
			return nil, c.explain(err, "asking for the order of an earlier run", "")
		}
	}
	return c.begin(l, want, want.Names)
}

// begin makes the key, keeps it, and orders a certificate for names, which are
// those that are wanted or the part of them that can be proved.
func (c *Client) begin(l *Lineage, want Request, names []string) (*order, error) {
	o := &order{Directory: want.Directory, Account: c.account.URL, Names: names, Wanted: want.Names, Profile: want.Profile,
		Made: time.Now().UTC(), lineage: l, dry: c.o.DryRun}
	var err error
	if o.key, err = l.nextKey(want); err != nil {
		return nil, fmt.Errorf("making the key: %w", err)
	}
	c.progress("ordering a certificate for %s", strings.Join(names, ", "))
	made, err := c.newOrder(want, names, l)
	if isProblem(err, "accountDoesNotExist") { // as after a reset of a staging CA
		if err = c.signAs(""); err == nil {
			if err = c.register(); err == nil {
				o.Account = c.account.URL
				made, err = c.newOrder(want, names, l)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	o.URL, o.Order = made.Location, made.Order
	return o, o.keep()
}

// newOrder orders, as a replacement of the live certificate if the CA issued that
// (RFC 9773, section 5), which exempts from rate limits. A CA that does not like
// to replace it is asked once more without.
func (c *Client) newOrder(want Request, names []string, l *Lineage) (lego.ExtendedOrder, error) {
	options := &api.OrderOptions{Profile: want.Profile}
	if l.Leaf != nil && l.Directory == want.Directory && !c.o.DryRun {
		options.ReplacesCertID, _ = certificate.MakeARICertID(l.Leaf) // without one the order is an ordinary one
	}
	made, err := c.core.Orders.NewWithOptions(names, options)
	err = c.explain(err, "ordering", "")
	var problem *Problem
	if options.ReplacesCertID != "" && errors.As(err, &problem) && problem.Type != "rateLimited" && problem.Type != "accountDoesNotExist" {
		options.ReplacesCertID = ""
		made, err = c.core.Orders.NewWithOptions(names, options)
		err = c.explain(err, "ordering", "")
	}
	return made, err
}

// nextKey is the key to be certified next: the prepared one or the live one if
// that is wanted and fits, else a new one.
func (l *Lineage) nextKey(want Request) (crypto.Signer, error) {
	if want.PreparedKey {
		dir, err := l.state.open(renewalName, l.Name)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return readKey(dir, nextFile)
	}
	if want.ReuseKey && l.Leaf != nil && keyTypeOf(l.Leaf.PublicKey) == want.Key {
		return l.key()
	}
	return newKey(want.Key)
}

// keep writes the key, and then the order: a run that finds the order finds its
// key.
func (o *order) keep() error {
	if o.dry {
		return nil
	}
	dir, err := o.lineage.state.make(renewalName, o.lineage.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := removeAll(dir, orderFile); err != nil { // of an earlier key
		return err
	}
	data, err := encodeKey(o.key)
	if err != nil {
		return err
	}
	if err := dir.Replace(keyFile, data, 0o600); err != nil {
		return err
	}
	return writeJSON(dir, orderFile, o)
}

// cameTo writes down which leaf is about to be live.
func (o *order) cameTo(leaf *x509.Certificate) error {
	dir, err := o.lineage.state.open(renewalName, o.lineage.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	o.Leaf = fingerprint(leaf)
	return writeJSON(dir, orderFile, o)
}

// unfinished reads the order that an earlier run left, nil if there is none. What
// cannot be read of it is none either: a new order costs little.
func (l *Lineage) unfinished() (*order, error) {
	dir, err := l.state.open(renewalName, l.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	o := &order{lineage: l}
	if err := readJSON(dir, orderFile, o); err != nil {
		return nil, nil
	}
	if o.key, err = readKey(dir, keyFile); err != nil {
		return nil, nil
	}
	return o, nil
}

func readKey(dir *disk.Dir, name string) (crypto.Signer, error) {
	data, err := dir.Read(name)
	if err != nil {
		return nil, err
	}
	return decodeKey(data)
}

// forget removes the order, and then its key.
func (o *order) forget() error {
	if o.dry {
		return nil
	}
	dir, err := o.lineage.state.open(renewalName, o.lineage.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := removeAll(dir, orderFile, keyFile); err != nil {
		return err
	}
	_, _, err = o.lineage.PreparedKey() // which removes it if it is live now
	return err
}

// dead is an error after which the CA will not fulfil the order, though it may
// not say so of the order itself.
type dead struct{ error }

func (d dead) Unwrap() error { return d.error }

// forgetIfDead forgets an order that would only fail once more.
func (o *order) forgetIfDead(err error) error {
	var d dead
	if o.Status != lego.StatusInvalid && !errors.As(err, &d) {
		return nil
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
			if gerr != nil || now.Status != lego.StatusProcessing && now.Status != lego.StatusValid {
				o.Status = now.Status
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
		if wait.next(c.ctx, c.http.until(o.URL)) != nil {
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
	if !owns(o.key, chain[0]) {
		return nil, errors.Join(errors.New("the CA sent the certificate of another key"), o.forget())
	}
	if lacks := missing(chain[0], o.Names); len(lacks) > 0 {
		return nil, errors.Join(fmt.Errorf("the CA left %s out of the certificate", strings.Join(lacks, ", ")), o.forget())
	}
	return chain, nil
}

func (c *Client) chains(url string, all bool) ([][]*x509.Certificate, error) {
	raw := map[string]*lego.RawCertificate{}
	var err error
	if all {
		raw, err = c.core.Certificates.GetAll(url, true)
	} else {
		raw[url] = &lego.RawCertificate{}
		raw[url].Cert, raw[url].Issuer, err = c.core.Certificates.Get(url, true)
	}
	if err != nil {
		return nil, c.explain(err, "downloading the certificate", "")
	}
	var chains [][]*x509.Certificate
	for at, r := range raw {
		chain, err := parseChain(r.Cert)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate that the CA sent: %w", err)
		}
		if at == url {
			chains = slices.Insert(chains, 0, chain)
		} else {
			chains = append(chains, chain)
		}
	}
	return chains, nil
}

// pace spaces questions: the first at once or nearly, then ever less often, and
// never before the CA wants the next one.
type pace struct{ last time.Duration }

const (
	firstAsk   = 250 * time.Millisecond
	longestAsk = 5 * time.Second
)

func (p *pace) next(ctx context.Context, notBefore time.Time) error {
	first := p.last == 0
	p.last = min(max(firstAsk, 2*p.last), longestAsk)
	wait := p.last
	if !first {
		wait = max(wait, min(time.Until(notBefore), time.Minute))
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}
