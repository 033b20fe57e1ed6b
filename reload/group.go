package reload

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"mailu-hook/internal/mailu"
)

// Group is the fronts that mount one certs directory, sorted by name: replicas of
// a service, or the fronts of several projects. A switch reaches all of them at
// once, so they are paused, tested, reloaded, asked and settled as one. It
// implements hook.Front. A Group that Find returned is never empty.
type Group []*Front

// named makes each port say whose it is, where there are several fronts.
func (g Group) named() Group {
	if len(g) < 2 {
		return g
	}
	for _, f := range g {
		f.Ports = slices.Clone(f.Ports)
		for i := range f.Ports {
			f.Ports[i].Of = f.Container
		}
	}
	return g
}

// Facts are those of the first front, with the ports and the hostnames of all.
func (g Group) Facts() mailu.Facts {
	facts := g[0].Facts
	facts.Hostnames, facts.Ports = slices.Clone(facts.Hostnames), slices.Clone(facts.Ports)
	for _, f := range g[1:] {
		for _, name := range f.Hostnames {
			if !slices.Contains(facts.Hostnames, name) {
				facts.Hostnames = append(facts.Hostnames, name)
			}
		}
		facts.Ports = append(facts.Ports, f.Ports...)
	}
	return facts
}

// Active are the fronts that run.
func (g Group) Active() (active Group) {
	for _, f := range g {
		if f.State == "running" {
			active = append(active, f)
		}
	}
	return active
}

// Idle returns a front that does not run, nil if all run. One that is paused or
// keeps restarting comes before one that is stopped.
func (g Group) Idle() *Front {
	for _, f := range g {
		if f.State != "running" && !f.stopped() {
			return f
		}
	}
	for _, f := range g {
		if f.stopped() {
			return f
		}
	}
	return nil
}

// each calls do for all fronts at the same time, and joins the errors: a
// *mailu.Refusal of one is one of all.
func (g Group) each(do func(*Front) error) error {
	errs := make([]error, len(g))
	var wg sync.WaitGroup
	for i, f := range g {
		wg.Go(func() { errs[i] = do(f) })
	}
	wg.Wait()
	if len(g) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func (g Group) endpoints(ask func(*Front) []mailu.Endpoint) []mailu.Endpoint {
	answers := make([][]mailu.Endpoint, len(g))
	var wg sync.WaitGroup
	for i, f := range g {
		wg.Go(func() { answers[i] = ask(f) })
	}
	wg.Wait()
	return slices.Concat(answers...)
}

// Look asks every port of all fronts once, as Front.Look does.
func (g Group) Look(ctx context.Context) []mailu.Endpoint {
	return g.endpoints(func(f *Front) []mailu.Endpoint { return f.Look(ctx) })
}

// Await asks every port of all fronts, as Front.Await does.
func (g Group) Await(ctx context.Context, done func(mailu.Endpoint) bool) []mailu.Endpoint {
	return g.endpoints(func(f *Front) []mailu.Endpoint { return f.Await(ctx, done) })
}

// PauseWatcher pauses the watchers of all fronts.
func (g Group) PauseWatcher() (release func()) {
	var releases []func()
	for _, f := range g {
		releases = append(releases, f.PauseWatcher())
	}
	return func() {
		for _, release := range releases {
			release()
		}
	}
}

// Explain asks the dovecot of each front, as Front.Explain does.
func (g Group) Explain(ctx context.Context) error {
	return g.each(func(f *Front) error { return f.Explain(ctx) })
}

// Reload tells the daemons of all fronts, as Front.Reload does.
func (g Group) Reload(ctx context.Context, loaded func(mailu.Endpoint) bool) error {
	return g.each(func(f *Front) error { return f.Reload(ctx, loaded) })
}

// Settle settles all fronts, as Front.Settle does.
func (g Group) Settle(ctx context.Context, switched time.Time) error {
	return g.each(func(f *Front) error { return f.Settle(ctx, switched) })
}

// Running reports whether the front runs whose ports are marked with that name, as
// Front.Running does.
func (g Group) Running(ctx context.Context, of string) (bool, error) {
	for _, f := range g {
		if of == "" || f.Container == of {
			return f.Running(ctx)
		}
	}
	return false, nil
}
