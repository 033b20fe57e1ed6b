package report

import (
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

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

// metrics are the samples of one look. They implement prometheus.Collector.
type metrics struct {
	samples []prometheus.Metric
	series  map[string]bool // that have a sample
}

// gauge adds a sample; labels are names and values by turns. Of two with the same
// labels the first stays: Prometheus rejects all of a file with duplicates.
func (m *metrics) gauge(name, help string, value float64, labels ...string) {
	name = "mailu_hook_" + name
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, say.Plain(labels[i+1]))
	}
	series := fmt.Sprintf("%s%q", name, values)
	if m.series[series] {
		return
	}
	m.series[series] = true
	m.samples = append(m.samples, prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, value, values...))
}

// Describe describes nothing: which metrics there are depends on what was seen.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends all samples.
func (m *metrics) Collect(samples chan<- prometheus.Metric) {
	for _, s := range m.samples {
		samples <- s
	}
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
	var out strings.Builder
	families, err := r.metrics().Gather()
	for _, family := range families {
		if err == nil {
			_, err = expfmt.MetricFamilyToText(&out, family)
		}
	}
	if err != nil { // Prometheus shows it as why it could not read the rest
		return fmt.Sprintf("%s# %s\n", out.String(), say.OneLine(err.Error()))
	}
	return out.String()
}

func (r *Report) metrics() prometheus.Gatherer {
	m := &metrics{series: map[string]bool{}}
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
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	return registry
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
	m.gauge("deploy_pending", "Whether a deploy is unfinished.", boolean(f.Memory.Pending != nil && !f.Deploys(r.At)), "container", f.Container)
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
