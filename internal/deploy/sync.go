package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/disk"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

// Wish is what a sync is asked for besides what it finds unfinished.
type Wish struct {
	Sources []source.Source // to consider besides those that were deployed before
	By      string          // who asks, as hook.State.SyncedBy has it
	Now     bool            // retry at once, whatever failed before
}

// Sync completes what a deploy left unfinished, and repairs what has changed
// since: it compares the known lineages, the installed pair and what the front
// serves, and deploys what should be served. When all is well the Outcome is
// Unchanged, or Skipped where nothing was ever deployed. Where there are several
// groups of fronts, it does so for each.
//
// After failures it backs off: the error is then a hook.ErrWaiting.
func Sync(ctx context.Context, w Wish, o Options) (Result, error) {
	all := Each(o, o.Ours, func(o Options) (Result, error) {
		t := newTarget(o)
		defer t.Close()
		err := t.within(ctx, func(ctx context.Context) error {
			if err := t.open(ctx); err != nil {
				return err
			}
			return t.sync(ctx, w)
		})
		return t.finish(err)
	})
	if len(all) > 0 {
		return joined(all)
	}
	r := Result{DryRun: o.DryRun}
	r.Outcome, r.Reason = hook.OutcomeSkipped, "no front here takes its certificates from a directory"
	return r, nil
}

// Sync does for this Target what the function Sync does.
func (t *Target) Sync(ctx context.Context, w Wish) error {
	return t.within(ctx, func(ctx context.Context) error { return t.sync(ctx, w) })
}

func (t *Target) sync(ctx context.Context, w Wish) error {
	err := t.repair(ctx, w)
	if t.o.DryRun || errors.Is(err, disk.ErrLocked) {
		return err
	}
	if serr := t.store.Synced(ctx, time.Now(), w.By, t.Facts); serr != nil {
		t.result.Note(serr.Error())
	}
	return err
}

func (t *Target) repair(ctx context.Context, w Wish) error {
	if !t.o.DryRun {
		if err := t.Found.ForgetOldChallenges(ctx); err != nil {
			t.result.Note(err.Error())
		}
	}
	state, err := t.store.State()
	if err != nil {
		t.result.Note(err.Error())
	}
	if p := state.Pending; p.Waits(time.Now()) && !w.Now {
		t.result.Next = p.Next
		return say.Hint(fmt.Errorf("%w: attempt %d failed: %s; next attempt at %s", hook.ErrWaiting, p.Attempts, p.Reason, say.Time(p.Next)),
			"fix the cause, then run: mailu-hook sync --now")
	}
	t.finishing = state.Pending != nil
	if !t.store.Used() && len(w.Sources) == 0 && len(state.Lineages) == 0 {
		t.result.Outcome, t.result.Reason = hook.OutcomeSkipped, "nothing was deployed here yet"
		return nil
	}
	wanted, err := t.wanted(ctx, state, w.Sources)
	if err != nil {
		return err
	}
	t.result.Source = wanted.Source
	o := t.options()
	o.Supersedes = true
	if wanted.Lineage == "" { // installed before, and accepted then
		o.Rules.AllowUntrusted, o.ByHand, o.Follows, o.RollsBackFrom = true, true, true, state.RolledBackFrom
	} else if wanted, err = t.withRoot(wanted); err != nil {
		return err
	}
	return t.deploy(ctx, wanted, o)
}

// wanted is what should be served. A lineage that cannot be read is noted as
// long as there is something else. Where nothing is known, as after a move to
// another host, the lineages of certbot and of renew are looked through.
func (t *Target) wanted(ctx context.Context, state hook.State, sources []source.Source) (*hook.Bundle, error) {
	sources = slices.Clone(sources)
	for _, seen := range state.Lineages {
		sources = append(sources, seen.Source())
	}
	if t.o.Pinned != "" {
		sources = append(sources, source.At(t.o.Pinned))
	}
	search := hook.Search{State: state, Sources: sources, Names: t.Facts.Hostnames, Pinned: t.o.Pinned}
	wanted, problems := hook.Wanted(ctx, t.store, search)
	if wanted == nil && problems == nil && len(search.Names) > 0 {
		search.Sources = t.discover()
		wanted, _ = hook.Wanted(ctx, t.store, search) // what is not Mailu's may be damaged
	}
	var problem error
	if len(problems) > 0 {
		problem = problems[0] // one fits a line; once it is fixed, the next run names the next
	}
	switch {
	case wanted == nil && problem == nil:
		return nil, say.Hint(fmt.Errorf("neither a lineage nor %s holds a certificate for the mail server", t.store.Dir()), "install one: mailu-hook install SOURCE, or obtain one: mailu-hook renew --agree-tos")
	case wanted == nil:
		return nil, problem
	case problem != nil:
		t.result.Note(problem.Error())
	}
	return wanted, nil
}

// Watched are the directories in which something changes when a certificate is
// renewed that was deployed before: of all sources that are remembered, and of those
// that are named.
func Watched(named []source.Source, stateDir string) (dirs []string) {
	for _, state := range hook.Ledgers(cmp.Or(stateDir, mailu.DefaultStateDir)) {
		for _, seen := range state.Lineages {
			named = append(named, seen.Source())
		}
	}
	for _, src := range named {
		dirs = append(dirs, source.Watched(src)...)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// discover lists the lineages of certbot and of renew on this host.
func (t *Target) discover() []source.Source {
	var all []source.Source
	for _, dir := range []string{cmp.Or(t.o.Certbot, mailu.DefaultCertbotDir), cmp.Or(t.o.StateDir, mailu.DefaultStateDir)} {
		found, _ := os.ReadDir(filepath.Join(dir, "live")) // one that does not exist has none
		for _, entry := range found {
			if entry.IsDir() {
				all = append(all, source.At(filepath.Join(dir, "live", entry.Name())))
			}
		}
	}
	return all
}
