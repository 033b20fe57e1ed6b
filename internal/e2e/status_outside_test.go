package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func statusOpensNoPrivateKey(t *testing.T, l *lab, _ *mint.Pair) {
	r := trace(t, l.root, fault{}, append(l.env, noTimer), "status")
	require.Equal(t, 0, r.code, r.out)
	read := map[string]bool{}
	for _, s := range r.steps {
		if s.call == "openat" && s.flags&unix.O_PATH == 0 {
			read[filepath.Base(s.path)] = true
		}
		assert.False(t, s.changes(), "%s", s)
	}
	assert.True(t, read["cert.pem"] && read["fullchain.pem"] && read["deployed"], "the tracer sees what is opened: %v", read) // deployed: of the state directory
	for name := range read {
		assert.NotContains(t, name, "key", "%v", read)
	}
}

func statusAsAnotherUserTellsWhatItCouldNotSee(t *testing.T, l *lab, _ *mint.Pair) {
	rig.Need(t, "setpriv")
	passable(t, l.root)
	for _, name := range []string{"mailu-hook.conf", "roots.pem"} {
		require.NoError(t, os.Chmod(filepath.Join(l.root, name), 0o644))
	}
	program := binaryForAll(t)
	for name, c := range map[string]struct {
		groups string
		want   []string
	}{
		"who may use the Docker socket": {socketGroup(t), []string{"installed_unseen", "state_unseen"}},
		"who may not":                   {"nogroup", []string{"engine_unseen", "ports_unseen", "state_unseen"}},
	} {
		cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--groups", c.groups, program, "status", "--output", "json")
		cmd.Env = append(append(os.Environ(), l.env...), noTimer, "MAILU_HOOK_CERTS_DIR="+l.certs())
		out, err := cmd.Output()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, name)
		assert.Equal(t, 3, exit.ExitCode(), name)
		l.noSecretIn(string(out))
		var doc statusDocument
		require.NoError(t, json.Unmarshal(out, &doc))
		assert.False(t, doc.Complete)
		for _, code := range c.want {
			assert.Contains(t, doc.codes(), "unknown "+code, name)
		}
		assert.Len(t, doc.Fronts[0].Endpoints, 6, name)
	}
}

// passable lets everybody pass through the directories that lead to dir.
func passable(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
}

// binaryForAll is the program where everybody may run it.
func binaryForAll(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(binary)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "mailu-hook")
	require.NoError(t, os.WriteFile(name, data, 0o755))
	passable(t, filepath.Dir(name))
	return name
}

