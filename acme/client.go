package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/acme/api"
	legolog "github.com/go-acme/lego/v4/log"
)

// Client talks to one CA, for the time of one run. Its methods are to be called
// one after the other, and a process makes one Client after the other: lego has
// one log for all.
type Client struct {
	ctx     context.Context // of the run; lego's calls take none
	o       Options
	state   *State
	http    *transport
	core    *api.Core // nil until the directory was read
	account Account
	key     crypto.Signer // of the account, perhaps of one to be made

	telling sync.Mutex
	tell    func(text string) // nil: nobody listens
}

// NewClient prepares to talk to the CA of o.Directory, and connects to nothing
// yet. Every request ends with ctx at the latest.
func NewClient(ctx context.Context, state *State, o Options) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	legolog.Logger = logger{o.Log}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}
	return &Client{ctx: ctx, o: o, state: state, http: &transport{ctx: ctx, agent: o.UserAgent, base: base, pause: firstPause, after: map[string]time.Time{}}}
}

// OnProgress lets tell hear of each step as it begins; of several goroutines, one
// at a time.
func (c *Client) OnProgress(tell func(text string)) { c.tell = tell }

// Close ends the connections.
func (c *Client) Close() { c.http.base.(*http.Transport).CloseIdleConnections() }

// connect reads the CA's directory, once, and signs with the key of the account
// that is kept for it, or with a new one that nobody has heard of yet.
func (c *Client) connect() (err error) {
	if c.core != nil {
		return nil
	}
	if c.account, c.key, err = c.state.account(c.o.Directory); err != nil && !errors.Is(err, ErrNoAccount) {
		return local{err}
	}
	if c.key == nil {
		if c.key, err = newKey(EC256); err != nil {
			return fmt.Errorf("making the account's key: %w", err)
		}
	}
	return c.signAs(c.account.URL)
}

func (c *Client) signAs(account string) error {
	core, err := api.New(&http.Client{Transport: c.http}, c.o.UserAgent, c.o.Directory, account, c.key)
	if err != nil {
		return c.explain(err, "asking the CA for its directory", "")
	}
	c.core = core
	return nil
}

func (c *Client) cause() error { return context.Cause(c.ctx) }

func (c *Client) progress(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.o.Log.Debug("step begins", "step", text)
	if c.tell != nil {
		c.telling.Lock()
		defer c.telling.Unlock()
		c.tell(text)
	}
}

// logger passes lego's own log on. lego calls Fatal nowhere in what is used here.
type logger struct{ to *slog.Logger }

func (l logger) line(text string) { l.to.Debug("lego", "text", text) }

func (l logger) Fatal(args ...any)                 { l.line(fmt.Sprint(args...)) }
func (l logger) Fatalln(args ...any)               { l.line(fmt.Sprint(args...)) }
func (l logger) Fatalf(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }
func (l logger) Print(args ...any)                 { l.line(fmt.Sprint(args...)) }
func (l logger) Println(args ...any)               { l.line(fmt.Sprint(args...)) }
func (l logger) Printf(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }
