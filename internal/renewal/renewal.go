// Package renewal is one run of the standalone renewer: it decides whether a
// certificate is due for the front's hostnames, obtains it by ACME while the
// front keeps serving, and makes sure that what was obtained is served. It joins
// package acme, which knows CAs and nothing of Mailu, with package deploy, which
// knows Mailu and nothing of CAs. It knows no flag and prints nothing.
package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

// ErrUsage means that what was asked for makes no sense. Nothing was touched.
var ErrUsage = errors.New("usage")

// ErrWaiting means that a certificate is due, and that it is too early to try again
// after a failure. It is an acme.ErrFailed.
var ErrWaiting = fmt.Errorf("%w: not yet time to try", acme.ErrFailed)

type usageErr struct{ text string }

func (e usageErr) Error() string   { return e.text }
func (e usageErr) Is(t error) bool { return t == ErrUsage }

func usageError(hint, format string, args ...any) error {
	return say.Hint(usageErr{fmt.Sprintf(format, args...)}, "%s", hint)
}

// Options of a run.
type Options struct {
	Deploy    deploy.Options
	StateDir  string
	CA        acme.Options
	Want      acme.Request // but for its Names and Directory, which are found out
	Challenge Challenge

	NextKey  bool // prepare a key for a later renewal
	FixedKey bool // Want.ReuseKey was decided by the administrator: DANE does not change it
	Force    bool // renew although it is not due
	Now      bool // retry at once, whatever failed before and whatever the CA's limit is

	AtTerminal bool // someone is waiting: failures cause no back-off

	MinInterval  time.Duration // between two issuances of the same request
	IssueTimeout time.Duration // for the CA

	LetsEncryptDir string // whose certificates are left to certbot
	IgnoreCertbot  bool

	By      string          // who asks, as hook.State.SyncedBy has it
	Sources []source.Source // to consider besides what is obtained, as deploy.Wish has them

	Tell func(string) // told what begins now; may be nil
	Log  *slog.Logger
}

// Result is what became of a run, complete whatever the error.
type Result struct {
	deploy.Result
	Names    []string
	Server   string
	Due      acme.Due
	Issued   bool
	Info     *acme.Info             // what the CA suggests; nil if it suggests nothing
	Failures int                    // in a row
	Also     []deploy.Ended[Result] // where there are several groups of fronts: what became of the others, none of it worse
}

// Run obtains a certificate if one is due and makes sure that what was obtained
// is served, for each group of fronts where there are several. Errors are those of a deploy; acme.ErrFailed, that no certificate
// was obtained and nothing was changed; or an ErrUsage. A run that is killed is
// resumed by the next one.
func Run(ctx context.Context, o Options) (Result, error) {
	all := deploy.Each(o.Deploy, o.Deploy.Ours, func(d deploy.Options) (Result, error) {
		r := &run{o: o, want: o.Want}
		r.o.Deploy = d
		err := r.run(ctx)
		return r.finish(err), err
	})
	if len(all) == 0 {
		err := usageError("set TLS_FLAVOR=cert or mail in mailu.env", "no front here takes its certificates from a directory")
		return Result{Result: deploy.Failed(err)}, err
	}
	all[0].Result.Also = all[1:]
	return all[0].Result, all[0].Err
}

// run is one Run.
type run struct {
	o       Options
	target  *deploy.Target
	want    acme.Request
	lineage *acme.Lineage
	due     acme.Due
	first   bool // there was no certificate before
	issued  bool
	dry     bool // the CA issued one, and it was thrown away
}

