package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/say"
)

func syncCommand() command {
	return command{
		name:    "sync",
		summary: "Finish what a deploy left unfinished, and mend what changed since",
		about: `certbot calls a hook once, and never again when it failed. So run this from a
timer. It compares the lineages that were deployed before, the installed pair
and what each port serves, and does what is needed: a whole deploy, a reload,
a removed link, a lost pid file; or nothing, in a moment. After a failure it
waits longer each time, an hour at most, and says until when. What DANE holds
back it tries each time, and installs once the DNS has shown a record of it for
as long as others may remember the old ones. What a person rolled back stays so
until the lineage is renewed.`,
		examples: `  mailu-hook sync
  mailu-hook sync --now --lineage /etc/letsencrypt/live/mail.example.com`,
		flags: func(fs *pflag.FlagSet) {
			fs.StringArray("lineage", nil, "`DIR` of a lineage to consider besides those deployed before; repeatable")
			fs.Bool("now", false, "try at once, whatever failed before")
			deployFlags(fs)
		},
		run: runSync,
	}
}

func runSync(ctx context.Context, c *call) error {
	d := &deployment{c: c, unattended: true}
	defer d.close()
	return d.within(ctx, d.sync)
}

func (d *deployment) sync(ctx context.Context) error {
	lineages, _ := d.c.fs.GetStringArray("lineage")
	return d.mend(ctx, lineages)
}

// mend deploys what should be served, of these lineages and of those that were
// deployed before, if it is not.
func (d *deployment) mend(ctx context.Context, lineages []string) error {
	store, err := d.open(ctx)
	if err != nil {
		return err
	}
	state, err := store.State()
	if err != nil {
		d.note(err.Error())
	}
	if p := state.Pending; p.Waits(time.Now()) && !d.flag("now") {
		d.result.Next = p.Next
		return say.Hint(fmt.Errorf("%w: attempt %d failed: %s; the next is due at %s", hook.ErrWaiting, p.Attempts, p.Reason, p.Next.Format(time.RFC3339)),
			"mend the cause, and try at once with: mailu-hook sync --now")
	}
	if !store.Used() && len(lineages) == 0 {
		d.result.Outcome, d.result.Reason = hook.OutcomeSkipped, "nothing was deployed here yet"
		return nil
	}
	for _, seen := range state.Lineages {
		lineages = append(lineages, seen.Lineage)
	}
	wanted, problems := hook.Wanted(ctx, store, state, lineages, d.target.facts.Hostnames)
	var problem error
	if len(problems) > 0 {
		problem = problems[0] // one fits a line; once it is mended, the next run names the next
	}
	if wanted == nil && problem == nil {
		problem = say.Hint(errors.New("neither a lineage nor a generation holds a certificate for the mail server"), "install one: mailu-hook install --lineage DIR")
	}
	if wanted == nil {
		return problem
	}
	if problem != nil {
		d.note(problem.Error())
	}
	d.src = wanted.Source
	o, err := d.options()
	if err != nil {
		return err
	}
	if wanted.Lineage == "" { // installed before, and accepted then
		o.Rules.AllowUntrusted, o.ByHand, o.RollsBackFrom = true, true, state.RolledBackFrom
	} else if wanted, err = d.withRoot(wanted, o.Rules); err != nil {
		return err
	}
	return d.install(ctx, wanted, o)
}
