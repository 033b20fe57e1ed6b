package report

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

// looked is a status of a front on which dovecot lags behind, at a fixed time.
func looked(t *testing.T) *Report {
	t.Helper()
	at := time.Date(2026, 11, 24, 6, 30, 0, 0, time.UTC)
	ca, err := mint.NewCA(mint.CAOptions{Name: "Example", NotBefore: at.AddDate(-1, 0, 0), NotAfter: at.AddDate(9, 0, 0)})
	require.NoError(t, err)
	issue := func(from time.Time) []*x509.Certificate {
		pair, err := ca.Issue(mint.Leaf{Names: []string{"mail.example.com", "imap.example.com"}, NotBefore: from, NotAfter: from.AddDate(0, 0, 90)})
		require.NoError(t, err)
		return []*x509.Certificate{pair.Cert, ca.Issuer}
	}
	newer, older := issue(at.AddDate(0, 0, -1)), issue(at.AddDate(0, 0, -70))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	facts := mailu.ParseEnvironment(func(name string) string {
		return map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com", "TLS_FLAVOR": "cert"}[name]
	})
	facts.Container, facts.Project, facts.Image, facts.CertsDir = "mailu-front-1", "mailu", "ghcr.io/mailu/nginx:2024.06", "/mailu/certs"
	f := health.Front{
		Facts: facts, State: "running", Health: "healthy",
		Inside: &mailu.Inside{Daemons: []mailu.Daemon{{Name: "nginx", PidFile: "/run/nginx.pid", Pid: "intact", Runs: true}, {Name: "dovecot", PidFile: "/run/dovecot/master.pid", Pid: "intact", Runs: true}}},
		Directory: health.Directory{Path: "/mailu/certs", Used: true, Chain: newer,
			Cert: health.File{Name: "cert.pem", Kind: health.Ours}, Key: health.File{Name: "key.pem", Kind: health.Ours}},
		Memory: hook.State{LastSync: at.Add(-10 * time.Minute), Last: &hook.Last{At: at.Add(-25 * time.Hour), Outcome: hook.OutcomeInstalled, Lineage: "/etc/letsencrypt/live/mail.example.com"},
			Pending: &hook.Pending{Since: at.Add(-time.Hour), Next: at.Add(time.Hour), Reason: "dovecot objects"}},
		DANE:     []tlsa.Host{{Name: "mail.example.com", Verdict: dane.Match, TLSA: resolve.TLSA{Secure: true, Owner: "_25._tcp.mail.example.com.", TTL: time.Hour}}},
		Lineages: []health.Lineage{{Path: "/etc/letsencrypt/live/mail.example.com", Chain: newer, Last: true, Certbot: true, Hooked: true}},
	}
	for _, p := range facts.Ports {
		e := mailu.Endpoint{Port: p, Chain: newer, Leaf: pki.Fingerprint(newer[0])}
		if f.Daemon(p.Number) == "dovecot" {
			e.Chain, e.Leaf = older, pki.Fingerprint(older[0])
		}
		if p.Number == 4190 {
			e.Chain, e.Leaf, e.Err = nil, "", errors.New("connection refused at 192.168.203.4:4190, and a text that goes on and on and on")
		}
		f.Endpoints = append(f.Endpoints, e)
	}
	f.Nodes = []hook.Node{{Name: "node2", Front: "mailu-front-1", Leaf: pki.Fingerprint(newer[0]), Last: hook.OutcomeInstalled, At: at.Add(-time.Minute)}}
	r := Of(health.Look{
		At: at, Roots: roots, Fronts: []health.Front{f},
		Schedule: health.Schedule{Certbot: health.Timer{By: "certbot.timer"}, Sync: health.Timer{By: "mailu-hook-sync.timer"}},
	}, health.Options{Warn: health.DefaultWarn, Crit: health.DefaultCrit})
	return &r
}

func drawn(r *Report, width int, color bool) string {
	return regexp.MustCompile(`\b[0-9a-f]{8}\b`).ReplaceAllString(text(r, Screen{width, color}), "c0ffee00")
}