func (r *run) run(ctx context.Context) (err error) {
	if err := limited(ctx, r.o.Deploy.Timeout, "--timeout", r.prepare); err != nil {
		return err
	}
	defer r.target.Close()
	state, err := acme.OpenState(r.o.StateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	unlock, err := lock(ctx, r.o.Deploy.Timeout, state)
	if err != nil {
		return err
	}
	defer unlock()
	if r.lineage, err = state.Lineage(r.want.LineageName()); err != nil {
		return err
	}
	r.first = r.lineage.Leaf == nil
	r.cleanUp(ctx)
	if err := r.lineage.Complete(); err != nil {
		return err
	}
	r.finishFirst(ctx)
	failed := limited(ctx, r.o.IssueTimeout, "--issue-timeout", func(ctx context.Context) error { return r.obtain(ctx, state) })
	if r.o.Deploy.DryRun || errors.Is(failed, ErrUsage) || failed != nil && ctx.Err() != nil {
		return failed
	}
	return r.deliver(ctx, failed)
}

// prepare finds out what is wanted, and refuses what is impossible.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.target, err = deploy.Open(ctx, r.o.Deploy); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			r.target.Close()
		}
	}()
	r.want.Names = acme.CanonicalNames(r.target.Facts.Hostnames)
	r.want.Directory = r.o.CA.Directory
	if err := r.o.Challenge.check(); err != nil {
		return err
	}
	if err := acme.CheckNames(r.want.Names, r.o.Challenge.Method, r.want.Profile, r.o.CA.Roots != nil); err != nil {
		return usageError(say.HintOf(err), "%v", err)
	}
	if r.o.IgnoreCertbot {
		return nil
	}
	return leaveToCertbot(r.o.LetsEncryptDir, r.want.Names[0])
}

// cleanUp removes what a run that was killed showed the CA. None is under way,
// as this one holds the lock.
func (r *run) cleanUp(ctx context.Context) {
	if err := limited(ctx, r.o.Deploy.Timeout, "--timeout", r.target.Found.ForgetChallenges); err != nil {
		r.note("%v", err)
	}
}

// finishFirst finishes a deploy that an earlier run began, before the CA may
// take its time.
func (r *run) finishFirst(ctx context.Context) {
	if r.lineage.Leaf == nil || r.o.Deploy.DryRun || !r.target.HasPending() {
		return
	}
	if err := r.target.Sync(ctx, deploy.Wish{Sources: []source.Source{source.At(r.lineage.Live())}, By: r.o.By, Now: r.o.Now}); err != nil {
		r.note("what was obtained before is not served yet: %v", err)
	}
}

// obtain orders a certificate if one is due and may be tried for.
func (r *run) obtain(ctx context.Context, state *acme.State) error {
	client := acme.NewClient(ctx, state, r.o.CA)
	client.OnProgress(r.tell)
	defer client.Close()
	if r.o.Deploy.DryRun {
		r.due = acme.Due{Now: true, Reason: "it is a dry run"}
		return r.order(ctx, client)
	}
	now := time.Now()
	if err := client.Refresh(r.lineage, now); err != nil {
		r.o.Log.Warn("no renewal information", "error", err)
	}
	r.look(now)
	r.due = r.lineage.Due(r.want, now, r.o.Force)
	r.want.Lacks = r.due.Lacks
	if err := r.chooseKey(ctx, now); err != nil {
		return err
	}
	if !r.due.Now {
		r.note("not due until %s (%s)", say.Time(r.due.At), r.due.Reason)
		return r.lineage.Settle()
	}
	if waits, err := r.waits(now); waits || err != nil {
		return err
	}
	err := r.order(ctx, client)
	if err != nil && ctx.Err() == nil && r.due.Lacks != nil && r.want.Subset {
		r.note("%s: %v", r.due.Reason, err)
		return nil
	}
	return err
}

// look warns if the timer does not fit the lifetime of the certificate.
func (r *run) look(now time.Time) {
	ago, every, err := r.lineage.Look(now)
	if ago > 0 {
		r.note("the last run was at %s: for this certificate renew should run at least every %s, better hourly, as mailu-hook-renew.timer does",
			say.Time(now.Add(-ago)), every.Round(time.Second))
	}
	if err != nil { // what else has to be written fails with a reason
		r.o.Log.Warn("the run was not recorded", "error", err)
	}
}

