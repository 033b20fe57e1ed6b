// Package hook is the deploy transaction: it takes a certificate bundle from a
// lineage, holds it to the rules, and makes it the pair that Mailu's front
// serves, or leaves everything as it was.
//
// The promise: the certs directory always holds a matching key and chain under
// the names that the front reads, before, during and after a deploy, across
// kill -9 at any instruction and across power loss. The pair switches with one
// rename(2). A deploy that succeeded was seen on every TLS port; one that the
// front refused is undone, and that too was seen on every port.
//
// Its limit: a reader that opens the two files one after the other around the
// switch can get one of each. The front retries on reload, and is reloaded
// after every switch, so this does no harm.
package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
)

// Front is what a deploy needs of the front container, or of several that serve
// from one certs directory.
type Front interface {
	// Look asks every TLS port once, all at the same time, what it shows.
	Look(ctx context.Context) []mailu.Endpoint
	// Await asks every port until done says yes to its answer or ctx ends,
	// and returns the last answers.
	Await(ctx context.Context, done func(mailu.Endpoint) bool) []mailu.Endpoint
	// PauseWatcher keeps the front from reacting to a switch by itself until it
	// settles or release is called, as far as possible.
	PauseWatcher() (release func())
	// Reload makes the daemons load what is installed: nginx first, and the others
	// once it has, which loaded tells by what a port shows. It returns a
	// *mailu.Refusal when nginx objects. It restarts the container if a daemon
	// that should serve is not running at all.
	Reload(ctx context.Context, loaded func(mailu.Endpoint) bool) error
	// Explain asks the other daemons why they may not have loaded it, and
	// returns a *mailu.Refusal when one objects.
	Explain(ctx context.Context) error
	// Settle waits until the front's own reactions to a switch at that time are
	// over, and leaves it reloadable and healthy.
	Settle(ctx context.Context, switched time.Time) error
	// Running reports whether the container still runs whose ports are marked with
	// that name (mailu.Port.Of). An error means that nobody could be asked.
	Running(ctx context.Context, of string) (bool, error)
}

// Errors of a deploy that went past the switch, each wrapping its cause.
var (
	ErrRolledBack     = errors.New("the front refused the new certificate; the old pair is back and served")
	ErrRollbackFailed = errors.New("the front refused the new certificate, and restoring the old pair failed as well")
	ErrPending        = errors.New("installed, but not yet verified on all ports")
	ErrUnsettled      = errors.New("installed and served on every port, but the front has not settled")
	ErrWaiting        = errors.New("a deploy is unfinished, and it is too early to retry")
)

// Options of a deploy. The zero value deploys strictly and keeps three
// generations.
type Options struct {
	Rules         Rules
	ByHand        bool          // someone asked for it: also installs what is not newer
	DryRun        bool          // judge and compare, change nothing
	Guard         Guard         // may hold the bundle back before anything is changed; nil: nothing does
	Grace         time.Duration // an installed pair that ends sooner is replaced whatever Guard says
	RollsBackFrom []string      // leaves that later syncs are not to install again: what is rolled back from, and what the lineages hold
	Supersedes    bool          // b was weighed against what is pending, which it replaces
	Follows       bool          // b was chosen because it is installed, or was to be: not once something else is
	Pinned        string        // see Contest
	Keep          int           // generations kept for rollback; 0: three
	Rollback      time.Duration // for putting the old pair back, whatever became of ctx; 0: 30 s
	Facts         mailu.Facts   // remembered for a time when the front cannot be asked
	Unasked       error         // why the Front, or one of several that are not part of it, could not be asked; nil with a nil Front: no container runs, and it will load the pair when it starts
	Progress      func(Step)    // told of each step as it begins
}

const (
	defaultKeep     = 3
	defaultRollback = 30 * time.Second
)

