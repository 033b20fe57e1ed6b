package survey

import (
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/probe"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

// Options say where to look.
type Options struct {
	Engine reload.Engine
	Fronts reload.Selector
	// Recall returns what is known of a front that the engine does not know.
	Recall func() mailu.Facts
	// Override replaces what a front says of itself with what the administrator
	// configured. It is not called if there are several fronts.
	Override  func(*mailu.Facts) error
	Lineages  []string          // to compare besides those that were deployed
	StateDir  string            // of this program
	Certbot   string            // certbot's directory
	Resolver  *resolve.Resolver // nil: the DNS is not asked
	Roots     *x509.CertPool    // to check chains with
	RootsFile string            // that Roots are from; "" for the system's
	RootsErr  error             // why Roots is nil
	Outside   Outside           // what else to look at: names, as the world sees them
}

// The engine's share of the time, so that enough is left for the ports.
const (
	engineLimit = 5 * time.Second
	clockLimit  = 3 * time.Second
)

// Look sees what there is to see until ctx ends. What cannot be seen is part of
// the answer; the only error is one of Override, a mistake in the configuration.
func Look(ctx context.Context, o Options) (health.Look, error) {
	l := health.Look{Roots: o.Roots, RootsFile: o.RootsFile, RootsErr: o.RootsErr}
	var wg sync.WaitGroup
	defer wg.Wait()
	var outside []health.Front
	wg.Go(func() { outside = o.Outside.Look(ctx) })
	if o.Engine == nil {
		wg.Wait()
		l.Fronts = outside
		o.compareDANE(ctx, l.Fronts)
		l.At = time.Now()
		return l, nil
	}
	wg.Go(func() { l.Schedule, l.Setup = Host{}.Schedule(), Host{}.Setup(Program()) })
	found, asked := o.fronts(ctx, &l)
	if !l.EngineDown { // only now: the Docker client negotiates its version with the first answer
		wg.Go(func() { l.Engine = engineClock(ctx, o.Engine) })
	}
	if len(found) == 1 {
		if err := o.Override(&found[0].facts); err != nil && !errors.Is(err, mailu.ErrUnsuitable) {
			return health.Look{}, err
		}
	}
	l.Fronts = make([]health.Front, len(found))
	for i, f := range found {
		wg.Go(func() {
			l.Fronts[i] = o.lookAt(ctx, f, asked, l.EngineDown)
			l.Fronts[i].Asked = asked
		})
	}
	wg.Wait()
	for _, f := range l.Fronts {
		if f.Planned != nil {
			f.Planned.Timer = l.Schedule.Renew.By
		}
	}
	compare(outside, l.Fronts)
	l.Fronts = append(l.Fronts, outside...)
	o.compareDANE(ctx, l.Fronts)
	l.At = time.Now()
	return l, nil
}

// fronts are those that the engine finds, or else one as last seen, and the hosts
// where that one's ports are probed.
func (o Options) fronts(ctx context.Context, l *health.Look) (found []subject, asked []string) {
	limit := engineLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)*2/5)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the time is up"))
	defer cancel()
	fronts, err := reload.Survey(ctx, o.Engine, o.Fronts)
	if err == nil {
		for _, f := range fronts {
			found = append(found, subject{f.Facts, f})
		}
		return found, nil
	}
	l.NoFront, l.EngineDown = err, errors.Is(err, reload.ErrEngine)
	facts := o.Recall()
	for _, name := range facts.Hostnames[:min(1, len(facts.Hostnames))] {
		asked = append(asked, mailu.CanonicalName(name))
	}
	asked = append(asked, "127.0.0.1")
	return []subject{{facts: facts}}, asked
}

// subject is a front that is looked at.
type subject struct {
	facts mailu.Facts
	front *reload.Front // nil if no engine tells of one
}

// target is what is asked of it: at hosts, unless an engine knows better.
func (s subject) target(hosts []string) probe.Target {
	t := probe.New(s.facts, hosts...)
	if s.front != nil {
		at := s.front.Target()
		t.Hosts, t.Published = at.Hosts, at.Published
	}
	return t
}