// waits reports whether a certificate that is due has to wait; an error says that this
// is a failure.
func (r *run) waits(now time.Time) (bool, error) {
	d := r.lineage.Wait(r.due, r.want, r.o.MinInterval, now)
	if d.Until.IsZero() {
		return false, nil
	}
	if d.By < acme.MinInterval && r.o.Now || d.By == acme.BackOff && r.o.AtTerminal {
		r.note("tried before %s although %s", say.Time(d.Until), d.Reason)
		return false, nil
	}
	r.target.Result().Next = d.Until
	if d.By == acme.MissingNames || d.By == acme.MinInterval && !r.o.Force {
		r.note("%s: waiting until %s: %s", r.due.Reason, say.Time(d.Until), d.Reason)
		return true, nil
	}
	hint := "if the cause is fixed: mailu-hook renew --now"
	switch d.By {
	case acme.Limit:
		hint = "another CA can be asked at once: --server URL; --now asks this one anyway"
	case acme.MinInterval:
		hint = "to issue another one anyway: --force --min-interval 1s"
	}
	return true, say.Hint(fmt.Errorf("%w: %s; next attempt at %s", ErrWaiting, d.Reason, say.Time(d.Until)), "%s", hint)
}

func (r *run) order(ctx context.Context, client *acme.Client) error {
	r.tell("due: " + r.due.Reason)
	if err := client.SignIn(r.lineage, r.want); err != nil {
		return err
	}
	solver, done, err := r.solver(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", acme.ErrFailed, err)
	}
	defer done()
	if r.o.Deploy.DryRun && client.Created() {
		r.note("the dry run created an account at %s, which is kept", r.want.Directory)
	}
	err = client.Obtain(r.lineage, r.want, solver)
	r.issued = err == nil && !r.o.Deploy.DryRun
	r.dry = err == nil && r.o.Deploy.DryRun
	return err
}

// deliver makes sure that the lineage is served. failed is why there is no new
// certificate in it although one was due, nil if there is one or none was due.
func (r *run) deliver(ctx context.Context, failed error) (err error) {
	if r.issued {
		err = r.target.Deliver(ctx, source.At(r.lineage.Live()), r.want.Names)
		if hook.OutcomeOf(err) == hook.OutcomeRejected && r.o.CA.Roots != nil && r.o.Deploy.Roots == nil {
			err = say.Hint(err, "%s. --ca-file is only for the connection to the CA: name its root with --roots FILE too, here and for sync and status (MAILU_HOOK_ROOTS=FILE in /etc/mailu-hook.conf)", say.HintOf(err))
		}
		r.noteIssue()
	} else {
		sources := slices.Clone(r.o.Sources)
		if r.lineage.Leaf != nil {
			sources = append(sources, source.At(r.lineage.Live()))
		}
		err = r.target.Sync(ctx, deploy.Wish{Sources: sources, By: r.o.By, Now: r.o.Now})
	}
	if failed != nil && err != nil {
		r.note("what was obtained before is not served either: %v", err)
	}
	if failed != nil {
		return failed
	}
	return err
}

func (r *run) noteIssue() {
	if r.first {
		r.note("this is the first certificate")
		return
	}
	r.note("renewed because %s", r.due.Reason)
}

// finish makes the Result of a run that ended with err.
func (r *run) finish(err error) Result {
	res := Result{Names: r.want.Names, Server: r.want.Directory, Due: r.due, Issued: r.issued}
	if r.target != nil {
		res.Result = *r.target.Result()
	}
	if res.Outcome == "" || err != nil {
		res.Outcome = hook.OutcomeOf(err)
	}
	if r.dry {
		res.Outcome = hook.OutcomeWouldInstall
		res.Reason = "the CA issued a certificate for " + say.Names(r.want.Names) + ", which was thrown away"
	}
	if l := r.lineage; l != nil {
		res.Failures, res.Info = l.Failures, l.Info
	}
	return res
}

func (r *run) note(format string, args ...any) {
	r.target.Result().Note(fmt.Sprintf(format, args...))
}

func (r *run) tell(text string) {
	if r.o.Tell != nil {
		r.o.Tell(text)
	}
}

// limited runs work in the time that a flag leaves.
func limited(ctx context.Context, limit time.Duration, flag string, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the time is up (%s %s)", flag, limit))
	defer cancel()
	return work(ctx)
}

// lock waits for the state directory as long as a deploy may take.
func lock(ctx context.Context, limit time.Duration, state *acme.State) (unlock func(), err error) {
	err = limited(ctx, limit, "--timeout", func(ctx context.Context) (err error) {
		unlock, err = state.Lock(ctx)
		return err
	})
	return unlock, err
}
