package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/deploy"
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
		summary: "Report whether mail TLS is fine, until when, and what is wrong",
		about: `Compares the lineage, the installed pair and what each port of each front
serves, checks the container, its daemons, links and timers, and reports the
worst first, each with its remedy. It changes nothing, never reads a private
key, and always returns within --timeout. If it could not check something it
exits 3 (unknown), never 0. It needs root to see everything. To let a
monitoring user run it, put this line into /etc/sudoers.d/mailu-hook:

  nagios ALL=(root) NOPASSWD: /usr/local/bin/mailu-hook status --output nagios

By default a certificate is a warning when a quarter of its lifetime is left,
and critical at an eighth: certbot renews at a third.`,
		examples: `  mailu-hook status
  mailu-hook status --output nagios --warn 20d --crit 7d
  mailu-hook status --textfile /var/lib/prometheus/node-exporter/mailu.prom`,
		exits: `  0  all is well
  1  warning: something will go wrong if nothing is done
  2  critical: something is wrong now, or soon
  3  unknown: something could not be checked, or a usage error
`,
		options: func() action { return &statusOptions{} },
		formats: report.FormatNames(),
		failed:  statusFailed,
	}
}

type statusOptions struct {
	front            frontOptions
	lineages         []string
	roots            string
	state            stateOptions
	warn, crit, mode string
	ignore           []string
	textfile         string
	dns              resolverOptions
}

func (o *statusOptions) add(fs *flags) {
	fs.StringArrayVar(&o.lineages, "lineage", nil, "`DIR` lineage to compare in addition to those deployed before; repeatable")
	fs.StringVar(&o.warn, "warn", health.DefaultWarn.String(), "`LEFT` warn when less than this is left: days (20d) or a fraction of the lifetime (25%, 0.25)")
	fs.StringVar(&o.crit, "crit", health.DefaultCrit.String(), "`LEFT` critical when less than this is left, likewise")
	fs.StringSliceVar(&o.ignore, "ignore", nil, "`CODE` finding to ignore; repeatable. Codes: "+strings.Join(health.CodeNames(), ", "))
	fs.StringVar(&o.textfile, "textfile", "", "`FILE` also write Prometheus metrics there (*.prom), for node_exporter")
	fs.StringVar(&o.roots, "roots", "", "`FILE` CA certificates to trust instead of the system's")
	fs.StringVar(&o.mode, "dane", string(tlsa.Auto), "`MODE` auto: check the TLSA records of each host; require: report also where they cannot be checked; off: do not look")
	fs.group("Front", frontPart{&o.front, frontTexts{
		container: "`NAME` the only front container to look at (default: all fronts)",
		project:   "`NAME` Compose project to look at",
		timeout:   "time limit; what was seen by then is reported", limit: 10 * time.Second,
	}})
	offer(fs.FlagSet, "ignore", health.Codes)
	offer(fs.FlagSet, "dane", tlsa.Modes)
	fs.group("DNS", &o.dns)
	fs.group("State", &o.state)
}

func (o *statusOptions) longest() time.Duration { return o.front.timeout }

func (o *statusOptions) run(ctx context.Context, i *invocation) (result, error) {
	began := time.Now()
	r, err := o.look(ctx, i)
	if err != nil {
		res, err := statusFailed(i.hinted(err))
		_ = o.writeTextfile(res.(*status).Report) // the error is what there is to tell
		return res, err
	}
	r.Took = time.Since(began)
	if err := o.writeTextfile(r); err != nil {
		r.Add(health.TextfileFailed, err)
	}
	if worst := r.Worst(); worst != health.OK {
		return &status{r}, verdict{worst}
	}
	return &status{r}, nil
}

