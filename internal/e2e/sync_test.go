package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// deployed starts a front that serves what the hook deployed: first of a lineage,
// while there was no engine to ask, and then second, its renewal.
func deployed(t *testing.T) (l *lab, live string, first, second *mint.Pair) {
	t.Helper()
	return deployedTo(t, rig.FrontOptions{})
}

func deployedTo(t *testing.T, o rig.FrontOptions) (l *lab, live string, first, second *mint.Pair) {
	t.Helper()
	l = newLab(t)
	l.env = append(l.env, "MAILU_HOOK_CERTS_DIR="+l.certs())
	l.writePlain(l.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)}), "cert.pem", "key.pem")
	first = l.issue(mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour)})
	live = l.lineage(first, "mail.example.com")
	r := l.run([]string{"RENEWED_LINEAGE=" + live, "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_HOSTNAME=mail.example.com"})
	require.Equal(t, 8, r.code)
	l.start(o)
	l.waitServing()
	l.serves(first)
	second = l.issue(mint.Leaf{})
	require.Equal(t, live, l.lineage(second, "mail.example.com"))
	require.Equal(t, 0, l.hook(live).code)
	l.serves(second)
	return l, live, first, second
}

func aWatcherThatAKilledDeployLeftStoppedIsSeenAndSetGoing(t *testing.T, l *lab, second *mint.Pair) {
	l.execOK("killall", "-STOP", "certwatcher.py")
	assert.Equal(t, []string{"warning watcher_stopped"}, l.status(nil).codes())
	require.Equal(t, "unchanged", l.sync().doc.Outcome)
	assert.Equal(t, "ok", l.status(nil).Status)
	l.serves(second)
}

func (l *lab) sync(args ...string) result {
	l.t.Helper()
	return l.run(nil, append([]string{"sync", "--output", "json"}, args...)...)
}

func syncFindsNothingToDoAndChangesNothing(t *testing.T, l *lab, second *mint.Pair) {
	tree := snapshot(t, l.certs())
	r := l.sync()
	assert.Equal(t, 0, r.code)
	assert.Equal(t, "unchanged", r.doc.Outcome)
	assert.Equal(t, tree, snapshot(t, l.certs()))
	l.serves(second)
}

func TestSyncLeavesAServerAloneThatItNeverDeployedTo(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{})
	tree := snapshot(t, l.certs())
	r := l.sync()
	assert.Equal(t, 0, r.code)
	assert.Equal(t, "skipped", r.doc.Outcome)
	assert.Equal(t, tree, snapshot(t, l.certs()))
	l.serves(old)
}

// renews issues a pair that is newer than all before it, and writes it to the
// lineage as certbot does.
func (l *lab) renews() *mint.Pair {
	l.t.Helper()
	pair := l.next()
	l.lineage(pair, "mail.example.com")
	return pair
}

func TestSyncRepairsWhatHasChangedSince(t *testing.T) {
	l, live, first, _ := deployed(t)
	lineage := filepath.Join(l.root, "letsencrypt", "live", "mail.example.com")
	for _, c := range []struct {
		name   string
		damage func(t *testing.T)
		env    []string // of the sync that repairs it
	}{
		{name: "engine was down during the hook", damage: func(t *testing.T) {
			l.renews()
			require.Equal(t, 8, l.run([]string{"RENEWED_LINEAGE=" + lineage, "DOCKER_HOST=unix:///nonexistent"}).code)
		}},
		{name: "hook was never called", damage: func(*testing.T) { l.renews() }},
		{name: "half a pair was copied over the links", damage: func(t *testing.T) {
			require.NoError(t, os.WriteFile(filepath.Join(l.certs(), "cert.pem"), first.Chain, 0o644))
		}},
		{name: "a plain old pair was put in place of the links", damage: func(t *testing.T) {
			require.NoError(t, os.Remove(filepath.Join(l.certs(), "cert.pem")))
			require.NoError(t, os.Remove(filepath.Join(l.certs(), "key.pem")))
			l.writePlain(first, "cert.pem", "key.pem")
		}},
		{name: "a link was removed", damage: func(t *testing.T) { require.NoError(t, os.Remove(filepath.Join(l.certs(), "key.pem"))) }},
		{name: "the live link was removed", damage: func(t *testing.T) {
			require.NoError(t, os.Remove(filepath.Join(l.certs(), ".mailu-hook", "live")))
		}},
		{name: "the tree was copied with its links followed", damage: func(t *testing.T) {
			copied := filepath.Join(l.root, "copied")
			require.NoError(t, exec.Command("cp", "-rL", l.certs(), copied).Run())
			entries, err := os.ReadDir(l.certs())
			require.NoError(t, err)
			for _, e := range entries {
				require.NoError(t, os.RemoveAll(filepath.Join(l.certs(), e.Name())))
			}
			require.NoError(t, exec.Command("cp", "-rT", copied, l.certs()).Run())
		}},
		{name: "the store was lost: rsync of certs/* leaves it out", damage: func(t *testing.T) {
			require.NoError(t, os.RemoveAll(filepath.Join(l.certs(), ".mailu-hook")))
		}},
		{name: "the store and what root remembers were lost", damage: func(t *testing.T) {
			require.NoError(t, os.RemoveAll(filepath.Join(l.certs(), ".mailu-hook")))
			require.NoError(t, os.Remove(l.ledger()))
		}, env: []string{"MAILU_HOOK_LETSENCRYPT_DIR=" + filepath.Join(l.root, "letsencrypt")}},
		{name: "the pid files were lost", damage: func(*testing.T) { l.execOK("rm", "/run/nginx.pid", "/run/dovecot/master.pid") }},
		{name: "state.json was damaged and a lineage named", damage: func(t *testing.T) {
			require.NoError(t, os.WriteFile(l.ledger(), []byte(`{"lineages": 7`), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(l.certs(), "key.pem"), first.KeyPEM, 0o600))
		}, env: []string{"MAILU_HOOK_LINEAGE=" + lineage}},
		{name: "the front was recreated without certificates", damage: func(t *testing.T) {
			require.NoError(t, l.front.Remove())
			require.NoError(t, os.Rename(l.certs(), l.certs()+".away"))
			l.start(rig.FrontOptions{Project: l.front.Project})
			require.Eventually(t, func() bool { return l.listens(25) }, 30*time.Second, 100*time.Millisecond)
			require.NoError(t, exec.Command("cp", "-a", l.certs()+".away/.", l.certs()).Run())
		}},
	} {
		if !l.sub(c.name, func(t *testing.T) {
			c.damage(t)
			r := l.run(c.env, "sync", "--output", "json", "--now")
			require.Equal(t, 0, r.code)
			newest, err := os.ReadFile(filepath.Join(live, "fullchain.pem"))
			require.NoError(t, err)
			l.endsServing(sha256OfPEM(t, newest)) // the front's own watcher has seen the damage too
			l.healthyAndReloadable()
			l.endsServing(sha256OfPEM(t, newest)) // after these reloads
			tree := snapshot(t, l.certs())
			assert.Equal(t, "unchanged", l.run(c.env, "sync", "--output", "json").doc.Outcome, "the second time there is nothing to do")
			assert.Equal(t, tree, snapshot(t, l.certs()))
		}) {
			return // what comes next begins on a front that is as it should be
		}
	}
}

