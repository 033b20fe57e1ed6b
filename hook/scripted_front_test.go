package hook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
)

// scripted is a front that loads files. At a reload each of its ports reads
// the pair from the certs directory, as nginx and dovecot do, and shows its
// leaf from then on; a pair that no server can load leaves it as it was. In
// this front nothing changes by itself, so Await waits for the end of its time
// as soon as a port does not show what it should.
type scripted struct {
	dir   string
	ports []*scriptedPort

	refuses     string    // leaf that nginx does not load
	objects     string    // leaf that dovecot says it cannot load, when asked
	unreachable error     // Reload and Explain end with it; the ports answer anyway
	diesAt      Step      // at Reload the container stops
	down        string    // the front of that name does not run
	deadOnce    bool      // it has
	unknown     error     // nobody can say whether the container runs
	switched    time.Time // as Settle was told last
	unsettled   error     // Settle ends with it
	settles     func()    // what else happens at the first Settle

	asked atomic.Int32 // Looks under way
	held  atomic.Int32 // Holds that were not released
	kept  string       // what was on disk at the first Hold, "" if there was none
	mu    sync.Mutex
	calls []Step // what was asked of it: Look, Reload, Settle; and "explain"
}

// scriptedPort is a port and how it follows a reload.
type scriptedPort struct {
	mailu.Port
	shows   string                   // leaf; "" when it does not answer
	follows func(leaf string) string // what a reload with leaf makes it show; nil: leaf
	hangs   bool                     // it accepts connections and says nothing
}

const explain Step = "explain"

var errSilent = errors.New("connection refused")

func (f *scripted) called(what Step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
	if what == f.diesAt {
		f.deadOnce = true
	}
}

func (f *scripted) Calls() []Step {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Step(nil), f.calls...)
}

// leaf is what a server would load now, "" if it could load nothing.
func (f *scripted) leaf() string {
	pair, err := tls.LoadX509KeyPair(filepath.Join(f.dir, "cert.pem"), filepath.Join(f.dir, "key.pem"))
	if err != nil {
		return ""
	}
	return pki.Fingerprint(pair.Leaf)
}

func (f *scripted) answers() []mailu.Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	var endpoints []mailu.Endpoint
	for _, p := range f.ports {
		e := mailu.Endpoint{Port: p.Port, Leaf: p.shows}
		if f.deadOnce {
			e.Leaf = ""
		}
		if e.Leaf == "" {
			e.Err = errSilent
			if p.hangs {
				e.Err = fmt.Errorf("connected, but %w", mailu.ErrSilent)
			}
		}
		endpoints = append(endpoints, e)
	}
	return endpoints
}

func (f *scripted) Look(context.Context) []mailu.Endpoint {
	f.asked.Add(1)
	defer f.asked.Add(-1)
	f.called(StepLook)
	time.Sleep(time.Millisecond)
	return f.answers()
}

func (f *scripted) Await(ctx context.Context, done func(mailu.Endpoint) bool) []mailu.Endpoint {
	endpoints := f.answers()
	if slices.ContainsFunc(endpoints, func(e mailu.Endpoint) bool { return !done(e) }) {
		<-ctx.Done()
	}
	return endpoints
}

func (f *scripted) PauseWatcher() (release func()) {
	f.held.Add(1)
	f.kept = cmp.Or(f.kept, f.leaf())
	return func() { f.held.Add(-1) }
}

func (f *scripted) Reload(ctx context.Context, _ func(mailu.Endpoint) bool) error {
	f.called(StepReload)
	if err := f.reached(ctx); err != nil {
		return err
	}
	leaf := f.leaf()
	if leaf == "" || leaf == f.refuses {
		return &mailu.Refusal{Err: errors.New(`nginx: "[emerg] cannot load certificate"`)}
	}
	time.Sleep(100 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.ports {
		switch {
		case leaf == "":
		case p.follows != nil:
			p.shows = p.follows(leaf)
		default:
			p.shows = leaf
		}
	}
	return nil
}

func (f *scripted) Explain(ctx context.Context) error {
	f.called(explain)
	if err := f.reached(ctx); err != nil {
		return err
	}
	if f.leaf() == f.objects {
		return &mailu.Refusal{Err: errors.New(`dovecot: "doveconf: Fatal: ssl_key"`)}
	}
	return nil
}

func (f *scripted) Settle(ctx context.Context, switched time.Time) error {
	f.called(StepSettle)
	f.switched = switched
	if f.settles != nil {
		f.settles()
		f.settles = nil
	}
	return errors.Join(f.unsettled, ctx.Err())
}

func (f *scripted) Running(_ context.Context, of string) (bool, error) {
	return !f.deadOnce && (of == "" || f.down != of), f.unknown
}

func (f *scripted) reached(ctx context.Context) error {
	if f.deadOnce {
		return errors.New("the container is not running")
	}
	return errors.Join(f.unreachable, ctx.Err())
}