func socketGroup(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("stat", "-Lc", "%g", realSocket).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

func statusReportsOnEachFrontUnlessOneIsChosen(t *testing.T, l *lab, _ *mint.Pair) {
	other := &lab{t: t, ca: l.ca, root: t.TempDir(), roots: l.roots, env: l.env}
	require.NoError(t, os.MkdirAll(other.certs(), 0o755))
	other.start(rig.FrontOptions{})
	doc := l.status([]string{"MAILU_HOOK_PROJECT=", "MAILU_HOOK_CERTS_DIR="}) // other tests have theirs, too
	assert.Equal(t, "critical", doc.Status)
	var names []string
	for _, f := range doc.Fronts {
		names = append(names, f.Container)
	}
	assert.Subset(t, names, []string{l.front.Name, other.front.Name})
	assert.True(t, doc.says("file_missing", "there is no certificate in "+other.certs()))
	chosen := l.status([]string{"MAILU_HOOK_PROJECT="}, "--container", l.front.Name)
	require.Len(t, chosen.Fronts, 1)
	assert.Equal(t, "ok", chosen.Status)
}

func TestStatusOfMailu20KnowsThatNginxServesAllPorts(t *testing.T) {
	image := "mailu-hook-front:2.0"
	if named := os.Getenv("FRONT_IMAGE_OLD"); named != "" {
		image = named
	}
	l, _ := startServing(t, rig.FrontOptions{Image: image})
	require.Equal(t, 0, l.hook(l.lineage(l.issue(mint.Leaf{}), "mail.example.com")).code)
	doc := l.status(nil)
	assert.Equal(t, "ok", doc.Status, "%v", doc.codes())
	require.Len(t, doc.Fronts[0].Endpoints, 8)
	for _, e := range doc.Fronts[0].Endpoints {
		assert.Equal(t, "nginx", e.Daemon)
	}
}

func statusWritesMetricsThatPrometheusTakes(t *testing.T, l *lab, second *mint.Pair) {
	rig.Need(t, rig.NeedPrometheus)
	dir := t.TempDir()
	file := filepath.Join(dir, "mailu.prom")
	exporter, err := rig.StartNodeExporter(t.Context(), dir, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(exporter.Close)

	for _, c := range []struct {
		env  string
		code int
		want []string
	}{
		{noTimer, 0, []string{
			"mailu_hook_status 0", "mailu_hook_look_complete 1",
			`mailu_hook_port_matches_installed{container="FRONT",port="993",protocol="imaps"} 1`,
			`mailu_hook_port_not_after_timestamp_seconds{container="FRONT",port="25",protocol="smtp"} ` + exponent(second.Cert.NotAfter.Unix()),
			`mailu_hook_deploy_pending{container="FRONT"} 0`, `mailu_hook_last_deploy_success{container="FRONT"} 1`,
			`mailu_hook_last_deploy_info{container="FRONT",outcome="installed"} 1`,
		}},
		{"DOCKER_HOST=unix:///nonexistent", 3, []string{
			"mailu_hook_status 3", "mailu_hook_look_complete 0", `mailu_hook_finding{code="engine_unseen",container="FRONT",severity="unknown"} 1`,
			`mailu_hook_front_up{container="FRONT"} 0`, `mailu_hook_port_up{container="FRONT",port="993",protocol="imaps"} 0`,
		}},
		{"MAILU_HOOK_WARN=soon", 3, []string{"mailu_hook_status 3", `mailu_hook_finding{code="look_failed",container="",severity="unknown"} 1`}},
	} {
		r := l.run([]string{c.env}, "status", "--textfile", file)
		assert.Equal(t, c.code, r.code)
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o644), info.Mode())
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, rig.CheckMetrics(t.Context(), string(data)))
		scraped, err := exporter.Scrape(t.Context())
		require.NoError(t, err)
		assert.Contains(t, scraped, "node_textfile_scrape_error 0\n")
		for _, want := range c.want {
			assert.Contains(t, scraped, strings.ReplaceAll(want, "FRONT", l.front.Name)+"\n")
		}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 1, "no litter")
	}
	stdout := l.run([]string{noTimer}, "status", "--output", "prometheus").stdout
	require.NoError(t, rig.CheckMetrics(t.Context(), stdout))
}

// exponent is a number as node_exporter writes large ones.
func exponent(n int64) string {
	data, _ := json.Marshal(float64(n) / 1e9)
	return string(data) + "e+09"
}

func statusSpeaksToMonitoringPlugins(t *testing.T, l *lab, _ *mint.Pair) {
	r := l.run([]string{noTimer}, "status", "--output", "nagios")
	assert.Equal(t, 0, r.code)
	assert.Regexp(t, `^MAILU TLS OK - `+l.front.Name+` serves mail\.example\.com on 6 ports until \d{4}-\d\d-\d\d \(89 days, 99 %\) \| `+
		`installed=\d+s;1944000:;972000:;;7776000( port_\d+=\d+s;1944000:;972000:;;7776000){6}\n$`, r.stdout)
	require.NoError(t, l.front.Stop(t.Context()))
	r = l.run([]string{noTimer}, "status", "--output", "nagios")
	assert.Equal(t, 2, r.code)
	assert.Regexp(t, `^MAILU TLS CRITICAL - the front `+regexp.QuoteMeta(l.front.Name)+` is not running \(exited\) \| installed=`, r.stdout)
	r = l.run(nil, "status", "--output", "nagios", "--frobnicate")
	assert.Equal(t, 3, r.code, "not critical, because somebody mistyped a flag")
	assert.Equal(t, "MAILU TLS UNKNOWN - unknown flag: --frobnicate\n", r.stdout)
}
