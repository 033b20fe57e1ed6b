package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestAlertsSayWhatTheirOwnTestsWant(t *testing.T) {
	t.Parallel()
	rig.Need(t, rig.NeedPrometheus)
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	dir := filepath.Join(root, "examples", "prometheus")
	require.NoError(t, rig.CheckRules(t.Context(), filepath.Join(dir, "alerts.yml")))
	require.NoError(t, rig.TestRules(t.Context(), filepath.Join(dir, "alerts_test.yml")))
	tests := example(t, "examples/prometheus/alerts_test.yml")
	for _, match := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(example(t, "examples/prometheus/alerts.yml"), -1) {
		assert.Contains(t, tests, "alertname: "+match[1]+"\n", "an alert that no test wants to see")
	}
}

// query is one that a panel sends, with the labels that the panel shows by name.
type query struct {
	Title  string
	Expr   string
	Legend string `json:"legendFormat"`
}

func dashboardQueries(t *testing.T) (all []query) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []query
		}
	}
	require.NoError(t, json.Unmarshal([]byte(example(t, "examples/grafana/dashboard.json")), &dashboard))
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, q := range panel.Targets {
			q.Title = panel.Title
			all = append(all, q)
		}
	}
	return all
}

// Grafana itself cannot be had here. Prometheus' own evaluation of each query can, on
// the metrics of a real front: one that names a metric or a label that does not exist
// finds nothing.
func dashboardAndAlertsAskForWhatStatusPrints(t *testing.T, l *lab, _ *mint.Pair) {
	rig.Need(t, rig.NeedPrometheus)
	metrics := l.run(nil, "status", "--output", "prometheus").stdout // on a host without a timer, which is a finding
	var test strings.Builder
	test.WriteString("tests:\n  - interval: 1m\n    input_series:\n")
	printed := map[string]bool{}
	for line := range strings.Lines(metrics) {
		match := regexp.MustCompile(`^(mailu_hook_\w+)(?:\{(.*)\})? (\S+)\n$`).FindStringSubmatch(line)
		if match == nil {
			continue
		}
		printed[match[1]] = true
		labels := strings.Trim(`instance="mail:9100",job="node",`+match[2], ",") // as a scrape adds them
		fmt.Fprintf(&test, "      - {series: '%s{%s}', values: '%s'}\n", match[1], labels, match[3])
	}
	test.WriteString("    promql_expr_test:\n")
	want := func(expr, labels string) {
		expr = strings.ReplaceAll(expr, "$instance", ".*")
		fmt.Fprintf(&test, "      - {expr: '%s > bool 0', eval_time: 0, exp_samples: [{labels: '%s', value: 1}]}\n", expr, labels)
	}
	for _, q := range dashboardQueries(t) {
		want("count("+q.Expr+")", "{}")
		for _, label := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.Legend, -1) {
			want(fmt.Sprintf(`count by (has) (label_replace(%s, "has", "%s", "%s", ".+"))`, q.Expr, label[1], label[1]), `{has="`+label[1]+`"}`)
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard_test.yml")
	require.NoError(t, os.WriteFile(file, []byte(test.String()), 0o600))
	assert.NoError(t, rig.TestRules(t.Context(), file), "%s", test.String())
	for _, name := range []string{"prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/dashboard.json"} {
		for _, metric := range regexp.MustCompile(`mailu_hook_\w+`).FindAllString(example(t, "examples/"+name), -1) {
			assert.True(t, printed[metric], "%s names %s, which status does not print", name, metric)
		}
	}
}
