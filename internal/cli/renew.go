package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/say"
)

func renewCommand() command {
	return command{
		name:    "renew",
		summary: "Obtain or renew the certificate without certbot, and install it",
		about: `Orders a certificate for the front's HOSTNAMES when there is none yet or the
one there is gets old, and installs it as the deploy hook would. The front
itself answers the CA's challenge and keeps serving meanwhile; --challenge
chooses another way. When nothing is due it makes sure that what it obtained
is served, and exits 0; so run it from a timer, twice a day.

Before the CA is asked, it looks whether the answer can be seen, which costs
nothing of the CA's limits. After a failure nothing has changed, and the next
try waits longer each time, as long as the CA wants at least. A run that was
killed is taken up by the next one, without a second certificate.`,
		examples: `  mailu-hook renew --agree-tos --email admin@example.com
  mailu-hook renew --agree-tos --dry-run
  mailu-hook renew --challenge dns --dns-provider rfc2136 \
      --hostname '*.example.com' --hostname example.com`,
		flags: func(fs *pflag.FlagSet) {
			fs.Bool("agree-tos", false, "agree to the CA's terms of service; needed once, for a new account")
			fs.String("email", "", "`ADDRESS` for the account, where the CA may write to; optional")
			caFlags(fs)
			challengeFlags(fs)
			certificateFlags(fs)
			fs.Bool("force", false, "renew although it is not due")
			fs.Bool("now", false, "try at once, whatever failed before")
			fs.Duration("min-interval", acme.DefaultInterval, "least `TIME` between two issuances, unless something new is asked for")
			fs.Duration("issue-timeout", 10*time.Minute, "`TIME` after which to give up on the CA")
			fs.String("letsencrypt-dir", "/etc/letsencrypt", "`DIR` of certbot, whose certificates are left to it")
			fs.Bool("force-standalone", false, "go on although certbot manages the name")
			deployFlags(fs)
		},
		run: runRenew,
	}
}

func runRenew(ctx context.Context, c *call) error {
	d := &deployment{c: c, unattended: true}
	r := &renewal{deployment: d}
	d.renewal = r
	defer d.close()
	return c.finish(d, r.run(ctx))
}

// renewal is one run of renew.
type renewal struct {
	*deployment
	method  acme.Method
	client  acme.Options
	want    acme.Request
	lineage *acme.Lineage
	due     acme.Due
	issued  bool
}

func (r *renewal) run(ctx context.Context) error {
	if err := r.c.limited(ctx, "timeout", r.prepare); err != nil {
		return err
	}
	state, err := acme.OpenState(r.c.text("state-dir"))
	if err != nil {
		return err
	}
	defer state.Close()
	unlock, err := lockState(ctx, r.c, state)
	if err != nil {
		return err
	}
	defer unlock()
	if r.lineage, err = state.Lineage(r.want.LineageName()); err != nil {
		return err
	}
	r.cleanUp(ctx)
	if err := r.lineage.Complete(); err != nil {
		return err
	}
	if err := r.finishFirst(ctx); err != nil {
		r.note("what was obtained before is not served yet: " + err.Error())
	}
	failed := r.c.limited(ctx, "issue-timeout", func(ctx context.Context) error { return r.obtain(ctx, state) })
	if r.flag("dry-run") && failed == nil {
		r.result.Outcome = hook.OutcomeWouldInstall
		r.result.Reason = "the CA issued a certificate for " + quoteList(r.want.Names) + ", which was thrown away"
		return nil
	}
	if r.flag("dry-run") || errors.Is(failed, errUsage) || failed != nil && ctx.Err() != nil {
		return failed
	}
	return r.deliver(ctx, failed)
}

// prepare finds out what is wanted, and refuses what cannot be.
func (r *renewal) prepare(ctx context.Context) (err error) {
	if _, err := r.open(ctx); err != nil {
		return err
	}
	if r.method, err = r.chooseMethod(); err != nil {
		return err
	}
	if r.want, err = r.request(); err != nil {
		return err
	}
	if err := acme.CheckNames(r.want.Names, r.method, r.want.Profile, r.c.text("ca-file") != ""); err != nil {
		return say.Hint(usageErr{err.Error()}, "%s", say.HintOf(err))
	}
	if r.client, err = r.c.client(); err != nil || r.flag("force-standalone") {
		return err
	}
	return leaveToCertbot(r.c.text("letsencrypt-dir"), r.want.Names[0])
}

// cleanUp takes away what a run that was killed showed the CA. None is under way,
// as this one holds the lock.
func (r *renewal) cleanUp(ctx context.Context) {
	if r.target.front == nil {
		return
	}
	if err := r.c.limited(ctx, "timeout", r.target.front.ForgetChallenges); err != nil {
		r.note(err.Error())
	}
}

