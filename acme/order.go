package acme

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// order is an order in progress. It is stored in renewal/NAME/order.json with its
// key beside it, from before the CA is asked to sign that key until the certificate
// is live.
type order struct {
	URL       string    `json:"url"`
	Directory string    `json:"directory"`
	Account   string    `json:"account"`
	Names     []string  `json:"names"`  // that were ordered
	Wanted    []string  `json:"wanted"` // that were requested
	Profile   string    `json:"profile,omitempty"`
	Made      time.Time `json:"made"`
	Dropped   string    `json:"dropped,omitempty"` // why names were dropped
	Leaf      string    `json:"leaf,omitempty"`    // SHA-256 of the certificate about to go live

	lego.Order `json:"-"`
	key        crypto.Signer
	lineage    *Lineage
	dry        bool
}

const orderFile = "order.json"

// order resumes the order of an earlier run if it is for the same request and the
// CA has not marked it invalid. Otherwise it places a new one.
func (c *Client) order(l *Lineage, want Request) (*order, error) {
	o, err := l.unfinished()
	if err != nil {
		return nil, err
	}
	if o != nil && !c.o.DryRun && o.Directory == want.Directory && o.Account == c.account.URL && want.sameNames(o.Wanted) &&
		o.Profile == want.Profile && keyTypeOf(o.key.Public()) == want.Key {
		got, err := c.core.Orders.Get(o.URL)
		if err == nil && got.Status != lego.StatusInvalid {
			c.progress("resuming the order of %s", say.Time(o.Made))
			o.Order = got.Order
			return o, nil
		}
		if err = c.explain(err, "fetching the order of an earlier run", ""); err != nil && !gone(err) && ahead(o.Made.Add(longestOrder), time.Now(), longestOrder) {
			return nil, err // the CA may have issued: a new order would cost a second certificate
		}
	}
	return c.begin(l, want, want.Names)
}

const longestOrder = 7 * day // after which an order is given up that the CA does not answer for; Let's Encrypt keeps orders for a week

// gone reports whether the CA says that it has no such order, or none of ours.
func gone(err error) bool {
	var problem *Problem
	return errors.As(err, &problem) && problem.Status >= 400 && problem.Status < 500 &&
		problem.Status != http.StatusTooManyRequests && problem.Type != "rateLimited" && problem.Type != "badNonce"
}

// begin generates the key, stores it, and orders names, which are some or all of
// those wanted.
func (c *Client) begin(l *Lineage, want Request, names []string) (*order, error) {
	o := &order{Directory: want.Directory, Account: c.account.URL, Names: names, Wanted: want.Names, Profile: want.Profile,
		Made: time.Now().UTC(), lineage: l, dry: c.o.DryRun}
	var err error
	if o.key, err = l.nextKey(want); err != nil {
		return nil, fmt.Errorf("generating the key: %w", err)
	}
	if err := o.keepKey(); err != nil {
		return nil, local{err}
	}
	c.progress("ordering a certificate for %s", strings.Join(names, ", "))
	made, err := c.newOrder(want, names, l)
	if isProblem(err, "accountDoesNotExist") { // for example after a reset of a staging CA
		if err = c.signAs(""); err == nil {
			if err = c.register(); err == nil {
				o.Account = c.account.URL
				made, err = c.newOrder(want, names, l)
			}
		}
	}
	if err == nil {
		err = location("ordering", made.Location) // RFC 8555, section 7.4
	}
	if err != nil {
		return nil, err
	}
	o.URL, o.Order = made.Location, made.Order
	return o, o.keep()
}

// noProfile is the error of a profile that the CA does not offer: some would ignore
// it.
func noProfile(profile string, offered map[string]string) error {
	if len(offered) == 0 {
		return say.Hint(local{fmt.Errorf("ordering: the CA offers no profiles, and --profile asks for %s", say.Foreign(profile))}, "run again without --profile")
	}
	names := say.Plain(strings.Join(slices.Sorted(maps.Keys(offered)), ", "))
	return say.Hint(local{fmt.Errorf("ordering: the CA does not offer the profile %s", say.Foreign(profile))}, "it offers %s", names)
}

const maxURL = 1000 // bytes, of a URL that a CA sends and that is stored

// location refuses a Location header that is missing or too long to be stored.
func location(doing, url string) error {
	switch {
	case url == "":
		return fmt.Errorf("%s: the CA sent no Location header", doing)
	case len(url) > maxURL:
		return fmt.Errorf("%s: the CA sent a Location header of %d bytes", doing, len(url))
	}
	return nil
}

// newOrder places the order, as a replacement of the live certificate if this CA
// issued that (RFC 9773, section 5), which exempts it from rate limits. If the CA
// refuses, it is asked once more without the replacement.
func (c *Client) newOrder(want Request, names []string, l *Lineage) (lego.ExtendedOrder, error) {
	offered := c.core.GetDirectory().Meta.Profiles
	if _, ok := offered[want.Profile]; want.Profile != "" && !ok {
		return lego.ExtendedOrder{}, noProfile(want.Profile, offered)
	}
	options := &api.OrderOptions{Profile: want.Profile}
	if l.Leaf != nil && l.Directory == want.Directory && !c.o.DryRun {
		options.ReplacesCertID, _ = certificate.MakeARICertID(l.Leaf) // without an identifier it is an ordinary order
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

// nextKey returns the key for the next certificate: the prepared one or the live one
// if that is wanted and fits, otherwise a new one.
func (l *Lineage) nextKey(want Request) (crypto.Signer, error) {
	if want.PreparedKey {
		return l.readPrepared()
	}
	if want.ReuseKey && l.Leaf != nil && keyTypeOf(l.Leaf.PublicKey) == want.Key {
		return l.key()
	}
	return newKey(want.Key)
}

// keepKey writes the key, replacing that of an earlier order. It comes before the
// order is placed, so that a full disk costs no order.
func (o *order) keepKey() error {
	return o.stored(o.lineage.state.make, func(dir *disk.Dir) error {
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

// stored changes what is stored of the order. A dry run stores nothing.
func (o *order) stored(open func(...string) (*disk.Dir, error), change func(*disk.Dir) error) error {
	if o.dry {
		return nil
	}
	return o.lineage.inRenewal(open, change)
}

// keep writes the order. Its key is on disk already.
func (o *order) keep() error {
	return o.stored(o.lineage.state.open, func(dir *disk.Dir) error { return writeJSON(dir, orderFile, o) })
}

// unfinished reads the order that an earlier run left, nil if there is none. An
// unreadable order counts as none, since a new one costs little.
func (l *Lineage) unfinished() (*order, error) {
	o, usable := &order{lineage: l}, false
	err := l.inRenewal(l.state.open, func(dir *disk.Dir) error {
		err := readJSON(dir, orderFile, o)
		if err == nil {
			o.key, err = readKey(dir, keyFile)
		}
		usable = err == nil && strings.HasPrefix(o.URL, "https://")
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case !usable:
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

// forget removes the order, then its key, including a prepared key that is now live.
func (o *order) forget() error {
	return o.stored(o.lineage.state.open, func(dir *disk.Dir) error {
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

// dead is an error after which the CA will not fulfill the order, even if the order
// itself does not say so.
type dead struct{ error }

func (d dead) Unwrap() error { return d.error }

// forgetIfDead removes an order that would only fail again.
func (o *order) forgetIfDead(err error) error {
	var d dead
	if o.Status != lego.StatusInvalid && !errors.As(err, &d) {
		return nil
	}
	return o.forget()
}