func TestScreenOf80Columns(t *testing.T) {
	assert.Equal(t, `CRITICAL  no TLS on port 4190 (sieve) of mailu-front-1: connection refused at
          192.168.203.4:4190, and a text that goes on and on and on
          do: docker logs mailu-front-1 shows why; mailu-hook sync --now reloads
              the daemons
WARNING   mailu-front-1 serves different certificates: nginx the installed one
          (25 and 443), dovecot an older one (465, 993 and 995)
          do: find the broken configuration (docker exec mailu-front-1 nginx -t;
              docker exec mailu-front-1 doveconf -n), then run: mailu-hook sync
              --now
WARNING   the certificate that ports 465, 993 and 995 serve expires in 20 days
          (22 % of its lifetime is left), on 2026-12-14
          do: run certbot renew and see /var/log/letsencrypt/letsencrypt.log;
              then run: mailu-hook sync --now
WARNING   a deploy has been unfinished since 2026-11-24 05:30 UTC (next attempt
          at 2026-11-24 07:30 UTC): dovecot objects
          do: fix the cause, then run: mailu-hook sync --now

mailu-front-1 (project mailu): running, healthy, pid files intact

                  DAEMON   SHOWS  LEAF      LEFT           NAMES  CHAIN
lineage                    same   c0ffee00  89 days  98 %  all    complete
installed                         c0ffee00  89 days  98 %  all    complete
  25 smtp         nginx    same   c0ffee00  89 days  98 %  all    complete
 443 https        nginx    same   c0ffee00  89 days  98 %  all    complete
 465 submissions  dovecot  older  c0ffee00  20 days  22 %  all    complete
 993 imaps        dovecot  older  c0ffee00  20 days  22 %  all    complete
 995 pop3s        dovecot  older  c0ffee00  20 days  22 %  all    complete
4190 sieve        dovecot  none   connection refused at 192.168.203.4:4190, and…

names        mail.example.com, imap.example.com
lineage      /etc/letsencrypt/live/mail.example.com
last deploy  2026-11-23 05:30 UTC, installed
pending      since 2026-11-24 05:30 UTC, next attempt at 2026-11-24 07:30 UTC
next         certbot renews from 2027-01-22 on (certbot.timer)
node         node2 at 2026-11-24 06:29 UTC: mailu-front-1 serves c0ffee00
DANE         mail.example.com: match
`, drawn(looked(t), 80, false))
}

func TestScreenOf120ColumnsShowsMore(t *testing.T) {
	got := drawn(looked(t), 120, false)
	assert.Contains(t, got, `
                  DAEMON   SHOWS  LEAF      EXPIRES     LEFT           NAMES  CHAIN     ISSUER
lineage                    same   c0ffee00  2027-02-21  89 days  98 %  all    complete  Example intermediate
`)
}

func TestScreenIsNeverWiderThanTheTerminal(t *testing.T) {
	const longestPath = 60 // with what stands before it; below, paths are left whole
	for width := longestPath; width <= Widest; width++ {
		for line := range strings.Lines(drawn(looked(t), width, false)) {
			line = strings.TrimRight(line, "\n")
			assert.LessOrEqual(t, len([]rune(line)), width, "%d: %s", width, line)
			assert.Equal(t, strings.TrimRight(line, " "), line, "trailing blanks")
		}
	}
}

func TestJSONKeysOfAStatusAreStable(t *testing.T) {
	s := looked(t)
	var doc any
	require.NoError(t, json.Unmarshal([]byte(JSON(s)), &doc))
	var keys []string
	collectKeys("", doc, &keys)
	slices.Sort(keys)
	golden, err := os.ReadFile("testdata/status_keys.txt")
	require.NoError(t, err)
	assert.Equal(t, string(golden), strings.Join(slices.Compact(keys), "\n")+"\n", "keys are added, never renamed or removed")
}

func collectKeys(at string, value any, keys *[]string) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			*keys = append(*keys, strings.TrimPrefix(at+"."+key, "."))
			collectKeys(at+"."+key, inner, keys)
		}
	case []any:
		for _, inner := range value {
			collectKeys(at+"[]", inner, keys)
		}
	}
}

func TestPerfdataAndMetricsTellOfEachCertificate(t *testing.T) {
	s := looked(t)
	assert.Equal(t, "MAILU TLS CRITICAL - no TLS on port 4190 (sieve) of mailu-front-1: connection refused at 192.168.203.4:4190, and a text that goes on and on and on (and 3 more)"+
		" | installed=7689600s;1944000:;972000:;;7776000 port_25=7689600s;1944000:;972000:;;7776000 port_443=7689600s;1944000:;972000:;;7776000"+
		" port_465=1728000s;1944000:;972000:;;7776000 port_993=1728000s;1944000:;972000:;;7776000 port_995=1728000s;1944000:;972000:;;7776000\n", Nagios(s))
	metrics := samples(t, Prometheus(s))
	for want, value := range map[string]float64{
		`mailu_hook_status{}`: 2, `mailu_hook_look_complete{}`: 1, `mailu_hook_look_timestamp_seconds{}`: 1795501800,
		`mailu_hook_finding{code="out_of_step",container="mailu-front-1",severity="warning"}`:                1,
		`mailu_hook_installed_not_after_timestamp_seconds{container="mailu-front-1"}`:                        1803191400,
		`mailu_hook_port_not_after_timestamp_seconds{container="mailu-front-1",port="993",protocol="imaps"}`: 1797229800,
		`mailu_hook_port_matches_installed{container="mailu-front-1",port="443",protocol="https"}`:           1,
		`mailu_hook_port_matches_installed{container="mailu-front-1",port="993",protocol="imaps"}`:           0,
		`mailu_hook_port_up{container="mailu-front-1",port="4190",protocol="sieve"}`:                         0,
		`mailu_hook_deploy_pending{container="mailu-front-1"}`:                                               1, `mailu_hook_last_deploy_timestamp_seconds{container="mailu-front-1"}`: 1795411800,
	} {
		assert.Equal(t, value, metrics[want], want)
	}
	assert.NotContains(t, metrics, `mailu_hook_port_not_after_timestamp_seconds{container="mailu-front-1",port="4190",protocol="sieve"}`, "it shows none")
}

