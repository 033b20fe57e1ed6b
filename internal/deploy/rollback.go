package deploy

import (
	"context"
	"slices"
	"strings"

	"mailu-hook/hook"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Rollback puts an earlier generation back: the one that name is, in full or by
// an unambiguous prefix, or for "" the newest before the live one. A sync does
// not undo it until the lineage is renewed.
func Rollback(ctx context.Context, name string, allowExpired bool, o Options) (Result, error) {
	t := newTarget(o)
	defer t.Close()
	err := t.within(ctx, func(ctx context.Context) error {
		if err := t.open(ctx); err != nil {
			return err
		}
		return t.rollBack(ctx, name, allowExpired)
	})
	return t.finish(err)
}

func (t *Target) rollBack(ctx context.Context, name string, allowExpired bool) error {
	gen, err := chooseGeneration(t.store, name)
	if err != nil {
		return err
	}
	bundle, err := t.store.Bundle(gen)
	if err != nil {
		return err
	}
	t.result.Source = bundle.Source
	if ours, err := t.isOurs(bundle.CertFile, bundle.Leaf()); !ours || err != nil {
		return err
	}
	o := t.options()
	o.Rules.AllowExpired = allowExpired
	if live, err := t.store.Bundle(t.store.Live()); err == nil && live.Fingerprint() != bundle.Fingerprint() {
		o.RollsBackFrom = t.holdBack(ctx, live.Fingerprint())
	}
	return t.deploy(ctx, bundle, o)
}

// holdBack lists what later syncs are not to install after a rollback from leaf: that
// leaf, what was pending, and what the known lineages hold now. Their next renewal
// ends it.
func (t *Target) holdBack(ctx context.Context, leaf string) []string {
	leaves := []string{leaf}
	add := func(leaf string) {
		if !slices.Contains(leaves, leaf) {
			leaves = append(leaves, leaf)
		}
	}
	state, _ := t.store.State() // one that is damaged knows nothing
	if state.Pending != nil {
		add(state.Pending.Leaf)
	}
	for _, seen := range state.Lineages {
		if offer, err := hook.Read(ctx, seen.Source()); err == nil {
			for _, leaf := range offer.Leaves() {
				add(pki.Fingerprint(leaf))
			}
		}
	}
	return leaves
}

func chooseGeneration(store *hook.Store, name string) (hook.Generation, error) {
	const look = "mailu-hook rollback --list shows what there is"
	gens, err := store.Generations()
	if err != nil {
		return "", err
	}
	if name != "" {
		matching := slices.DeleteFunc(gens, func(g hook.Generation) bool { return !strings.HasPrefix(string(g), name) })
		switch len(matching) {
		case 0:
			return "", usageError(look, "no generation begins with %s", say.Foreign(name))
		case 1:
			return matching[0], nil
		}
		return "", usageError(look, "%d generations begin with %s", len(matching), say.Foreign(name))
	}
	live, _ := store.Bundle(store.Live())
	for _, gen := range slices.Backward(gens) {
		b, err := store.Bundle(gen)
		if gen < store.Live() && err == nil && !hook.IsPlaceholder(b.Leaf()) && (live == nil || b.Fingerprint() != live.Fingerprint()) {
			return gen, nil
		}
	}
	return "", usageError(look, "there is no certificate from before the live one")
}

// Stored is a generation in the certs directory.
type Stored struct {
	Generation hook.Generation
	Live       bool
	Bundle     *hook.Bundle // nil if it cannot be read
	Err        error
}

// Generations lists what is stored, the newest first. It changes nothing.
func Generations(ctx context.Context, o Options) ([]Stored, error) {
	t := newTarget(o)
	defer t.Close()
	var all []Stored
	err := t.within(ctx, func(ctx context.Context) error {
		if err := t.open(ctx); err != nil {
			return err
		}
		gens, err := t.store.Generations()
		for _, gen := range slices.Backward(gens) {
			s := Stored{Generation: gen, Live: gen == t.store.Live()}
			s.Bundle, s.Err = t.store.Bundle(gen)
			all = append(all, s)
		}
		return err
	})
	return all, err
}
