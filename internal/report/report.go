// Package report tells what a look at a mail server saw and what is wrong with
// it: to people, to monitoring plugins, to Prometheus and to scripts. Each
// format is a pure function from the same value, one file each, listed in
// [Formats].
package report

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/say"
)

// Report is one look and what was made of it.
type Report struct {
	health.Look
	Options  health.Options
	Findings []health.Finding // the worst first
	Took     time.Duration    // from the start of the program to the end of the look
}

// Of judges a look.
func Of(look health.Look, o health.Options) Report {
	return Report{Look: look, Options: o, Findings: health.Judge(look, o)}
}

// Failed is the report of a look that did not take place.
func Failed(err error, o health.Options) Report {
	r := Report{Look: health.Look{At: time.Now()}, Options: o}
	r.Add(health.LookFailed, err)
	return r
}

// Add adds that something could not be seen or done, with the hint of err.
func (r *Report) Add(code health.Code, err error) {
	r.Findings = health.WorstFirst(append(r.Findings, health.Finding{Severity: health.Unknown, Code: code, Text: err.Error(), Remedy: say.HintOf(err)}))
}

// Worst is the verdict.
func (r *Report) Worst() health.Severity { return health.Worst(r.Findings) }

// Complete reports whether everything was seen.
func (r *Report) Complete() bool {
	return !slices.ContainsFunc(r.Findings, func(f health.Finding) bool { return f.Severity == health.Unknown })
}

// Summary is the verdict in one sentence: the worst finding, or until when all
// is well.
func (r *Report) Summary() string {
	if len(r.Findings) > 0 {
		return r.Findings[0].Text
	}
	var parts []string
	for i := range r.Fronts {
		f := &r.Fronts[i]
		var soonest health.Life
		serving := 0
		for _, e := range f.Endpoints {
			if e.Chain == nil {
				continue
			}
			serving++
			if life := r.LifeOf(e.Chain); soonest.Leaf == nil || life.End().Before(soonest.End()) {
				soonest = life
			}
		}
		if soonest.Leaf != nil {
			parts = append(parts, fmt.Sprintf("%s serves %s on %d ports until %s (%s, %s)", f.Container, health.Main(soonest.Leaf), serving,
				say.Day(soonest.End()), health.Left(soonest.Left(r.At)), health.Percent(soonest.Fraction(r.At))))
		}
	}
	return strings.Join(parts, "; ")
}

// Format is one way to tell a report.
type Format struct {
	Name string
	Tell func(*Report, Screen) string
}

// Formats are all of them, the default first. Only the first heeds the screen.
var Formats = []Format{
	{"text", text},
	{"json", func(r *Report, _ Screen) string { return JSON(r) }},
	{"prometheus", func(r *Report, _ Screen) string { return Prometheus(r) }},
	{"nagios", func(r *Report, _ Screen) string { return Nagios(r) }},
}

// FormatNames are the words that choose a format.
func FormatNames() []string {
	var names []string
	for _, f := range Formats {
		names = append(names, f.Name)
	}
	return names
}

// Tell is the report in the format of that name; the first, if there is none.
func (r *Report) Tell(format string, s Screen) string {
	i := slices.IndexFunc(Formats, func(f Format) bool { return f.Name == format })
	return Formats[max(i, 0)].Tell(r, s)
}

// TextfileExt is how the name of a file ends that node_exporter reads.
const TextfileExt = ".prom"

// WriteTextfile writes the report as metrics for node_exporter's textfile
// collector, by one rename: the collector may read at any time. It reads *.prom
// only, so it never meets the file under its temporary name. After an error the
// old file is still there.
func (r *Report) WriteTextfile(name string) error {
	if err := prometheus.WriteToTextfile(name, r.metrics()); err != nil {
		return say.Hint(fmt.Errorf("writing the metrics to %s: %w", name, err), "check that its directory exists, that this user may write to it, and that there is room")
	}
	return nil
}

// coverage is how many of the front's names a leaf covers.
func coverage(leaf *x509.Certificate, names []string) string {
	missing := hook.Missing(leaf, names)
	switch {
	case len(names) == 0:
		return "?"
	case len(missing) == 0:
		return "all"
	}
	return fmt.Sprintf("%d of %d", len(names)-len(missing), len(names))
}

// chainWord is what clients can make of a chain.
func (r *Report) chainWord(chain []*x509.Certificate) string {
	complete, _ := health.Complete(chain)
	switch {
	case r.Roots == nil:
		return "unknown"
	case r.Trusts(chain):
		return "complete"
	case len(chain) == 1 && !complete:
		return "leaf_only"
	}
	return "untrusted"
}
