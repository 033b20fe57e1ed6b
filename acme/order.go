package acme

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
)

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
		if err = c.explain(err, "asking for the order of an earlier run", ""); err != nil && !gone(err) && ahead(o.Made.Add(longestOrder), time.Now(), longestOrder) {
			return nil, err // the CA may have issued: a new order would cost a second certificate
		}
	}
	return c.begin(l, want, want.Names)
}

const longestOrder = 7 * day // that a CA is given to answer for one; Let's Encrypt forgets orders after a week

// gone tells whether the CA says that it has no such order, or not for us.
func gone(err error) bool {
	var problem *Problem
	return errors.As(err, &problem) && problem.Status >= 400 && problem.Status < 500 &&
		problem.Status != http.StatusTooManyRequests && problem.Type != "rateLimited" && problem.Type != "badNonce"
}

// begin makes the key, keeps it, and orders names. They are what is wanted, or
// a part of it.
func (c *Client) begin(l *Lineage, want Request, names []string) (*order, error) {
	o := &order{Directory: want.Directory, Account: c.account.URL, Names: names, Wanted: want.Names, Profile: want.Profile,
		Made: time.Now().UTC(), lineage: l, dry: c.o.DryRun}
	var err error
	if o.key, err = l.nextKey(want); err != nil {
		return nil, fmt.Errorf("making the key: %w", err)
	}
	if err := o.keepKey(); err != nil {
		return nil, local{err}
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
	if err == nil && made.Location == "" { // RFC 8555, section 7.4
		err = errors.New("ordering: the CA did not name the order (no Location)")
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

// keepKey writes the key, in the place of an earlier order's. That comes before
// the order is made, so that a full disk costs none.
func (o *order) keepKey() error {
	return o.kept(o.lineage.state.make, func(dir *disk.Dir) error {
		if err := removeAll(dir, orderFile); err != nil {
			return err
		}
		data, err := pki.EncodeKey(o.key)
		if err != nil {
			return err
		}
		return dir.Replace(keyFile, data, 0o600)
	})
}

// kept changes what is kept of the order, in renewal/NAME; of a dry run's, nothing
// is.
func (o *order) kept(open func(...string) (*disk.Dir, error), change func(*disk.Dir) error) error {
	if o.dry {
		return nil
	}
	dir, err := open(renewalName, o.lineage.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return change(dir)
}

// keep writes the order. A run that finds it finds its key.
func (o *order) keep() error {
	return o.kept(o.lineage.state.open, func(dir *disk.Dir) error { return writeJSON(dir, orderFile, o) })
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
	if o.key, err = readKey(dir, keyFile); err != nil || !strings.HasPrefix(o.URL, "https://") {
		return nil, nil
	}
	return o, nil
}

func readKey(dir *disk.Dir, name string) (crypto.Signer, error) {
	data, err := dir.Read(name)
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(data)
	return key, dir.Wrap(name, err)
}

// forget removes the order, and then its key, be it the prepared one too.
func (o *order) forget() error {
	return o.kept(o.lineage.state.open, func(dir *disk.Dir) error {
		if err := removeAll(dir, orderFile, keyFile); err != nil {
			return err
		}
		next, err := readKey(dir, nextFile)
		if err == nil && o.lineage.Leaf != nil && pki.Owns(next.Public(), o.lineage.Leaf) {
			return removeAll(dir, nextFile)
		}
		return nil
	})
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
