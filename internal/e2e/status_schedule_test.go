package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestStatusReadsWhatCertbotAndCronNoteOfRenewals(t *testing.T) {
	rig.Need(t, rig.NeedCertbot, rig.NeedPebble)
	require.Zero(t, os.Geteuid(), "needs root to mount")
	l := newLab(t)
	ca, err := rig.StartCA(t.Context(), t.TempDir(), rig.CAOptions{})
	require.NoError(t, err)
	t.Cleanup(ca.Close)
	roots, err := ca.Roots(t.Context())
	require.NoError(t, err)
	l.env = append(l.env, "MAILU_HOOK_ROOTS="+roots)
	certbot := &rig.Certbot{Dir: filepath.Join(l.root, "certbot"), CA: ca}
	_, _, err = certbot.Certonly(t.Context(), "mail.example.com", "", []string{"mail.example.com"})
	require.NoError(t, err)
	live := certbot.Live("mail.example.com")
	l.start(rig.FrontOptions{})
	require.Eventually(t, func() bool { return l.listens(25) }, 30*time.Second, 100*time.Millisecond)
	require.Equal(t, 0, l.run(nil, "install", "--lineage", live).code)
	require.NoError(t, l.front.WaitReady(t.Context()))

	cron, log := filepath.Join(l.root, "cron.d"), filepath.Join(l.root, "log")
	require.NoError(t, os.Mkdir(cron, 0o755))
	require.NoError(t, os.Mkdir(log, 0o755))
	require.NoError(t, os.Rename(filepath.Join(certbot.Dir, "logs"), filepath.Join(log, "letsencrypt")))
	require.NoError(t, os.Symlink(filepath.Join(log, "letsencrypt"), filepath.Join(certbot.Dir, "logs")))

	doc := l.statusOn(cron, log)
	assert.ElementsMatch(t, []string{"warning sync_timer_missing", "warning certbot_timer_missing", "warning certbot_hook_missing"}, doc.codes())
	assert.True(t, doc.says("certbot_timer_missing", "no timer or cron job on this host runs certbot renew, so no certificate is renewed"))
	assert.True(t, doc.says("certbot_hook_missing", "certbot does not call mailu-hook after renewing "+live))

	certbot.Env = l.env
	_, _, err = certbot.Renew(t.Context(), binary) // certbot notes its hook
	require.NoError(t, err)
	require.NoError(t, l.front.WaitReady(t.Context()))
	doc = l.statusOn(cron, log)
	assert.ElementsMatch(t, []string{"warning sync_timer_missing", "warning certbot_timer_missing"}, doc.codes())

	debian, err := os.ReadFile("/etc/cron.d/certbot")
	require.NoError(t, err, "of Debian's package")
	require.NoError(t, os.WriteFile(filepath.Join(cron, "certbot"), debian, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(cron, "mailu-hook"), []byte(example(t, "examples/cron/mailu-hook")), 0o644))
	doc = l.statusOn(cron, log)
	assert.Equal(t, "ok", doc.Status, "%v", doc.codes())

	ca.Close()
	_, _, err = certbot.Renew(t.Context(), "")
	require.Error(t, err)
	doc = l.statusOn(cron, log)
	assert.Equal(t, []string{"warning certbot_failing"}, doc.codes())
	assert.True(t, doc.says("certbot_failing", "certbot could not renew "+live+": "), "%+v", doc.Findings)
}

// statusOn runs status on a host without systemd, whose crontabs and logs are
// in these directories.
func (l *lab) statusOn(cron, log string) statusDocument {
	l.t.Helper()
	const mounts = `mount --bind "$1" /etc/cron.d && mount --bind "$2" /var/log && shift 2 && exec "$@"`
	cmd := exec.CommandContext(l.t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh", cron, log,
		binary, "status", "--output", "json")
	cmd.Env = append(os.Environ(), l.env...)
	out, _ := cmd.Output() // a warning is exit status 1
	var doc statusDocument
	require.NoError(l.t, json.Unmarshal(out, &doc), "%s", out)
	return doc
}

func statusComparesItsClockWithTheEngines(t *testing.T, l *lab, _ *mint.Pair) {
	e := newEngine(t)
	l.env = append(l.env, "DOCKER_HOST=unix://"+e.socket)
	e.reset(1, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/info") {
			return true
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"SystemTime":"`+time.Now().Add(time.Hour).Format(time.RFC3339Nano)+`"}`)
		return false
	})
	doc := l.status(nil)
	assert.Equal(t, []string{"warning clock_skew"}, doc.codes())
	assert.True(t, doc.says("clock_skew", "the clocks of the Docker engine and of this host differ by 1h0m0s"))
}

func statusEndsInTimeWhateverTheEngineDoes(t *testing.T, l *lab, _ *mint.Pair) {
	e := newEngine(t)
	l.env = append(l.env, "DOCKER_HOST=unix://"+e.socket)
	const asked = 2 // it lists and inspects; whether the clocks agree is a question on top
	for name, fault := range engineFaults {
		for at := 1; at <= asked+1; at++ {
			e.reset(at, fault)
			began := time.Now()
			doc := l.status(nil, "--timeout", "2s")
			assert.Less(t, time.Since(began), 2500*time.Millisecond, "the engine %s from request %d on", name, at)
			if doc.Status == "ok" {
				assert.True(t, name == "answers slowly" || at > asked, "the engine %s from request %d on, and all is said to be well", name, at)
			}
		}
	}
}
