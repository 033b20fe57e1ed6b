package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/internal/health"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
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
		formats: []string{"text", "json", "prometheus", "nagios"},
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

// status is one look and what is made of it.
type status struct {
	c        *call
	began    time.Time
	options  health.Options
	look     health.Look
	dane     map[string][]tlsa.Host // what the DNS said, by container
	findings []health.Finding
}

// verdict is how a status ends that is not all well.
type verdict struct{ health.Severity }

func (v verdict) Error() string { return v.String() }

func runStatus(ctx context.Context, c *call) error {
	s := &status{c: c, began: time.Now()}
	timeout := (&deployment{c: c}).timeout()
	if timeout <= 0 {
		return usageError("--timeout: %s is no time to look in", timeout)
	}
	if err := s.readOptions(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the time is up (--timeout %s)", timeout))
	defer cancel()
	if err := s.lookAround(ctx, timeout); err != nil {
		return err
	}
	s.findings = health.Judge(s.look, s.options)
	return s.report()
}

func (s *status) readOptions() (err error) {
	for _, t := range []struct {
		flag string
		to   *health.Threshold
	}{{"warn", &s.options.Warn}, {"crit", &s.options.Crit}} {
		if *t.to, err = health.ParseThreshold(s.c.text(t.flag)); err != nil {
			return usageError("%s: %v", s.c.origin(t.flag), err)
		}
	}
	if name := s.c.text("textfile"); name != "" && filepath.Ext(name) != ".prom" {
		return usageError("%s: node_exporter reads no file but *.prom, and this is %s", s.c.origin("textfile"), say.Foreign(name))
	}
	ignored, _ := s.c.fs.GetStringSlice("ignore")
	for _, code := range ignored {
		if !slices.Contains(health.Codes, health.Code(code)) {
			return usageError("--ignore: there is no finding %s", say.Foreign(code))
		}
		s.options.Ignore = append(s.options.Ignore, health.Code(code))
	}
	if s.look.Roots, err = s.c.pool("roots"); err != nil || s.look.Roots != nil {
		return err
	}
	s.look.Roots, s.look.RootsErr = x509.SystemCertPool()
	return nil
}

// failStatus reports an error from before there was anything to report, in the
// form that was asked for: whoever reads that is not told "critical" because of
// a misspelt flag.
func failStatus(c *call, err error) error {
	s := &status{c: c, began: time.Now(), look: health.Look{At: time.Now()}}
	s.findings = []health.Finding{{Severity: health.Unknown, Code: health.LookFailed, Text: err.Error(), Remedy: say.HintOf(err)}}
	writeError(c.stderr, err)
	if slices.Contains(c.formats[1:], c.text("output")) {
		return s.report()
	}
	_ = s.writeTextfile() // the error is what there is to tell
	return &reportedError{verdict{health.Unknown}}
}

// report prints what was found in the form that was asked for, and returns the
// verdict as an error.
func (s *status) report() error {
	if err := s.writeTextfile(); err != nil {
		s.findings = health.WorstFirst(append(s.findings, health.Finding{Severity: health.Unknown, Code: health.TextfileFailed, Text: err.Error(), Remedy: say.HintOf(err)}))
	}
	form := map[string]func() string{"json": s.json, "prometheus": s.prometheus, "nagios": s.nagios}[s.c.text("output")]
	if form == nil {
		form = s.text
	}
	if _, err := fmt.Fprint(s.c.stdout, form()); err != nil {
		writeError(s.c.stderr, fmt.Errorf("writing the result: %w", err))
		return &reportedError{verdict{health.Unknown}}
	}
	if worst := health.Worst(s.findings); worst != health.OK {
		return &reportedError{verdict{worst}}
	}
	return nil
}

// summary is the verdict in one sentence: the worst finding, or until when all
// is well.
func (s *status) summary() string {
	if len(s.findings) > 0 {
		return s.findings[0].Text
	}
	var parts []string
	for i := range s.look.Fronts {
		f := &s.look.Fronts[i]
		var soonest *x509.Certificate
		for _, e := range f.Endpoints {
			if leaf := health.Leaf(e.Chain); leaf != nil && (soonest == nil || leaf.NotAfter.Before(soonest.NotAfter)) {
				soonest = leaf
			}
		}
		if soonest != nil {
			parts = append(parts, fmt.Sprintf("%s serves %s on %d ports until %s (%s, %s)", f.Container, health.Main(soonest), len(f.Endpoints),
				date(soonest.NotAfter), health.Left(soonest.NotAfter.Sub(s.look.At)), health.Percent(health.FractionLeft(soonest, s.look.At))))
		}
	}
	return strings.Join(parts, "; ")
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }
