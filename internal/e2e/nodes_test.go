package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// hostsOf are mail1, which has the lineage, and mail2: each has an engine and a memory of
// its own. They share the certs directory, which mail2 has in seen(the root of mail1). Its
// front is still to be started.
func hostsOf(t *testing.T, seen func(root string) string) (one, two *lab, e *rig.Engine) {
	t.Helper()
	rig.Need(t, rig.NeedEngines)
	one, _ = startServing(t, rig.FrontOptions{})
	one.host = "mail1"
	one.env = append(one.env, "MAILU_HOOK_TIMEOUT=12s")
	e, err := rig.StartEngine(t.Context(), rig.SecondDocker)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Stop()) })
	two = &lab{t: t, ca: one.ca, roots: one.roots, root: seen(one.root), host: "mail2", env: append(slices.Clone(one.env),
		"DOCKER_HOST="+e.Host, "MAILU_HOOK_PROJECT=", "MAILU_HOOK_STATE_DIR="+filepath.Join(one.root, "state2"), "MAILU_HOOK_LETSENCRYPT_DIR="+filepath.Join(one.root, "letsencrypt2"))}
	return one, two, e
}

// getsHealthy gives a host's agent the time for its second look: on a busy machine a front
// may react to a switch later than the first one waits for.
func (l *lab) getsHealthy() {
	l.t.Helper()
	require.Eventually(l.t, func() bool { return l.front.CheckHealth(l.t.Context()) == nil }, time.Minute, 200*time.Millisecond)
	l.healthyAndReloadable()
}

func sameRoot(root string) string { return root }

func TestHostsThatShareTheCertsDirectoryFollowOneAnother(t *testing.T) {
	one, two, e := hostsOf(t, sameRoot)
	two.start(rig.FrontOptions{Engine: e})
	two.waitServing()
	live := one.lineage(one.next(), "mail.example.com")
	first := one.renews()
	require.Equal(t, 0, one.hook(live).code, "nobody has heard of mail2")
	require.Equal(t, 0, two.sync().code)
	two.serves(first)
	two.healthyAndReloadable()

	both := func(test func(l *lab)) { test(one); test(two) }
	sub := func(name string, test func(t *testing.T)) {
		require.True(t, one.sub(name, func(t *testing.T) {
			defer func(outer *testing.T) { two.t = outer }(two.t)
			two.t = t
			test(t)
		}))
	}
	a := two.watch()
	sub("while its agent runs, a deploy ends once it has followed", func(t *testing.T) {
		renewed := one.renews()
		began := time.Now()
		require.Equal(t, 0, one.hook(live).code)
		t.Logf("both serve it after %s", time.Since(began))
		both(func(l *lab) { l.serves(renewed); l.getsHealthy() })
		both(func(l *lab) {
			r := l.run(nil, "status", "--ignore", "sync_timer_missing")
			assert.Zero(t, r.code)
			assert.Contains(t, r.stdout, one.front.Name)
			assert.Contains(t, r.stdout, two.front.Name, "of either host")
		})
	})

	sub("what one rolls back the other follows and does not install again", func(t *testing.T) {
		last := one.renews()
		require.Equal(t, 0, one.hook(live).code)
		r := two.run(nil, "rollback", "--output", "json")
		require.Equal(t, 8, r.code, "mail1 has not followed yet")
		require.Contains(t, r.doc.Error, "mail1 (")
		for range 2 {
			require.Equal(t, 0, one.sync().code)
		}
		served, err := two.front.Served(t.Context(), 993)
		require.NoError(t, err)
		assert.NotEqual(t, last.SHA256(), served[993])
		both(func(l *lab) { l.showsEverywhere(served[993]); l.getsHealthy() })
		require.Equal(t, 0, two.sync().code)

		renewed := one.renews() // ends it
		require.Equal(t, 0, one.hook(live).code)
		both(func(l *lab) { l.serves(renewed) })
	})
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-a.ended)

	sub("while it is down, a deploy is unfinished, and finished when it is back", func(t *testing.T) {
		require.NoError(t, two.front.Stop(t.Context()))
		renewed := one.renews()
		r := one.hook(live)
		assert.Equal(t, 8, r.code)
		assert.Equal(t, "pending", r.doc.Outcome)
		assert.Contains(t, r.doc.Error, "mail2 ("+two.front.Name)
		one.serves(renewed)
		assert.True(t, one.status(nil).says("node_behind", "mail2"))
		require.NoError(t, two.front.Start(t.Context()))
		two.waitServing()
		require.Equal(t, 0, two.sync().code)
		two.serves(renewed)
		two.healthyAndReloadable()
		require.Equal(t, 0, one.sync().code)
		assert.Equal(t, []string(nil), one.status(nil).codes())
	})

	sub("one that dies with the lock is waited for until it is dead", func(t *testing.T) { waitsForTheDead(t, one, two) })
}

