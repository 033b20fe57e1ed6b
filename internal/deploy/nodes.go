package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

const (
	nodePoll = time.Second
	// tellLimit is for what is told to other nodes after a run whose time is up.
	tellLimit = 5 * time.Second
)

// meetNodes tells the other hosts that share the certs directory how this run ended, and
// after one that has changed what is installed, or that finishes one, waits for theirs to
// prove the same. It returns err, or an ErrPending if a host is late, which is remembered.
func (t *Target) meetNodes(ctx context.Context, switched bool, err error) error {
	r := &t.result.Result
	if t.o.DryRun || r.Bundle == nil {
		return err
	}
	node := hook.Node{Last: r.Outcome, At: time.Now()}
	if t.Front != nil {
		node.Front = t.Facts.Name()
	}
	switch r.Outcome {
	case hook.OutcomeUnchanged:
		before, _ := t.store.Self()
		node.Leaf, node.Last = r.Bundle.Fingerprint(), cmp.Or(before.Last, r.Outcome)
	case hook.OutcomeInstalled:
		node.Leaf = r.Bundle.Fingerprint()
	case hook.OutcomePending, hook.OutcomeRolledBack, hook.OutcomeRollbackFailed:
		node.Pending = err.Error()
	default: // it says nothing of what is served
		return err
	}
	telling, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellLimit)
	defer cancel()
	if aerr := t.store.Announce(telling, node); aerr != nil {
		t.result.Note(fmt.Sprintf("other hosts were not told: %v", aerr))
	}
	if err != nil || !switched && !t.finishing {
		return err
	}
	if err := t.awaitNodes(ctx, node.Leaf, switched); err != nil {
		r.Outcome = hook.OutcomePending
		telling, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellLimit) // that of before is over
		defer cancel()
		if perr := t.store.Postpone(telling, r.Bundle, err.Error()); perr != nil {
			t.result.Note(fmt.Sprintf("the result was not recorded: %v", perr))
		}
		return err
	}
	return nil
}

// awaitNodes returns once no other host is late with that leaf, and if patient waits for
// that as long as ctx lasts.
func (t *Target) awaitNodes(ctx context.Context, leaf string, patient bool) error {
	for {
		late := t.store.Late(leaf, time.Now())
		if len(late) == 0 {
			return nil
		}
		if !patient || wait.For(ctx, nodePoll) != nil {
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return fmt.Errorf("%w: interrupted while waiting for %s", hook.ErrPending, describe(late))
			}
			return say.Hint(fmt.Errorf("%w: served here, and not seen to be by %s", hook.ErrPending, describe(late)),
				"mailu-hook watch or sync must run there; then sync here finishes it")
		}
	}
}

func describe(nodes []hook.Node) string {
	var all []string
	for _, n := range nodes {
		text := fmt.Sprintf("%s (%s, last heard of at %s)", n.Name, say.Plain(n.Front), say.Time(n.At))
		if n.Pending != "" {
			text += ", which says: " + say.Foreign(n.Pending)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}