func engineClock(ctx context.Context, e reload.Engine) health.Clock {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	before := time.Now()
	at, err := reload.Now(ctx, e)
	if err != nil {
		return health.Clock{}
	}
	return health.Clock{Seen: true, Ahead: at.Sub(before.Add(time.Since(before) / 2))}
}

// lookAt sees one front: its ports, its inside and its directory, all at the
// same time. If the engine is unreachable the ports are probed anyway, at hosts; if
// it says that nothing runs, they are not.
func (o Options) lookAt(ctx context.Context, s subject, hosts []string, engineDown bool) health.Front {
	f := health.Front{Facts: s.facts}
	if s.front != nil {
		f.State, f.Health, f.Unsuitable = s.front.State, s.front.Health, s.front.Suitable()
		f.Leftover = s.front.OldChallenge()
	}
	var wg sync.WaitGroup
	if f.Runs() || engineDown {
		wg.Go(func() { f.Endpoints = s.target(hosts).Look(ctx) })
	}
	if f.Runs() {
		wg.Go(func() { f.Inside, f.InsideErr = inside(ctx, s.front) })
	}
	wg.Go(func() {
		if f.CertsDir != "" {
			f.Directory = Directory(f.Facts)
			o.remember(ctx, &f)
		}
		f.Lineages = lineages(ctx, o.Lineages, f.Memory, f.Hostnames)
		f.Planned = planned(&f, o.StateDir)
		if f.Directory.Bare() {
			f.Available = available(ctx, o.Certbot, f.Hostnames)
		}
	})
	wg.Wait()
	return f
}

func inside(ctx context.Context, from *reload.Front) (*mailu.Inside, error) {
	in, err := from.Inside(ctx)
	if err != nil {
		return nil, err
	}
	return &in, nil
}

// remember reads what deploys recorded, whether one is under way, and what other hosts
// say. Opening a store opens no key.
func (o Options) remember(ctx context.Context, f *health.Front) {
	store, err := hook.OpenStore(hook.Place{
		CertsDir: f.CertsDir, CertName: f.CertName, KeyName: f.KeyName, StateDir: o.StateDir, CertbotDir: o.Certbot, Node: reload.NodeName(ctx, o.Engine),
	})
	if err != nil {
		f.MemoryErr = err
		return
	}
	defer store.Close()
	f.Nodes = store.Nodes()
	f.Memory, f.MemoryErr = store.State()
	if f.MemoryErr == nil && f.Memory.Pending != nil {
		if f.Locked = store.Locked(); !f.Locked { // it may have ended since
			f.Memory, f.MemoryErr = store.State()
		}
	}
}

// planned is when renew will get the next certificate of a front by itself, nil
// if it never got one, or another lineage has taken its place.
func planned(f *health.Front, stateDir string) *health.Renewal {
	names := acme.CanonicalNames(f.Hostnames)
	if len(names) == 0 {
		return nil
	}
	state, err := acme.OpenExisting(stateDir)
	if err != nil {
		return nil
	}
	defer state.Close()
	l, err := state.Lineage(acme.Request{Names: names}.LineageName())
	if err != nil || l.Leaf == nil {
		return nil
	}
	if newest := f.Newest(); newest != nil && newest.Chain[0].NotBefore.After(l.Leaf.NotBefore) {
		return nil
	}
	return &health.Renewal{From: l.Planned(time.Now()), By: "mailu-hook renew", Lineage: l.Live(), Ran: l.Ran, Failures: l.Failures, Failure: l.Failure}
}

// compareDANE compares the TLSA records of each front's hosts with the chain that
// its port 25 serves. It comes last, because it needs that chain. A port that
// serves none is a finding of its own.
func (o Options) compareDANE(ctx context.Context, fronts []health.Front) {
	if o.Resolver == nil {
		return
	}
	var wg sync.WaitGroup
	for i := range fronts {
		f := &fronts[i]
		if chain := f.ShownAt(25); chain != nil {
			wg.Go(func() { f.DANE = tlsa.LookUp(ctx, o.Resolver, tlsa.MailHosts(f.Hostnames), chain) })
		}
	}
	wg.Wait()
}