// finishFirst finishes a deploy that an earlier run began, before the CA may take
// its time.
func (r *renewal) finishFirst(ctx context.Context) error {
	state, _ := r.store.State() // one that is damaged has nothing under way
	if state.Pending == nil || r.lineage.Leaf == nil || r.flag("dry-run") {
		return nil
	}
	return r.c.limited(ctx, "timeout", func(ctx context.Context) error { return r.mend(ctx, []string{r.lineage.Live()}) })
}

// obtain orders a certificate if one is due and may be tried for.
func (r *renewal) obtain(ctx context.Context, state *acme.State) error {
	client := acme.NewClient(ctx, state, r.client)
	client.OnProgress(r.tell)
	defer client.Close()
	if r.flag("dry-run") {
		r.due = acme.Due{Now: true, Reason: "it is a dry run"}
		return r.order(ctx, client)
	}
	now := time.Now()
	if err := client.Refresh(r.lineage, now); err != nil {
		r.c.log.Warn("no renewal information", "error", err)
	}
	r.due = r.lineage.Due(r.want, now, r.flag("force"))
	if err := r.chooseKey(ctx, now); err != nil {
		return err
	}
	if !r.due.Now {
		r.note(fmt.Sprintf("not due: %s, to be renewed at %s", r.due.Reason, r.due.At.UTC().Format(time.RFC3339)))
		return nil
	}
	interval, _ := r.c.fs.GetDuration("min-interval")
	if until, reason := r.lineage.Wait(r.due, interval, now, r.flag("now")); !until.IsZero() {
		r.result.Next = until
		return say.Hint(fmt.Errorf("%w: not yet time to try: %s; the next try is due at %s", acme.ErrFailed, reason, until.UTC().Format(time.RFC3339)),
			"after a failure of your own that is mended: mailu-hook renew --now; for another certificate all the same: --force --min-interval 1s")
	}
	return r.order(ctx, client)
}

func (r *renewal) order(ctx context.Context, client *acme.Client) error {
	r.tell("due: " + r.due.Reason)
	if err := client.SignIn(r.lineage); err != nil {
		return err
	}
	solver, done, err := r.solver(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", acme.ErrFailed, err)
	}
	defer done()
	err = client.Obtain(r.lineage, r.want, solver)
	r.issued = err == nil
	return err
}

// deliver makes sure that the lineage is served. failed is why there is no new
// certificate in it although one was due, nil if there is one or none was due.
func (r *renewal) deliver(ctx context.Context, failed error) error {
	var lineages []string
	if r.lineage.Leaf != nil {
		lineages = append(lineages, r.lineage.Live())
	}
	err := r.c.limited(ctx, "timeout", func(ctx context.Context) error {
		if r.issued {
			return r.installLineage(ctx)
		}
		return r.mend(ctx, lineages)
	})
	switch {
	case failed != nil:
		if err != nil {
			r.note("what was obtained before is not served either: " + err.Error())
		}
		return failed
	case r.issued:
		r.note("renewed because " + r.due.Reason)
	}
	return err
}

// installLineage installs what was obtained, whatever is installed.
func (r *renewal) installLineage(ctx context.Context) error {
	r.src = hook.LineageSource(r.lineage.Live())
	bundle, err := hook.Read(ctx, r.src)
	if err != nil {
		return err
	}
	r.result.Bundle = bundle
	if _, err := r.open(ctx); err != nil { // the front may be another one by now
		return err
	}
	o, err := r.options()
	if err != nil {
		return err
	}
	o.ByHand = true
	if lacks := hook.Missing(bundle.Leaf(), r.want.Names); len(lacks) > 0 {
		r.note("does not cover " + quoteList(lacks))
	}
	return r.install(ctx, bundle, o)
}

// renewalDoc is what JSON tells of a renewal, beside the deploy.
type renewalDoc struct {
	Names    []string  `json:"names"`
	Server   string    `json:"server"`
	Due      bool      `json:"due"`
	Reason   string    `json:"reason"`
	Issued   bool      `json:"issued"`
	At       time.Time `json:"renew_at,omitzero"`
	Start    time.Time `json:"suggested_start,omitzero"`
	End      time.Time `json:"suggested_end,omitzero"`
	Failures int       `json:"failures"`
}

func (r *renewal) document() *renewalDoc {
	if r == nil {
		return nil
	}
	doc := &renewalDoc{Names: r.want.Names, Server: r.want.Directory, Due: r.due.Now, Reason: r.due.Reason, Issued: r.issued, At: r.due.At}
	if l := r.lineage; l != nil {
		doc.Failures = l.Failures
		if l.Info != nil {
			doc.Start, doc.End = l.Info.Start, l.Info.End
		}
	}
	return doc
}
