package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

// deployFlags declares the flags of every command that ends in a deploy.
func deployFlags(fs *pflag.FlagSet) {
	targetFlags(fs)
	fs.String("roots", "", "`FILE` with the CA certificates to trust instead of the system's")
	fs.Bool("allow-untrusted", false, "install a chain that leads to no trusted root (staging, own CA)")
	fs.String("append-root", "", "`FILE` with the root to send too, or auto for the trusted one; for those whose TLSA record is of the root")
	daneFlags(fs)
	fs.Int("keep", 3, "`NUMBER` of generations to keep for rollback")
	fs.Bool("dry-run", false, "check and compare everything, change nothing")
	settingFlags(fs)
}

// deployment is one deploy as the command line sees it.
type deployment struct {
	c      *call
	src    hook.Source
	asHook bool // called by certbot: passes over what is not Mailu's
	// unattended: nobody looks at the output, so it goes to syslog too, and
	// nobody insists on a certificate that is not newer.
	unattended bool
	target     *target
	engine     *reload.Engine
	store      *hook.Store
	result     hook.Result
	dane       []tlsa.Host // what the DNS said, if it was asked
	notes      []string
	began      time.Time // the first step was shown
	renewal    *renewal  // nil for all commands but renew
}

// deploy installs the bundle at src where it belongs, and reports.
func (c *call) deploy(ctx context.Context, src hook.Source, asHook bool) error {
	d := &deployment{c: c, src: src, asHook: asHook, unattended: asHook}
	defer d.close()
	return d.within(ctx, d.run)
}

// within runs work in the time that --timeout leaves, and reports its end.
func (d *deployment) within(ctx context.Context, work func(context.Context) error) error {
	return d.c.finish(d, d.c.limited(ctx, "timeout", work))
}