// samples are the values of a text in the format of Prometheus, by series.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	all := map[string]float64{}
	for name, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			all[name+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue()
		}
	}
	return all
}

func TestColumnsStayAlignedWhateverIsLeft(t *testing.T) {
	r := looked(t)
	ca, err := mint.NewCA(mint.CAOptions{NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)})
	require.NoError(t, err)
	for i, end := range []time.Time{ca.Root.NotAfter, r.At.Add(-200 * 24 * time.Hour), r.At.Add(397 * 24 * time.Hour), r.At.Add(30 * time.Minute)} {
		pair, err := ca.Issue(mint.Leaf{NotBefore: r.At.AddDate(0, 0, -400), NotAfter: end, Names: []string{"mail.example.com", "imap.example.com"}})
		require.NoError(t, err)
		r.Fronts[0].Endpoints[i].Chain = []*x509.Certificate{pair.Cert, ca.Issuer}
	}
	r.Roots.AddCert(ca.Root)
	for width := Narrowest; width <= Widest; width += 20 {
		columns := map[int]bool{}
		for line := range strings.Lines(drawn(r, width, false)) {
			if i := strings.Index(line, " %  "); i >= 0 && strings.Contains(line, "c0ffee00") {
				columns[len([]rune(line[:i]))] = true
			}
		}
		assert.LessOrEqual(t, len(columns), 1, "%d columns:\n%s", width, drawn(r, width, false))
	}
	assert.Contains(t, drawn(r, Widest, false), "9999-12-31  292 years 100 %")
}

func TestNoSeriesHasTwoSamples(t *testing.T) {
	r := looked(t)
	f := &r.Fronts[0]
	f.Lineages = append(f.Lineages, health.Lineage{Path: "/live/a\x01", Chain: f.Endpoints[0].Chain}, health.Lineage{Path: "/live/a\x02", Chain: f.Endpoints[3].Chain})
	f.Endpoints = append(f.Endpoints, f.Endpoints[3])
	f.Endpoints[len(f.Endpoints)-1].Number = 443
	f.Endpoints[len(f.Endpoints)-1].Protocol = "https"
	seen := map[string]bool{}
	for line := range strings.Lines(Prometheus(r)) {
		series := line[:strings.LastIndex(line, " ")]
		if !strings.HasPrefix(line, "#") {
			assert.False(t, seen[series], "%s", line)
			seen[series] = true
		}
	}
	assert.True(t, seen[`mailu_hook_lineage_not_after_timestamp_seconds{container="mailu-front-1",lineage="/live/a"}`])
}

func TestAnIssuerThatEndsFirstIsWhatMonitoringCounts(t *testing.T) {
	r := looked(t)
	end := r.At.Add(5 * 24 * time.Hour)
	ca, err := mint.NewCA(mint.CAOptions{NotBefore: r.At.AddDate(-1, 0, 0), NotAfter: end})
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{NotBefore: r.At.AddDate(0, 0, -1), NotAfter: r.At.AddDate(0, 0, 89), Names: []string{"mail.example.com", "imap.example.com"}})
	require.NoError(t, err)
	r.Roots.AddCert(ca.Root)
	f := &r.Fronts[0]
	f.Directory.Chain = []*x509.Certificate{pair.Cert, ca.Issuer}
	for i := range f.Endpoints {
		f.Endpoints[i].Chain, f.Endpoints[i].Leaf, f.Endpoints[i].Err = f.Directory.Chain, pki.Fingerprint(pair.Cert), nil
	}
	*r = Of(r.Look, r.Options)
	seconds := strconv.FormatInt(int64(end.Sub(r.At)/time.Second), 10)
	assert.Contains(t, Nagios(r), " installed="+seconds+"s;")
	assert.Contains(t, Nagios(r), "CRITICAL - ")
	assert.EqualValues(t, end.Unix(), samples(t, Prometheus(r))[`mailu_hook_installed_not_after_timestamp_seconds{container="mailu-front-1"}`])
	assert.Contains(t, JSON(r), `"valid_until": "`+end.Format(time.RFC3339)+`"`)
	assert.Contains(t, drawn(r, Widest, false), say.Day(end)+"  5 days")
}
