package cli

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"mailu-hook/internal/health"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

func statusCommand() command {
	return command{
		name:    "status",
		summary: "Report whether mail TLS is fine, until when, and what is wrong",
		about: `Compares the lineage, the installed pair and what each port of each front
serves, checks the container, its daemons, links and timers, and reports the
worst first, each with its remedy. It changes nothing, and always returns
within --timeout. If it could not check something it exits 3 (unknown), never 0.
It needs root to see everything. To let a monitoring user run it, put this line
into /etc/sudoers.d/mailu-hook:

  nagios ALL=(root) NOPASSWD: /usr/local/bin/mailu-hook status --output nagios

--ask HOST looks at a name from outside instead, at each of its addresses.

By default a certificate is a warning when a quarter of its lifetime is left,
and critical at an eighth: certbot renews at a third.`,
		examples: `  mailu-hook status
  mailu-hook status --output nagios --warn 20d --crit 7d
  mailu-hook status --ask mail.example.com
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
	lookOptions
	textfile string
}

func (o *statusOptions) add(fs *flags) {
	fs.StringArrayVar(&o.lineages, "lineage", nil, "`DIR` lineage to compare in addition to those deployed before; repeatable")
	o.judgingOptions.add(fs.FlagSet)
	fs.StringSliceVar(&o.ask, "ask", nil, "`HOST` look at this name from outside, at each of its addresses, and ask no engine (with --container or --project: compare both); repeatable")
	fs.IntSliceVar(&o.ports, "ports", nil, "`NUMBERS` ports of --ask, which must all answer (default: those of a mail server that do)")
	fs.StringVar(&o.textfile, "textfile", "", "`FILE` also write Prometheus metrics there (*.prom), for node_exporter")
	fs.StringVar(&o.roots, "roots", "", "`FILE` CA certificates to trust instead of the system's")
	fs.StringVar(&o.mode, "dane", string(tlsa.Auto), "`MODE` auto: check the TLSA records of each host; require: report also where they cannot be checked; off: do not look")
	fs.group("Front", frontPart{&o.front, frontTexts{
		container: "`NAME` the only front container to look at (default: all fronts)",
		project:   "`NAME` Compose project to look at",
		timeout:   "time limit; what was seen by then is reported", limit: 10 * time.Second,
	}})
	offer(fs.FlagSet, "dane", tlsa.Modes)
	fs.group("DNS", &o.dns)
	fs.group("State", &o.state)
}

func (o *statusOptions) longest() time.Duration { return o.front.timeout }

func (o *statusOptions) run(ctx context.Context, i *invocation) (result, error) {
	began := time.Now()
	if o.textfile != "" && filepath.Ext(o.textfile) != report.TextfileExt {
		return statusFailed(i.hinted(usageError("%s: node_exporter reads only *%s files, not %s", i.origin("textfile", o.textfile), report.TextfileExt, say.Foreign(o.textfile))))
	}
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