// limited runs work in the time that a flag leaves.
func (c *call) limited(ctx context.Context, flag string, work func(context.Context) error) error {
	timeout, _ := c.fs.GetDuration(flag)
	if timeout <= 0 {
		return usageError("--%s: %s is no time to work in", flag, timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the time is up (--%s %s)", flag, timeout))
	defer cancel()
	return work(ctx)
}

func (d *deployment) run(ctx context.Context) error {
	bundle, readErr := hook.Read(ctx, d.src)
	var rejected *hook.Rejection
	if readErr != nil && !(d.asHook && errors.As(readErr, &rejected) && rejected.Leaf != nil) {
		return readErr
	}
	d.result.Bundle = bundle
	if foreign, err := d.isForeign(ctx, leafOf(bundle, rejected)); foreign || err != nil {
		return err
	}
	if err := d.locate(ctx); err != nil {
		return err
	}
	if mine, err := d.isOurs(leafOf(bundle, rejected)); !mine || err != nil {
		return err
	}
	if readErr != nil {
		return readErr
	}
	if err := d.openStore(); err != nil {
		return err
	}
	o, err := d.options()
	if err != nil {
		return err
	}
	if bundle, err = d.withRoot(bundle, o.Rules); err != nil {
		return err
	}
	return d.install(ctx, bundle, o)
}

// open finds the front and opens its store, anew if that was done before.
func (d *deployment) open(ctx context.Context) (*hook.Store, error) {
	d.close()
	if err := d.locate(ctx); err != nil {
		return nil, err
	}
	err := d.openStore()
	return d.store, err
}

func (d *deployment) openStore() (err error) {
	facts := d.target.facts
	d.store, err = hook.OpenStore(facts.CertsDir, facts.CertName, facts.KeyName)
	return err
}

// close releases what locate and openStore opened, if they did.
func (d *deployment) close() {
	if d.store != nil {
		d.store.Close()
	}
	if d.engine != nil {
		d.engine.Close()
	}
	d.store, d.engine = nil, nil
}

// note tells people, once, what there is to know besides the outcome.
func (d *deployment) note(text string) {
	if text != "" && !slices.Contains(d.notes, text) {
		d.notes = append(d.notes, text)
	}
}

func leafOf(b *hook.Bundle, r *hook.Rejection) *x509.Certificate {
	if b == nil {
		return r.Leaf
	}
	return b.Leaf()
}

// isOurs holds the leaf against the front's hostnames. One that lacks the main
// name is another site's, which as a hook is no error.
func (d *deployment) isOurs(leaf *x509.Certificate) (bool, error) {
	names := d.target.facts.Hostnames
	if len(names) == 0 {
		if d.asHook {
			return false, say.Hint(usageErr{"no hostname of the mail server is known, so nothing was installed: this host may have certificates of other sites"},
				"add to %s the line MAILU_HOOK_HOSTNAME=mail.example.com", defaultConfig)
		}
		d.note("no hostname of the mail server is known: names not checked")
		return true, nil
	}
	missing := hook.Missing(leaf, names)
	switch {
	case len(missing) == 0:
	case missing[0] != names[0]:
		d.note("does not cover " + quoteList(missing))
	case d.asHook:
		d.notes = nil // how Mailu is doing is no news about another site
		d.passOver(names[0])
		return false, nil
	default:
		return false, &hook.Rejection{
			File: d.src.CertFile, Leaf: leaf,
			Fact:   fmt.Sprintf("it does not cover %s, the main name of the mail server (it covers %s)", names[0], quoteList(leaf.DNSNames)),
			Remedy: "name the right lineage, or say with --hostname which name the mail server has",
		}
	}
	return true, nil
}

// isForeign tells sooner that a lineage is another site's: where there is only
// the front of last time, what it said of itself then is still true. Hosts with
// many sites call the hook for each of them.
func (d *deployment) isForeign(ctx context.Context, leaf *x509.Certificate) (bool, error) {
	if !d.asHook {
		return false, nil
	}
	if err := d.openEngine(); err != nil {
		return false, err
	}
	limited, cancel := d.engineTime(ctx)
	defer cancel()
	id, dir := d.engine.Only(limited, d.selector())
	facts, known := remembered(dir)
	t := &target{facts: facts}
	if !known || facts.ID != id || d.c.override(t) != nil || len(hook.Missing(leaf, t.facts.Hostnames[:1])) == 0 {
		return false, nil // then all is to be found out
	}
	d.target = t
	d.passOver(t.facts.Hostnames[0])
	return true, nil
}

func (d *deployment) passOver(name string) {
	d.result.Outcome = hook.OutcomeSkipped
	d.result.Reason = fmt.Sprintf("not Mailu's: it does not cover %s", name)
}

// options are those of a deploy to the target, as the flags have it.
func (d *deployment) options() (hook.Options, error) {
	roots, err := d.c.pool("roots")
	if err != nil {
		return hook.Options{}, err
	}
	guard, err := d.guard()
	grace, _ := d.c.fs.GetDuration("dane-grace")
	return hook.Options{
		Rules:    hook.Rules{Roots: roots, AllowUntrusted: d.flag("allow-untrusted"), NoTest: d.target.front == nil},
		ByHand:   !d.unattended,
		DryRun:   d.flag("dry-run"),
		Guard:    guard,
		Grace:    grace,
		Keep:     d.keep(),
		Rollback: d.timeout(),
		Facts:    d.target.facts,
		Unasked:  d.target.unasked,
		Progress: d.progress(),
	}, err
}

func (d *deployment) install(ctx context.Context, bundle *hook.Bundle, o hook.Options) (err error) {
	var f hook.Front // stays nil without a front to ask
	if d.target.front != nil {
		f = d.target.front
	}
	d.result, err = hook.Deploy(ctx, bundle, d.store, f, o)
	return err
}

func (d *deployment) flag(name string) bool {
	value, _ := d.c.fs.GetBool(name)
	return value
}

func (d *deployment) timeout() time.Duration {
	value, _ := d.c.fs.GetDuration("timeout")
	return value
}

func (d *deployment) keep() int {
	value, _ := d.c.fs.GetInt("keep")
	return max(1, value)
}