// waitsForTheDead holds mail2 to waiting for a run of mail1 that has stopped, and to going
// on once that was killed.
func waitsForTheDead(t *testing.T, one, two *lab) {
	lock := filepath.Join(one.certs(), ".mailu-hook", "fronts", "nodes.lock")
	live := one.lineage(one.next(), "mail.example.com")
	argv := one.command("install", live)
	holder := exec.Command(argv[0], argv[1:]...)
	holder.Env = append(os.Environ(), one.env...)
	require.NoError(t, holder.Start())
	defer holder.Process.Kill()
	mine := strconv.Itoa(holder.Process.Pid) + " mail1\n"
	require.Eventually(t, func() bool {
		said, _ := os.ReadFile(lock)
		return string(said) == mine
	}, 30*time.Second, time.Millisecond)
	require.NoError(t, holder.Process.Signal(syscall.SIGSTOP))

	next, err := one.next().WriteLineage(filepath.Join(one.root, "letsencrypt2"), "mail.example.com", 1)
	require.NoError(t, err)
	r := two.run([]string{"MAILU_HOOK_TIMEOUT=3s"}, "install", next)
	assert.Equal(t, 7, r.code)
	assert.Contains(t, r.stderr, "another run holds the lock of "+two.certs()+" (pid "+strings.TrimSpace(strings.Replace(mine, " ", " on ", 1))+")")
	require.NoError(t, holder.Process.Kill())
	_ = holder.Wait() // says that it was killed
	r = two.run([]string{"MAILU_HOOK_TIMEOUT=6s"}, "install", "--output", "json", next)
	require.Equal(t, 8, r.code, "mail1 follows at its next sync")
	require.Equal(t, 0, one.sync("--now").code)
	require.Equal(t, 0, two.sync().code)
	one.showsEverywhere(r.doc.Leaf.SHA256)
	two.showsEverywhere(r.doc.Leaf.SHA256)
}

// A FUSE file system is to mail2 what NFS would be: it hears of no change that mail1
// makes, and locks bind both only because they are forwarded.
func TestHostsMeetOnAFileSystemThatTellsOfNoChanges(t *testing.T) {
	rig.Need(t, rig.NeedBindFS)
	one, two, e := hostsOf(t, func(root string) string {
		seen := filepath.Join(t.TempDir(), "seen")
		require.NoError(t, os.MkdirAll(filepath.Join(seen, "certs"), 0o755))
		bindFS(t, filepath.Join(root, "certs"), filepath.Join(seen, "certs"), "--multithreaded", "--enable-lock-forwarding")
		return seen
	})
	two.start(rig.FrontOptions{Engine: e})
	two.waitServing()
	live := one.lineage(one.next(), "mail.example.com")
	require.Equal(t, 0, one.hook(live).code)
	a := two.watch()
	renewed := one.renews()
	began := time.Now()
	require.Equal(t, 0, one.hook(live).code)
	t.Logf("both serve it after %s", time.Since(began))
	one.serves(renewed)
	two.serves(renewed)
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-a.ended)
	waitsForTheDead(t, one, two)

	// As docs/nodes.md has people try whether locks are shared.
	alone := t.TempDir()
	bindFS(t, one.certs(), alone)
	const lock = ".mailu-hook/fronts/nodes.lock"
	holder := exec.Command("flock", filepath.Join(one.certs(), lock), "sh", "-c", "echo held && exec sleep 60")
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	defer holder.Wait()
	defer holder.Process.Kill()
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err)
	try := func(certs string) error {
		return exec.Command("flock", "--nonblock", filepath.Join(certs, lock), "true").Run()
	}
	assert.Error(t, try(two.certs()))
	assert.NoError(t, try(alone), "nobody forwards them")
}

// bindFS shows a directory at another by FUSE, until the test ends.
func bindFS(t *testing.T, dir, at string, options ...string) {
	t.Helper()
	out, err := exec.Command("bindfs", append(options, dir, at)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { assert.NoError(t, exec.Command("umount", at).Run()) })
}

func TestAServiceOfASwarmFollowsAnotherHost(t *testing.T) {
	one, two, e := hostsOf(t, sameRoot)
	var err error
	two.front, err = e.StartService(t.Context(), two.root)
	require.NoError(t, err)
	two.waitServing()
	live := one.lineage(one.next(), "mail.example.com")
	require.Equal(t, 0, one.hook(live).code)
	a := two.watch() // whose first round makes it known
	renewed := one.renews()
	require.Equal(t, 0, one.hook(live).code)
	one.serves(renewed)
	two.serves(renewed)
	two.getsHealthy()
	assert.Contains(t, one.run(nil, "status").stdout, two.front.Name)
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-a.ended)
}
