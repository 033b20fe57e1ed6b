package deploy

import (
	"context"

	"mailu-hook/hook"
)

// Uninstall gives the front plain files back, as carefully as a deploy, and
// removes what is ours from the certs directory and the state directory.
func Uninstall(ctx context.Context, o Options) (Result, error) {
	t := newTarget(o)
	defer t.Close()
	err := t.within(ctx, func(ctx context.Context) error {
		if err := t.open(ctx); err != nil {
			return err
		}
		if !t.store.Used() {
			t.result.Outcome, t.result.Reason = hook.OutcomeSkipped, "nothing was deployed into "+t.store.Dir()
			return nil
		}
		notes := t.result.Warnings
		r, err := hook.Uninstall(ctx, t.store, t.front(), t.options())
		r.Warnings = append(notes, r.Warnings...)
		t.result.Result = r
		return err
	})
	return t.finish(err)
}