// Deploy makes b what the front serves:
//
//  1. look: what is installed, and what does each port serve now?
//  2. validate b, and stop if there is nothing to do or o.Guard holds b back;
//  3. stage it as a new generation, after adopting what was installed;
//  4. switch to it by one rename, while the front's own reactions are held;
//  5. reload nginx, which keeps what it has if it cannot load the new pair, and the
//     other daemons once it has;
//  6. verify that every port that served TLS before serves the new leaf, let
//     the front react and settle, and look once more;
//  7. record the result.
//
// If the front refuses at 5 or 6, Deploy switches back to what was installed,
// reloads and verifies that, within o.Rollback even if ctx has ended. f may be
// nil: then there is nobody to ask, and the deploy ends after the switch.
//
// After a nil error the Outcome is Installed, Unchanged, Skipped or, in a dry
// run, WouldInstall. A *Rejection means that nothing was touched, and one by
// o.Guard is remembered as what a later run has to finish; disk.ErrLocked and
// *disk.Error, that the old pair is still installed; ErrRolledBack, that it is
// installed again and served; ErrPending, that b is installed and a later run
// has to finish; ErrRollbackFailed, that someone has to step in. After a crash the
// names lead to the old pair or to b, and the state tells what was under way.
func Deploy(ctx context.Context, b *Bundle, s *Store, f Front, o Options) (r Result, err error) {
	b = o.Rules.Prefer(b)
	d := &deploy{b: b, s: s, f: f, o: o, r: &r, began: time.Now()}
	r.Bundle, r.Durations = b, map[Step]time.Duration{}
	if at, limited := ctx.Deadline(); limited {
		d.deadline = at.Add(o.Rollback + settleWithin).UTC()
	}
	defer func() { d.finish(err) }()

	d.step(StepLook) // 1
	before, stop := d.look(ctx)
	defer stop()

	d.step(StepValidate) // 2
	if err := o.Rules.Check(b); err != nil {
		return r, err
	}
	old, err := s.Installed()
	if err != nil {
		return r, err
	}
	if done, err := d.nothingToDo(ctx, old, before()); done || err != nil {
		return r, err
	}
	r.Warnings = slices.Concat(r.Warnings, b.Warnings, o.Rules.Caveats(b))
	if err := d.consult(ctx, old); err != nil {
		return r, err
	}
	if err := s.TryLink(); err != nil || o.DryRun { // before a key is written that nothing could lead to
		return r, err
	}

	d.step(StepStage) // 3
	unlock, err := s.Lock(ctx)
	if err != nil {
		return r, err
	}
	defer unlock()
	d.locked = true
	if done, err := d.overtaken(ctx, &old); done || err != nil {
		return r, err
	}
	if err := d.stage(old); err != nil {
		return r, err
	}

	if ctx.Err() != nil {
		return r, fmt.Errorf("stopped before the switch: %w", context.Cause(ctx))
	}

	d.step(StepSwitch) // 4
	defer d.pauseWatcher()()
	if err := s.Switch(d.next); err != nil {
		return r, d.unswitch(err)
	}

	cause := d.apply(ctx) // 5, 6
	switch err = cause; {
	case d.refused(cause):
		err = d.rollBack(ctx, cause)
	case cause != nil && !errors.Is(cause, ErrUnsettled):
		err = fmt.Errorf("%w: %w", ErrPending, cause)
	}
	d.leaveSettled(ctx)
	d.record(err, cause) // 7
	return r, err
}

// deploy is one run of Deploy.
type deploy struct {
	b        *Bundle
	s        *Store
	f        Front
	o        Options
	r        *Result
	began    time.Time
	deadline time.Time // of this run, rollback included; zero: it has none

	current   Step
	since     time.Time // the current step began
	locked    bool
	published bool // the Guard found something published
	settled   bool // the front was asked to settle after the last switch

	state      State
	before     situation
	prev, next Generation // prev is "" when there is nothing to go back to
	prevLeaf   string
}

// situation is what the deploy found.
type situation struct {
	ports          []mailu.Endpoint
	live           Generation
	rolledBackFrom []string // as the state has it
}

