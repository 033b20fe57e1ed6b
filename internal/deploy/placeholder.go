package deploy

import (
	"context"
	"errors"
	"fmt"

	"mailu-hook/hook"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

// Placeholder brings TLS up in a front that has no certificate at all: without
// one it includes no override and answers nobody. Where a pair is installed it
// does nothing.
func (t *Target) Placeholder(ctx context.Context, names []string) error {
	installed, err := t.store.Installed()
	if err != nil || installed.Leaf != nil {
		return err
	}
	if t.o.DryRun {
		return say.Hint(errors.New("the front has no certificate yet, and a dry run installs no placeholder"),
			"run without --dry-run (with --staging if you like), or choose another --challenge")
	}
	bundle, err := hook.Placeholder(names)
	if err != nil {
		return err
	}
	o := t.options()
	o.Rules.AllowUntrusted, o.Guard = true, nil
	err = t.within(ctx, func(ctx context.Context) error { return t.deploy(ctx, bundle, o) })
	if err != nil {
		return fmt.Errorf("installing a placeholder: %w", err)
	}
	return nil
}

// HasPending reports whether an earlier deploy is unfinished.
func (t *Target) HasPending() bool {
	state, _ := t.store.State() // one that is damaged has nothing under way
	return state.Pending != nil
}

// Deliver installs what was just obtained for names, whatever is installed. The
// front is looked up again: it may be another one by now.
func (t *Target) Deliver(ctx context.Context, src source.Source, names []string) error {
	return t.within(ctx, func(ctx context.Context) error {
		t.result.Source = src
		offer, err := hook.Read(ctx, src)
		if err != nil {
			return err
		}
		bundle, err := offer.For(names)
		if err != nil {
			return err
		}
		t.result.Bundle = bundle
		t.Close()
		t.Found, t.Front, t.Unasked, t.Absent = nil, nil, nil, ""
		if err := t.open(ctx); err != nil {
			return err
		}
		if lacks := hook.Missing(bundle.Leaf(), names); len(lacks) > 0 {
			t.result.Note("does not cover " + say.Names(lacks))
		}
		o := t.options()
		o.ByHand = true
		return t.deploy(ctx, bundle, o)
	})
}