func TestSyncReloadsADaemonThatShowsAnOlderLeaf(t *testing.T) {
	l, live, _, _ := deployed(t)
	file := filepath.Join(l.root, "overrides", "nginx", "dovecot", "proxy.conf")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("no_such_setting = yes\n"), 0o644))
	third := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	for from, data := range map[string][]byte{"cert.pem": third.Chain, "key.pem": third.KeyPEM} {
		require.NoError(t, os.WriteFile(filepath.Join(l.certs(), from), data, 0o600)) // through our links, as cp does
	}
	l.execOK("nginx", "-s", "reload")
	require.Eventually(t, func() bool {
		served, err := l.front.Served(t.Context(), 443, 993)
		return err == nil && served[443] == third.SHA256() && served[993] != third.SHA256()
	}, 20*time.Second, 200*time.Millisecond)
	require.NoError(t, os.Remove(file))
	require.Equal(t, live, l.lineage(third, "mail.example.com"))
	require.Equal(t, 0, l.sync().code)
	l.serves(third)
	l.healthyAndReloadable()
}

func TestSyncBacksOffAfterFailuresAndSaysUntilWhen(t *testing.T) {
	l, live, _, second := deployed(t)
	override := filepath.Join(l.root, "overrides", "nginx", "broken.conf")
	require.NoError(t, os.WriteFile(override, []byte("no_such_setting;\n"), 0o644))
	third := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.Equal(t, live, l.lineage(third, "mail.example.com"))
	require.Equal(t, 4, l.hook(live).code)
	waiting := l.sync()
	assert.Equal(t, 8, waiting.code)
	assert.Contains(t, waiting.doc.Error, "too early to retry")
	assert.Contains(t, waiting.doc.Error, "no_such_setting")
	assert.Contains(t, waiting.doc.Hint, "sync --now")
	l.serves(second)
	assert.Equal(t, 4, l.sync("--now").code)
	require.NoError(t, os.Remove(override))
	require.Equal(t, 0, l.sync("--now").code)
	l.serves(third)
}

func TestRollbackStaysUntilTheLineageIsRenewed(t *testing.T) {
	l, live, first, second := deployed(t)
	list := l.run(nil, "rollback", "--list")
	require.Equal(t, 0, list.code)
	assert.Contains(t, list.stdout, "* ")
	r := l.run(nil, "rollback", "--output", "json")
	require.Equal(t, 0, r.code)
	l.serves(first)
	assert.Equal(t, "unchanged", l.sync().doc.Outcome)
	l.serves(first)
	l.healthyAndReloadable()

	require.Equal(t, 0, l.run(nil, "install", "--lineage", live).code, "someone may insist")
	l.serves(second)
	require.Equal(t, 0, l.run(nil, "rollback", r.doc.Generation[:16]).code)
	l.serves(first)
	third := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.Equal(t, live, l.lineage(third, "mail.example.com"))
	require.Equal(t, 0, l.sync().code)
	l.serves(third)

	// A deploy that is pending does not undo it.
	l.renews()
	require.Equal(t, 8, l.run([]string{"RENEWED_LINEAGE=" + live, "DOCKER_HOST=unix:///nonexistent"}).code)
	require.Equal(t, 0, l.run(nil, "rollback", "--output", "json").code)
	l.serves(third)
	assert.Equal(t, "unchanged", l.sync("--now").doc.Outcome)
	l.serves(third)
	fifth := l.renews()
	require.Equal(t, 0, l.sync().code)
	l.serves(fifth)
}

func TestRollbackRefusesAnExpiredGenerationUnlessTold(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	expired := l.issue(mint.Leaf{NotAfter: time.Now().Add(-2 * time.Hour)})
	l.writePlain(expired, "cert.pem", "key.pem") // in place, as the documented script would
	renewed := l.issue(mint.Leaf{})
	require.Equal(t, 0, l.hook(l.lineage(renewed, "mail.example.com")).code)
	r := l.run(nil, "rollback", "--output", "json")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.doc.Error, "expired")
	l.serves(renewed)
	require.Equal(t, 0, l.run(nil, "rollback", "--allow-expired").code)
	l.serves(expired)
}