// look starts asking the ports; validation does not wait for them. answers does;
// stop ends the questions, if they are not answered yet, and waits for that.
func (d *deploy) look(ctx context.Context) (answers func() []mailu.Endpoint, stop func()) {
	if d.f == nil {
		return func() []mailu.Endpoint { return nil }, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var ports []mailu.Endpoint
	go func() {
		defer close(done)
		ports = d.f.Look(ctx)
	}()
	answers = func() []mailu.Endpoint { <-done; return ports }
	return answers, func() { cancel(); <-done }
}

// nothingToDo settles the outcomes that need no deploy.
func (d *deploy) nothingToDo(ctx context.Context, old Pair, before []mailu.Endpoint) (done bool, err error) {
	d.before.ports, d.r.Endpoints = before, before
	switch {
	case old.Holds(d.b) && old.inHome && d.served():
		d.r.Outcome = OutcomeUnchanged
		if d.o.DryRun {
			return true, nil
		}
		return true, d.repair(ctx)
	case d.superseded(old):
		return true, nil
	}
	d.r.Outcome = OutcomeWouldInstall
	return false, nil
}

// repair fixes what an earlier event did to the front, without a deploy. What it
// cannot fix is remembered as unfinished.
func (d *deploy) repair(ctx context.Context) error {
	var err error
	if d.f != nil {
		if err = d.f.Settle(ctx, d.s.Switched()); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnsettled, err)
		} else if d.o.Unasked != nil {
			err = fmt.Errorf("%w: %w", ErrPending, d.o.Unasked)
		}
	}
	if err != nil {
		d.postponeRepair(ctx, err)
		return err
	}
	d.confirm(ctx)
	return nil
}

// overtaken looks again once the lock is held: another run may have installed the
// same while this one waited for it.
func (d *deploy) overtaken(ctx context.Context, old *Pair) (done bool, err error) {
	now, err := d.s.Installed()
	if err != nil {
		return false, err
	}
	changed := !now.same(*old)
	*old = now
	state, _ := d.s.State() // one that is damaged holds nothing back
	switch {
	case changed && d.o.Follows && !now.Holds(d.b):
		d.r.Outcome, d.r.Reason = OutcomeSkipped, "another run has installed another certificate meanwhile"
		return true, nil
	case d.o.Supersedes && !d.o.ByHand && state.holds(d.b.Fingerprint()):
		d.r.Outcome, d.r.Reason = OutcomeSkipped, "another run has rolled back from it meanwhile"
		return true, nil
	case !changed:
		return d.superseded(now), nil
	}
	ports := d.before.ports
	if d.f != nil {
		ports = d.f.Look(ctx)
	}
	return d.nothingToDo(ctx, now, ports)
}

