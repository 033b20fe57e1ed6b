package hook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// step ends the current step and begins the next; "" begins none.
func (d *deploy) step(next Step) {
	now := time.Now()
	if d.current != "" {
		d.r.Durations[d.current] += now.Sub(d.since)
	}
	d.current, d.since = next, now
	if next != "" && d.o.Progress != nil {
		d.o.Progress(next)
	}
}

func (d *deploy) warn(format string, args ...any) {
	d.r.Warnings = append(d.r.Warnings, fmt.Sprintf(format, args...))
}

// remember loads the state and notes in it what is under way.
func (d *deploy) remember() {
	state, err := d.s.State()
	if err != nil {
		d.warn("%v; starting a new one", err)
	}
	now := time.Now().UTC()
	gens, _ := d.s.Generations()
	state.see(d.b.Source, d.b.Fingerprint(), now)
	state.comesFrom(d.b.Lineage, d.b.Fingerprint(), gens)
	state.begin(d.b.Lineage, d.b.Fingerprint(), now)
	state.Pending.Deadline, state.Pending.Live = d.deadline, d.s.Live()
	d.before.rolledBackFrom = state.RolledBackFrom
	if d.o.RollsBackFrom != nil {
		state.RolledBackFrom = d.o.RollsBackFrom // now: a run that is killed after the switch is not to be undone
	}
	if d.o.Facts.Hostnames != nil {
		state.Front = d.o.Facts
	}
	state.Published = state.Published || d.published
	d.state = state
}

// confirm remembers that all is well, where the state says otherwise or does
// not know the lineage yet. What is pending of another leaf stays pending.
func (d *deploy) confirm(ctx context.Context) {
	state, err := d.s.State()
	pending := state.Pending
	if pending != nil && (pending.Leaf == d.b.Fingerprint() || d.o.Supersedes) {
		pending = nil
	}
	if err == nil && pending == state.Pending && state.knows(d.b.Lineage, d.b.Fingerprint()) {
		return
	}
	d.note(ctx, func() {
		d.state.Pending = pending
		d.state.Last = &Last{At: time.Now().UTC(), Outcome: OutcomeUnchanged, Lineage: d.b.Lineage, Generation: d.s.Live()}
	})
}

// postponeRepair remembers that the front has not settled, so that sync tries
// again.
func (d *deploy) postponeRepair(ctx context.Context, err error) {
	d.note(ctx, func() {
		d.state.Pending.Reason = err.Error()
		d.state.Last = &Last{At: time.Now().UTC(), Outcome: OutcomePending, Lineage: d.b.Lineage, Generation: d.s.Live(), Error: err.Error()}
	})
}

// note records a change of the state, under the lock. That it could not does not
// change the outcome.
func (d *deploy) note(ctx context.Context, change func()) {
	if !d.locked {
		unlock, err := d.s.Lock(ctx)
		if err != nil {
			d.warn("the result was not recorded: %v", err)
			return
		}
		defer unlock()
	}
	d.remember()
	change()
	if err := d.s.Record(d.state); err != nil {
		d.warn("the result was not recorded: %v", err)
	}
}

// record remembers how it ended, and why if not well, and removes generations
// that are too old. A failure to do so does not make a good deploy bad.
func (d *deploy) record(err, cause error) {
	d.r.Outcome = OutcomeOf(err)
	now := time.Now().UTC()
	d.state.Last = &Last{At: now, Outcome: d.r.Outcome, Lineage: d.b.Lineage, Generation: d.s.Live()}
	if err == nil {
		d.state.Pending, d.state.Guarded = nil, nil
	} else {
		d.state.Last.Error = err.Error()
		d.state.fail(cause.Error(), now)
		d.state.Pending.Live = d.s.Live()
		if errors.As(cause, new(untold)) { // that costs a question: no reason to wait
			d.state.Pending.Next = time.Time{}
		}
		d.r.Next = d.state.Pending.Next
	}
	switch {
	case err == nil && d.next != d.before.live:
		d.state.RolledBackFrom = d.o.RollsBackFrom
	case d.s.Live() == d.before.live:
		d.state.RolledBackFrom = d.before.rolledBackFrom
	}
	if err := d.s.Record(d.state); err != nil {
		d.warn("the result was not recorded: %v", err)
	}
	if err := d.s.Prune(cmp.Or(d.o.Keep, defaultKeep), d.prev, d.next); err != nil {
		d.warn("old generations not removed: %v", err)
	}
}

// finish completes the result, whatever the way out.
func (d *deploy) finish(err error) {
	d.step("")
	d.r.Total = time.Since(d.began)
	d.r.Generation = d.s.Live()
	if err != nil {
		d.r.Outcome = OutcomeOf(err)
	}
}
