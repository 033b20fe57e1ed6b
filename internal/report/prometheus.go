package report

import (
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/say"
)

// sighted is a chain and where it was seen, by a word for perfdata.
type sighted struct {
	label string
	chain []*x509.Certificate
}

func certificates(f *health.Front) (all []sighted) {
	if f.Directory.Chain != nil {
		all = append(all, sighted{"installed", f.Directory.Chain})
	}
	for _, e := range f.Endpoints {
		if e.Answers() {
			all = append(all, sighted{"port_" + strconv.Itoa(e.Number), e.Chain})
		}
	}
	return all
}

// metrics are samples by family, in the order in which families came up
// (Prometheus' text format, version 0.0.4).
type metrics struct {
	order   []string
	help    map[string]string
	samples map[string][]string
	series  map[string]bool // that have a sample
}

// gauge adds a sample; labels are names and values by turns. Of two with the same
// labels the first stays: Prometheus rejects all of a file with duplicates.
func (m *metrics) gauge(name, help string, value float64, labels ...string) {
	if m.help == nil {
		m.help, m.samples, m.series = map[string]string{}, map[string][]string{}, map[string]bool{}
	}
	name = "mailu_hook_" + name
	if m.help[name] == "" {
		m.order, m.help[name] = append(m.order, name), help
	}
	var pairs []string
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+`="`+escapeLabel.Replace(say.Plain(labels[i+1]))+`"`)
	}
	sample := name
	if pairs != nil {
		sample += "{" + strings.Join(pairs, ",") + "}"
	}
	if m.series[sample] {
		return
	}
	m.series[sample] = true
	m.samples[name] = append(m.samples[name], sample+" "+strconv.FormatFloat(value, 'f', -1, 64))
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (m *metrics) String() string {
	var out strings.Builder
	for _, name := range m.order {
		fmt.Fprintf(&out, "# HELP %s %s\n# TYPE %s gauge\n%s\n", name, m.help[name], name, strings.Join(m.samples[name], "\n"))
	}
	return out.String()
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.Unix()) }

// Prometheus is the report in the text format of Prometheus.
func Prometheus(r *Report) string {
	m := &metrics{}
	m.gauge("status", "Verdict as monitoring plugins number it: 0 ok, 1 warning, 2 critical, 3 unknown.", float64(r.Worst()))
	m.gauge("look_timestamp_seconds", "When the mail server was looked at.", seconds(r.At))
	m.gauge("look_duration_seconds", "How long that took.", r.Took.Seconds())
	m.gauge("look_complete", "Whether all that there is to see was seen.", boolean(r.Complete()))
	for _, f := range r.Findings {
		m.gauge("finding", "Something that is wrong, or could not be seen, by its code.", 1, "code", string(f.Code), "container", f.Front, "severity", f.Severity.String())
	}
	for i := range r.Fronts {
		m.front(r, &r.Fronts[i])
	}
	return m.String()
}

func (m *metrics) front(r *Report, f *health.Front) {
	if !f.Outside {
		m.gauge("front_up", "Whether the front container runs.", boolean(f.Runs()), "container", f.Container)
	}
	if leaf := health.Leaf(f.Directory.Chain); leaf != nil {
		m.gauge("installed_not_after_timestamp_seconds", "When the installed certificate, or an issuer of it, expires.", seconds(r.LifeOf(f.Directory.Chain).End()), "container", f.Container)
		m.gauge("installed_not_before_timestamp_seconds", "When the installed certificate was issued.", seconds(leaf.NotBefore), "container", f.Container)
	}
	for _, l := range f.Lineages {
		if leaf := health.Leaf(l.Chain); leaf != nil {
			m.gauge("lineage_not_after_timestamp_seconds", "When the certificate of a lineage, or an issuer of it, expires.", seconds(r.LifeOf(l.Chain).End()), "container", f.Container, "lineage", l.Path)
			m.gauge("lineage_matches_installed", "Whether the certificate of a lineage is the installed one.", boolean(leaf.Equal(health.Leaf(f.Directory.Chain))), "container", f.Container, "lineage", l.Path)
		}
	}
	for _, e := range f.Endpoints {
		labels := []string{"container", f.Container, "port", strconv.Itoa(e.Number), "protocol", e.Protocol}
		m.gauge("port_up", "Whether a port completes a TLS handshake.", boolean(e.Answers()), labels...)
		if !e.Answers() {
			continue
		}
		m.gauge("port_not_after_timestamp_seconds", "When the certificate that a port serves, or an issuer of it, expires.", seconds(r.LifeOf(e.Chain).End()), labels...)
		if shows := f.Shows(e); shows != health.Uncompared {
			m.gauge("port_matches_installed", "Whether a port serves the installed certificate.", boolean(shows == health.Same), labels...)
		}
	}
	if f.MemoryErr != nil || f.Directory.Path == "" || f.Directory.Err != nil {
		return // nothing is known of deploys, which is not that there was none
	}
	m.gauge("deploy_pending", "Whether a deploy is unfinished.", boolean(f.Memory.Pending != nil), "container", f.Container)
	if at := f.Memory.LastSync; !at.IsZero() {
		m.gauge("last_sync_timestamp_seconds", "When mailu-hook sync last ran to its end.", seconds(at), "container", f.Container)
	}
	if last := f.Memory.Last; last != nil {
		m.gauge("last_deploy_timestamp_seconds", "When the last deploy ended.", seconds(last.At), "container", f.Container)
		good := last.Outcome == hook.OutcomeInstalled || last.Outcome == hook.OutcomeUnchanged
		m.gauge("last_deploy_success", "Whether the last deploy left the certificate installed and served.", boolean(good), "container", f.Container)
		m.gauge("last_deploy_info", "Outcome of the last deploy.", 1, "container", f.Container, "outcome", string(last.Outcome))
	}
}