// leaveSettled lets a front settle that was switched, also where the deploy
// failed: each switch makes the front delete its pid files (Mailu#4080), and
// nobody else puts them back.
func (d *deploy) leaveSettled(ctx context.Context) {
	if d.f == nil || d.settled {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	if err := d.f.Settle(ctx, d.s.Switched()); err != nil {
		d.warn("the front has not settled: %v", err)
	}
}

// served: every port that speaks TLS shows the leaf already, or there is no
// front to show it. While a deploy is pending, a port that is silent may be what
// it waits for.
func (d *deploy) served() bool {
	if d.f == nil {
		return d.o.Unasked == nil
	}
	state, _ := d.s.State()
	for _, e := range d.before.ports {
		if !mailu.AnyAnswers(mailu.OfFront(d.before.ports, e.Of)) {
			return false
		}
		if e.Leaf != d.b.Fingerprint() && (e.Answers() || errors.Is(e.Err, mailu.ErrSilent) || state.Pending != nil) {
			return false
		}
	}
	return mailu.AnyAnswers(d.before.ports)
}

// superseded reports whether what is installed stays, by the rules of Contest.
func (d *deploy) superseded(old Pair) bool {
	state, _ := d.s.State() // one that is damaged knows no source
	takes, reason := Contest{
		Installed: state.claimOf(old), Candidate: Claim{Leaf: d.b.Leaf(), Source: d.b.Lineage},
		Names: d.o.Facts.Hostnames, Pinned: d.o.Pinned, ByHand: d.o.ByHand, Now: time.Now(),
	}.Decide()
	if !takes {
		d.r.Outcome, d.r.Reason = OutcomeSkipped, reason
	}
	return !takes
}

// stage remembers what is about to happen, so that a run that is killed from
// here on is finished by a later one, and puts the new generation on disk.
func (d *deploy) stage(old Pair) (err error) {
	d.before.live = d.s.Live()
	d.remember()
	if err := d.s.Record(d.state); err != nil {
		return err
	}
	if d.o.RollsBackFrom != nil {
		if err := d.s.announceRollback(d.o.RollsBackFrom); err != nil {
			d.warn("other hosts were not told of the rollback: %v", err)
		}
	}
	if d.prev, err = d.s.Adopt(old); err != nil {
		return err
	}
	if d.prev != "" {
		d.prevLeaf = pki.Fingerprint(old.Leaf)
	}
	if d.next, err = d.s.Find(d.b); err == nil && d.next == "" {
		d.next, err = d.s.Stage(d.b)
	}
	if err != nil {
		return err
	}
	if d.next == d.prev { // installed, but not served: nothing to go back to
		d.prev = ""
	}
	return nil
}

// pauseWatcher keeps a front that serves on every port from reacting to the switch
// until it has been seen to serve the new pair. If a port is not answering, the
// watcher is left running: its reaction may be the cure.
func (d *deploy) pauseWatcher() (release func()) {
	if d.f == nil || slices.ContainsFunc(d.before.ports, func(e mailu.Endpoint) bool { return !e.Answers() }) {
		return func() {}
	}
	return d.f.PauseWatcher()
}

// unswitch returns to the old pair after a switch that the disk did not carry
// through, and returns the cause, as pending if b is installed anyway.
func (d *deploy) unswitch(cause error) error {
	if d.prev != "" && d.s.Live() == d.next {
		if err := d.s.Switch(d.prev); err != nil {
			cause = fmt.Errorf("%w (and switching back: %w)", cause, err)
		}
	}
	if now, err := d.s.Installed(); err == nil && now.Holds(d.b) {
		return fmt.Errorf("%w: %w", ErrPending, cause)
	}
	return cause
}

// apply makes the front serve what was switched to.
func (d *deploy) apply(ctx context.Context) error {
	if d.f == nil {
		if d.o.Unasked != nil {
			return untold{d.o.Unasked}
		}
		return nil
	}
	d.step(StepReload) // 5
	var refusal *mailu.Refusal
	told := d.f.Reload(ctx, d.isNew)
	if errors.As(told, &refusal) {
		return told
	}
	err := d.verify(ctx) // 6
	if err != nil && told != nil {
		return untold{told} // so it refused nothing
	}
	if told != nil {
		d.warn("served anyway: %v", told)
	}
	if err == nil && d.o.Unasked != nil {
		return untold{d.o.Unasked}
	}
	return err
}

func (d *deploy) isNew(e mailu.Endpoint) bool { return e.Leaf == d.b.Fingerprint() }

// untold is why the front could not be told or asked anything, so that the next run
// need not wait: by then its engine may answer, or another container be the front.
type untold struct{ error }

func (u untold) Unwrap() error { return u.error }

// refused reports whether err calls for the old pair. It does not when the front
// could not be told or asked: then the new pair, which is valid, stays.
func (d *deploy) refused(err error) bool {
	var refusal *mailu.Refusal
	return err != nil && d.prev != "" && errors.As(err, &refusal)
}

// rollBack puts the old pair back because of cause, and says how that ended.
func (d *deploy) rollBack(ctx context.Context, cause error) error {
	wait := d.o.Rollback
	if wait == 0 {
		wait = defaultRollback
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	d.step(StepRollback)
	if err := d.s.Switch(d.prev); err != nil {
		return fmt.Errorf("%w: %w; then %w", ErrRollbackFailed, cause, err)
	}
	reloadErr := d.f.Reload(ctx, d.isOld)
	wrong, err := d.verifyOld(ctx)
	gone := d.gone(ctx, wrong)
	switch {
	case gone != nil:
		return fmt.Errorf("%w: %w; then the old pair was put back, but that could not be verified: %w", ErrPending, cause, gone)
	case err != nil && reloadErr != nil:
		return fmt.Errorf("%w: %w; then %w, after %w", ErrRollbackFailed, cause, err, reloadErr)
	case err != nil:
		return fmt.Errorf("%w: %w; then %w", ErrRollbackFailed, cause, err)
	case !mailu.AnyAnswers(d.r.Endpoints):
		return fmt.Errorf("%w: %w; then the old pair was put back, but no port shows a certificate", ErrPending, cause)
	}
	return fmt.Errorf("%w: %w", ErrRolledBack, cause)
}