func (o *statusOptions) look(ctx context.Context, i *invocation) (*report.Report, error) {
	if err := positive("timeout", o.front.timeout); err != nil {
		return nil, err
	}
	judging, err := o.judging(i)
	if err != nil {
		return nil, err
	}
	looking, err := o.looking(i)
	if err != nil {
		return nil, err
	}
	defer looking.Engine.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, o.front.timeout, fmt.Errorf("the time is up (--timeout %s)", o.front.timeout))
	defer cancel()
	look, err := survey.Look(ctx, looking)
	if err != nil {
		return nil, err
	}
	r := report.Of(look, judging)
	return &r, nil
}

// judging is what the options say of how to judge.
func (o *statusOptions) judging(i *invocation) (h health.Options, err error) {
	for _, t := range []struct {
		flag, text string
		to         *health.Threshold
	}{{"warn", o.warn, &h.Warn}, {"crit", o.crit, &h.Crit}} {
		if *t.to, err = health.ParseThreshold(t.text); err != nil {
			return h, usageError("%s: %v", i.origin(t.flag, t.text), err)
		}
	}
	if h.Crit.Exceeds(h.Warn) {
		return h, say.Hint(usageError("--crit %s is more than --warn %s, so nothing would ever be a warning", h.Crit, h.Warn), "set both, such as --warn 20%% --crit 10%%")
	}
	for _, code := range o.ignore {
		if !slices.Contains(health.Codes, health.Code(code)) {
			return h, usageError("--ignore: there is no finding %s", say.Foreign(code))
		}
		h.Ignore = append(h.Ignore, health.Code(code))
	}
	mode, err := tlsa.ParseMode(o.mode)
	if err != nil {
		return h, usageError("--dane: %v", err)
	}
	h.RequireDANE = mode == tlsa.Require
	h.Pinned = i.settings(variable("lineage"))
	if o.textfile != "" && filepath.Ext(o.textfile) != report.TextfileExt {
		return h, usageError("%s: node_exporter reads only *%s files, not %s", i.origin("textfile", o.textfile), report.TextfileExt, say.Foreign(o.textfile))
	}
	return h, nil
}

// looking is what the options say of where to look. The caller closes the engine.
func (o *statusOptions) looking(i *invocation) (s survey.Options, err error) {
	s = survey.Options{
		Fronts: o.front.selector(), Lineages: o.lineages, StateDir: o.state.stateDir, Certbot: o.state.certbotDir, RootsFile: o.roots,
		Recall: func() mailu.Facts {
			facts := deploy.Recall(o.state.stateDir, o.front.certsDir)
			if len(o.front.hostnames) > 0 {
				facts.Hostnames = o.front.hostnames
			}
			return facts
		},
		Override: func(facts *mailu.Facts) error { return deploy.Override(facts, o.front.certsDir, o.front.hostnames) },
	}
	if o.mode != string(tlsa.Off) { // it was parsed before
		if s.Resolver, err = o.dns.open(); err != nil {
			return s, err
		}
	}
	if s.Roots, err = readPool("roots", o.roots); err != nil {
		return s, err
	}
	if s.Roots == nil {
		s.Roots, s.RootsErr = x509.SystemCertPool()
	}
	if s.Engine, err = reload.Open(i.settings); err != nil {
		err = say.Hint(usageError("%v", err), "%s", cmp.Or(say.HintOf(err), "check DOCKER_HOST"))
	}
	return s, err
}

func (o *statusOptions) writeTextfile(r *report.Report) error {
	if filepath.Ext(o.textfile) != report.TextfileExt { // also none at all
		return nil
	}
	return r.WriteTextfile(o.textfile)
}

// status is a report as a result.
type status struct{ *report.Report }

// statusFailed makes a report of an error that came before there was anything to
// report: monitoring must not read "critical" because of a misspelt flag.
func statusFailed(err error) (result, error) {
	r := report.Failed(err, health.Options{Warn: health.DefaultWarn, Crit: health.DefaultCrit})
	return &status{&r}, lookFailed{err}
}

func (s *status) tell(format string, err error, on report.Screen) string {
	var failed lookFailed
	if errors.As(err, &failed) && !slices.Contains(report.FormatNames()[1:], format) {
		return "" // people read the error
	}
	return s.Tell(format, on)
}
