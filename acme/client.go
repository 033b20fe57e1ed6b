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
	"sync/atomic"
	"time"

	"github.com/go-acme/lego/v4/acme/api"
	legolog "github.com/go-acme/lego/v4/log"
)

// Client talks to one CA during one run. Its methods must not be called
// concurrently.
type Client struct {
	ctx     context.Context // of the run; lego's calls take none
	o       Options
	state   *State
	http    *transport
	look    time.Duration // until a CA that left a challenge pending is asked again; doubled each time
	core    *api.Core     // nil until the directory has been read
	account Account
	created bool          // by this Client
	key     crypto.Signer // of the account, which may not exist yet

	telling sync.Mutex
	tell    func(text string) // may be nil
}

// NewClient returns a Client for the CA of o.Directory. It does not connect yet.
// Every request ends when ctx does.
func NewClient(ctx context.Context, state *State, o Options) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	logTo(o.Log)
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}
	return &Client{ctx: ctx, o: o, state: state, look: firstLook, http: &transport{ctx: ctx, agent: o.UserAgent, base: base, pause: firstPause, after: map[string]time.Time{}, faults: map[string]*fault{}}}
}

// OnProgress has tell called when a step begins, never concurrently.
func (c *Client) OnProgress(tell func(text string)) { c.tell = tell }

// Created reports whether the account was created during this run.
func (c *Client) Created() bool { return c.created }

// Close closes idle connections.
func (c *Client) Close() { c.http.base.(*http.Transport).CloseIdleConnections() }

// connect reads the CA's directory, once. Requests are signed with the key of the
// stored account, or with a new key that is neither stored nor known to the CA.
func (c *Client) connect() (err error) {
	if c.core != nil {
		return nil
	}
	if c.account, c.key, err = c.state.account(c.o.Directory); err != nil && !errors.Is(err, ErrNoAccount) {
		return local{err}
	}
	if c.key == nil {
		if c.key, err = newKey(EC256); err != nil {
			return fmt.Errorf("generating the account key: %w", err)
		}
	}
	return c.signAs(c.account.URL)
}

func (c *Client) signAs(account string) error {
	core, err := api.New(&http.Client{Transport: c.http}, c.o.UserAgent, c.o.Directory, account, c.key)
	if err != nil {
		return c.explain(err, "fetching the CA's directory", "")
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

// logTo sends lego's log, of which there is one a process, to the log of the latest
// Client.
func logTo(log *slog.Logger) {
	latestLog.Store(log)
	installLog()
}

var (
	latestLog  atomic.Pointer[slog.Logger]
	installLog = sync.OnceFunc(func() { legolog.Logger = logger{} })
)

// logger receives lego's log. The parts of lego used here never call Fatal.
type logger struct{}

func (logger) line(text string) { latestLog.Load().Debug("lego", "text", text) }

func (l logger) Fatal(args ...any)                 { l.line(fmt.Sprint(args...)) }
func (l logger) Fatalln(args ...any)               { l.line(fmt.Sprint(args...)) }
func (l logger) Fatalf(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }
func (l logger) Print(args ...any)                 { l.line(fmt.Sprint(args...)) }
func (l logger) Println(args ...any)               { l.line(fmt.Sprint(args...)) }
func (l logger) Printf(format string, args ...any) { l.line(fmt.Sprintf(format, args...)) }
