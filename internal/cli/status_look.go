package cli

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/survey"
	"mailu-hook/reload"
)

// lookAround sees what there is to see until ctx ends. Only a mistake in the
// configuration is an error: what cannot be seen is a fact.
func (s *status) lookAround(ctx context.Context, timeout time.Duration) error {
	engine, err := reload.Open(s.c.settings)
	if err != nil {
		return say.Hint(usageErr{err.Error()}, "%s", say.HintOf(err))
	}
	defer engine.Close()
	limited, cancel := context.WithTimeoutCause(ctx, min(findLimit, timeout*2/5), errors.New("the time is up"))
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.look.Schedule = survey.Host{}.Schedule() })
	var asked []string
	found, err := engine.Survey(limited, reload.Selector{Container: s.c.text("container"), Project: s.c.text("project")})
	if err != nil {
		s.look.NoFront, s.look.EngineDown = err, errors.Is(err, reload.ErrEngine)
		found, asked = s.remembered()
	}
	if !s.look.EngineDown { // and not before: the Docker client negotiates its version with the first answer
		wg.Go(func() { s.look.Engine = engineClock(ctx, engine) })
	}
	if len(found) == 1 { // settings are of one front
		t := &target{facts: found[0].Facts}
		if err := s.c.override(t); err != nil && !errors.Is(err, mailu.ErrUnsuitable) {
			wg.Wait()
			return err
		}
		found[0].Facts = t.facts
	}
	s.look.Fronts = make([]health.Front, len(found))
	for i, f := range found {
		wg.Go(func() {
			s.look.Fronts[i] = s.lookAt(ctx, f)
			s.look.Fronts[i].Asked = asked
		})
	}
	wg.Wait()
	for _, f := range s.look.Fronts {
		if f.Planned != nil {
			f.Planned.Timer = s.look.Schedule.Renew.By
		}
	}
	if err := s.compareDANE(ctx); err != nil {
		return err
	}
	s.look.At = time.Now()
	return nil
}

// remembered is a front that no engine tells of, and where the world finds its
// ports.
func (s *status) remembered() (one []*reload.Front, hosts []string) {
	facts := s.c.recall()
	if names, _ := s.c.fs.GetStringSlice("hostname"); len(names) > 0 {
		facts.Hostnames = names
	}
	for _, name := range facts.Hostnames[:min(1, len(facts.Hostnames))] {
		hosts = append(hosts, mailu.CanonicalName(name))
	}
	hosts = append(hosts, "127.0.0.1")
	return []*reload.Front{reload.Remote(facts, hosts...)}, hosts
}

const clockLimit = 3 * time.Second // as long as the ports may take

func engineClock(ctx context.Context, e *reload.Engine) health.Clock {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	before := time.Now()
	at, err := e.Clock(ctx)
	if err != nil {
		return health.Clock{}
	}
	return health.Clock{Seen: true, Ahead: at.Sub(before.Add(time.Since(before) / 2))}
}

// lookAt sees one front: its ports, its inside and its directory, all at the
// same time.
func (s *status) lookAt(ctx context.Context, from *reload.Front) health.Front {
	f := health.Front{Facts: from.Facts, State: from.State, Health: from.Health}
	if from.State != "" {
		f.Unsuitable = from.Suitable()
	}
	var wg sync.WaitGroup
	// Without an engine the ports are asked all the same. One that says that
	// nothing runs is believed.
	if f.Runs() || s.look.EngineDown {
		wg.Go(func() { f.Endpoints = from.Look(ctx) })
	}
	if f.Runs() {
		wg.Go(func() { f.Inside, f.InsideErr = inside(ctx, from) })
	}
	wg.Go(func() {
		if f.CertsDir != "" {
			f.Directory = survey.Directory(f.Facts)
			f.Memory, f.MemoryErr = recallState(f.Facts)
		}
		f.Lineages = s.lineages(f.Memory)
		f.Planned = s.planned(&f)
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

// recallState reads what deploys remember, and no key: opening a store opens
// none.
func recallState(facts mailu.Facts) (hook.State, error) {
	store, err := hook.OpenStore(facts.CertsDir, facts.CertName, facts.KeyName)
	if err != nil {
		return hook.State{}, err
	}
	defer store.Close()
	return store.State()
}

// lineages reads those that deploys remember and those that were named.
func (s *status) lineages(memory hook.State) []health.Lineage {
	dirs, _ := s.c.fs.GetStringArray("lineage")
	for _, seen := range memory.Lineages {
		if !slices.Contains(dirs, seen.Lineage) {
			dirs = append(dirs, seen.Lineage)
		}
	}
	var all []health.Lineage
	for _, dir := range dirs {
		l := survey.Lineage(dir)
		l.Last = memory.Last != nil && memory.Last.Lineage == dir
		survey.Certbot(&l)
		all = append(all, l)
	}
	return all
}
