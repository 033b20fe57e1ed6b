package e2e

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestGuideShowsTheScreenThatThereReallyIs(t *testing.T) {
	require.Zero(t, os.Geteuid(), "needs root to mount")
	l := newLab(t)
	old := l.issue(mint.Leaf{NotBefore: time.Now().Add(-63*24*time.Hour - time.Hour)})
	l.writePlain(old, "cert.pem", "key.pem")
	project := "mh" + strings.ToLower(rand.Text()[:3]) // as long as what it stands for, mailu: lines break alike
	l.start(rig.FrontOptions{Project: project, HealthEvery: 2 * time.Second})
	l.waitServing()
	live := l.lineage(old, "mail.example.com")
	require.Equal(t, 0, l.hook(live).code)
	proxy := filepath.Join(l.root, "overrides", "nginx", "dovecot", "proxy.conf")
	require.NoError(t, os.MkdirAll(filepath.Dir(proxy), 0o755))
	require.NoError(t, os.WriteFile(proxy, []byte("no_such_setting = yes\n"), 0o644))
	renewed := l.issue(mint.Leaf{})
	require.Equal(t, live, l.lineage(renewed, "mail.example.com"))
	for name, data := range map[string][]byte{"cert.pem": renewed.Chain, "key.pem": renewed.KeyPEM} { // the manual's four lines
		require.NoError(t, os.WriteFile(filepath.Join(l.certs(), name), data, 0o600))
	}
	l.execOK("nginx", "-s", "reload")
	require.Eventually(t, func() bool { return l.status(nil).says("out_of_step", "dovecot an older one") }, 20*time.Second, 200*time.Millisecond)
	require.NoError(t, l.front.WaitHealthy(t.Context()))
	renewals := filepath.Join(l.root, "letsencrypt", "renewal")
	require.NoError(t, os.Mkdir(renewals, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(renewals, "mail.example.com.conf"), []byte("renew_hook = mailu-hook\n"), 0o644))

	// A host whose timers are crontabs, and whose lineages are where they belong.
	const mounts = `mount --bind "$1" /etc/cron.d && mount --bind "$2" /etc/letsencrypt && shift 2 && exec "$@"`
	cron := filepath.Join(l.root, "cron.d")
	require.NoError(t, os.Mkdir(cron, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cron, "certbot"), []byte("0 */12 * * * root certbot -q renew\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(cron, "mailu-hook"), []byte(example(t, "examples/cron/mailu-hook")), 0o644))
	state := l.ledger()
	data, err := os.ReadFile(state)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(state, []byte(strings.ReplaceAll(string(data), filepath.Join(l.root, "letsencrypt"), "/etc/letsencrypt")), 0o600))
	look := func(argv ...string) string {
		cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", mounts, "sh", cron, filepath.Join(l.root, "letsencrypt")}, argv...)...)
		cmd.Env = append(os.Environ(), append(l.env, "NO_COLOR=1")...)
		out, _ := cmd.Output()
		assert.Equal(t, 1, cmd.ProcessState.ExitCode())
		screen := strings.ReplaceAll(strings.ReplaceAll(string(out), "\r", ""), project, "mailu")
		t.Logf("\n%s", screen)
		return timeless(screen)
	}
	assert.Equal(t, look(binary, "status"), shownIn(t, "    $ mailu-hook status\n"))
	wide := "stty columns 120; exec " + binary + " status" // on a terminal of that width
	assert.Equal(t, look("script", "--quiet", "--return", "--command", wide, "/dev/null"), shownIn(t, "    $ mailu-hook status    # at 120 columns\n"))
}

// shownIn is the screen that docs/monitoring.md shows after a command.
func shownIn(t *testing.T, command string) string {
	t.Helper()
	_, shown, found := strings.Cut(example(t, "docs/monitoring.md"), command)
	require.True(t, found)
	end := regexp.MustCompile(`\n\n\S`).FindStringIndex(shown)
	require.NotNil(t, end)
	return timeless(strings.ReplaceAll("\n"+shown[:end[0]], "\n    ", "\n")[1:] + "\n")
}

// timeless takes out of a screen what differs from day to day.
func timeless(screen string) string {
	screen = regexp.MustCompile(`\d{4}-\d\d-\d\d( \d\d:\d\d UTC)?`).ReplaceAllString(screen, "DAY$1")
	screen = regexp.MustCompile(`DAY \d\d:\d\d UTC`).ReplaceAllString(screen, "TIME")
	return regexp.MustCompile(`\b[0-9a-f]{8}\b`).ReplaceAllString(screen, "LEAF")
}
