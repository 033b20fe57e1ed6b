package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
	"mailu-hook/internal/survey"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

func statusCommand() command {
	return command{
		name:    "status",
		summary: "Tell whether mail TLS is fine, until when, and what is wrong",
		about: `It compares the lineage, the installed pair and what each port of each front
shows, looks at container, daemons, links and timers, and tells the worst
first, each with its remedy. It changes nothing, opens no private key, and ends
within --timeout, whatever hangs. What it could not see makes it exit 3, never
0. It works for a user who may use the Docker socket; to see all, it needs root.

A certificate is worth a warning when a quarter of its lifetime is left, and
critical at an eighth: certbot renews at a third.`,
		examples: `  mailu-hook status
  mailu-hook status --output nagios --warn 20d --crit 7d
  mailu-hook status --textfile /var/lib/prometheus/node-exporter/mailu.prom`,
		exits: `  0  all is well
  1  warning: something will go wrong if it stays as it is
  2  critical: something is wrong now, or soon
  3  unknown: something could not be seen, or the command line is wrong
`,
		formats: report.FormatNames(),
		flags:   statusFlags,
		failed:  failStatus,
		run:     runStatus,
	}
}

func statusFlags(fs *pflag.FlagSet) {
	targetFlags(fs)
	fs.StringArray("lineage", nil, "`DIR` of a lineage to compare besides those deployed before; repeatable")
	fs.String("roots", "", "`FILE` with the CA certificates to trust instead of the system's")
	fs.String("warn", health.DefaultWarn.String(), "`LEFT` of a certificate's life that is worth a warning: days (20d) or a fraction (25%, 0.25)")
	fs.String("crit", health.DefaultCrit.String(), "`LEFT` that is critical, likewise")
	fs.StringSlice("ignore", nil, "`CODE` of a finding that is not to count, such as sync_timer_missing; repeatable")
	fs.String("state-dir", acme.DefaultStateDir, "`DIR` where renew keeps what it obtained")
	fs.String("dane", "auto", "`MODE`: auto or require look up the TLSA records of each host, off does not")
	resolverFlags(fs)
	fs.String("textfile", "", "`FILE` to write as Prometheus metrics besides, for node_exporter; its name ends in .prom")
	settingFlags(fs)
	for name, change := range map[string]struct{ value, usage string }{
		"timeout":   {"10s", "`TIME` after which to tell what was seen until then"},
		"output":    {"text", "`FORMAT` of the result: text, json, prometheus or nagios"},
		"container": {"", "`NAME` of the only front container to look at (default: all fronts)"},
		"project":   {"", "`NAME` of the Compose project to look at"},
	} {
		f := fs.Lookup(name)
		f.Usage, f.DefValue = change.usage, change.value
		_ = f.Value.Set(change.value) // a valid one
	}
}

// verdict is how a status ends that is not all well.
type verdict struct{ health.Severity }

func (v verdict) Error() string { return v.String() }

func runStatus(ctx context.Context, c *call) error {
	began := time.Now()
	timeout, _ := c.fs.GetDuration("timeout")
	if timeout <= 0 {
		return usageError("--timeout must be positive")
	}
	judging, err := c.judging()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the time is up (--timeout %s)", timeout))
	defer cancel()
	looking, err := c.looking()
	if err != nil {
		return err
	}
	defer looking.Engine.Close()
	look, err := survey.Look(ctx, looking)
	if err != nil {
		return err
	}
	r := report.Of(look, judging)
	r.Took = time.Since(began)
	return c.tell(&r)
}

// judging is what the flags say of how to judge.
func (c *call) judging() (o health.Options, err error) {
	for _, t := range []struct {
		flag string
		to   *health.Threshold
	}{{"warn", &o.Warn}, {"crit", &o.Crit}} {
		if *t.to, err = health.ParseThreshold(c.text(t.flag)); err != nil {
			return o, usageError("%s: %v", c.origin(t.flag), err)
		}
	}
	ignored, _ := c.fs.GetStringSlice("ignore")
	for _, code := range ignored {
		if !slices.Contains(health.Codes, health.Code(code)) {
			return o, usageError("--ignore: there is no finding %s", say.Foreign(code))
		}
		o.Ignore = append(o.Ignore, health.Code(code))
	}
	if name := c.text("textfile"); name != "" && filepath.Ext(name) != report.TextfileExt {
		return o, usageError("%s: node_exporter reads only *%s files, not %s", c.origin("textfile"), report.TextfileExt, say.Foreign(name))
	}
	return o, nil
}

// looking is what the flags say of where to look. Whoever calls it must close
// the engine.
func (c *call) looking() (o survey.Options, err error) {
	o = survey.Options{
		Fronts:   reload.Selector{Container: c.text("container"), Project: c.text("project")},
		Recall:   c.recallNamed,
		Override: func(facts *mailu.Facts) error { return c.overrideFacts(facts) },
		StateDir: c.text("state-dir"),
	}
	o.Lineages, _ = c.fs.GetStringArray("lineage")
	mode, err := c.dane()
	if err != nil {
		return o, err
	}
	if mode != tlsa.Off {
		if o.Resolver, err = c.resolver(); err != nil {
			return o, err
		}
	}
	if o.Roots, err = c.pool("roots"); err != nil {
		return o, err
	}
	if o.Roots == nil {
		o.Roots, o.RootsErr = x509.SystemCertPool()
	}
	if o.Engine, err = reload.Open(c.settings); err != nil {
		return o, say.Hint(usageErr{err.Error()}, "%s", say.HintOf(err))
	}
	return o, nil
}

// recallNamed is what is known of a front that no engine tells of.
func (c *call) recallNamed() mailu.Facts {
	facts := c.recall()
	if names, _ := c.fs.GetStringSlice("hostname"); len(names) > 0 {
		facts.Hostnames = names
	}
	return facts
}

func (c *call) overrideFacts(facts *mailu.Facts) error {
	t := &target{facts: *facts}
	err := c.override(t)
	*facts = t.facts
	return err
}

// failStatus reports an error from before there was anything to report, in the
// form that was asked for: monitoring must not read "critical" because of a
// misspelt flag.
func failStatus(c *call, err error) error {
	r := report.Failed(err, health.Options{Warn: health.DefaultWarn, Crit: health.DefaultCrit})
	writeError(c.stderr, err)
	if slices.Contains(c.formats[1:], c.text("output")) {
		return c.tell(&r)
	}
	_ = c.writeTextfile(&r) // the error is what there is to tell
	return &reportedError{verdict{health.Unknown}}
}

// tell prints a report in the form that was asked for, and returns the verdict as
// an error.
func (c *call) tell(r *report.Report) error {
	if err := c.writeTextfile(r); err != nil {
		r.Add(health.TextfileFailed, err)
	}
	if _, err := fmt.Fprint(c.stdout, r.Tell(c.text("output"), c.screen())); err != nil {
		writeError(c.stderr, fmt.Errorf("writing the result: %w", err))
		return &reportedError{verdict{health.Unknown}}
	}
	if worst := r.Worst(); worst != health.OK {
		return &reportedError{verdict{worst}}
	}
	return nil
}

func (c *call) writeTextfile(r *report.Report) error {
	name := c.text("textfile")
	if filepath.Ext(name) != report.TextfileExt { // also none at all
		return nil
	}
	return r.WriteTextfile(name)
}

// screen is what stdout is shown on.
func (c *call) screen() report.Screen {
	if !isTerminal(c.stdout) {
		return report.Screen{}
	}
	return report.Screen{Width: terminalWidth(c.stdout), Color: c.env("NO_COLOR") == "" && c.env("TERM") != "dumb"}
}
