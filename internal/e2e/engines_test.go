package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// onEngine starts a front of that engine, which serves plain files that belong to the
// root of its containers.
func (l *lab) onEngine(kind rig.EngineKind, o rig.FrontOptions) *rig.Engine {
	l.t.Helper()
	t := l.t
	rig.Need(t, rig.NeedEngines)
	began := time.Now()
	e, err := rig.StartEngine(t.Context(), kind)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Stop()) })
	t.Logf("%s started in %s", kind, time.Since(began))
	for _, dir := range []string{filepath.Dir(l.root), l.root} { // for another user to pass
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	old := l.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)})
	l.writePlain(old, "cert.pem", "key.pem")
	l.giveTo(e.Root)
	o.Engine = e
	l.start(o)
	l.waitServing()
	l.env = append(l.env, "DOCKER_HOST="+e.Host)
	return e
}

// giveTo gives the certs directory to a user.
func (l *lab) giveTo(uid int) {
	l.t.Helper()
	for _, name := range []string{"", "cert.pem", "key.pem"} {
		require.NoError(l.t, os.Lchown(filepath.Join(l.certs(), name), uid, uid))
	}
}

func TestEachCommandWorksOnEachEngine(t *testing.T) {
	for _, kind := range []rig.EngineKind{rig.Podman, rig.RootlessPodman, rig.RootlessDocker, rig.RemappedDocker} {
		t.Run(string(kind), func(t *testing.T) {
			l := newLab(t)
			e := l.onEngine(kind, rig.FrontOptions{NoLabels: kind == rig.Podman || kind == rig.RootlessPodman})
			l.env = append(l.env, "MAILU_HOOK_PROJECT=")
			var asked func() int
			if kind == rig.RootlessDocker { // its container's address is one of another network namespace
				asked = l.decoy()
			}
			l.everyCommand()
			if e.Root != 0 {
				l.wantsItsOwner(e.Root)
			}
			if kind == rig.Podman {
				l.findsPodman(strings.TrimPrefix(e.Host, "unix://"))
			}
			if asked != nil {
				assert.Zero(t, asked(), "connections to a stranger at the container's address")
			}
		})
	}
}

// everyCommand runs the commands that change what a front serves, one after the other.
func (l *lab) everyCommand() {
	l.t.Helper()
	renewed := l.next()
	live := l.lineage(renewed, "mail.example.com")
	r := l.hook(live)
	require.Equal(l.t, 0, r.code)
	assert.Equal(l.t, "installed", r.doc.Outcome)
	require.Len(l.t, r.doc.Endpoints, len(l.front.TLSPorts()))
	for _, e := range r.doc.Endpoints {
		assert.True(l.t, e.OK, "port %d", e.Port)
	}
	l.serves(renewed)
	l.healthyAndReloadable()
	assert.Equal(l.t, "unchanged", l.hook(live).doc.Outcome)

	l.wellWith(l.front)

	again := l.next()
	l.lineage(again, "mail.example.com")
	require.Equal(l.t, 0, l.sync().code)
	l.serves(again)

	require.Equal(l.t, 0, l.run(nil, "rollback", "--output", "json").code)
	l.serves(renewed)
	l.healthyAndReloadable()

	require.Equal(l.t, 0, l.run(nil, "install", "--output", "json", live).code)
	l.serves(again)
}

// wellWith holds status to finding nothing wrong, with these fronts. Timers are no
// matter of the engine.
func (l *lab) wellWith(fronts ...*rig.Front) {
	l.t.Helper()
	r := l.run(nil, "status", "--ignore", "sync_timer_missing")
	assert.Zero(l.t, r.code)
	for _, f := range fronts {
		assert.Contains(l.t, r.stdout, f.Name)
	}
}

// decoy listens on the front's ports at the address that its engine tells of, which is
// here the address of somebody else, and returns how often it was connected to.
func (l *lab) decoy() (asked func() int) {
	l.t.Helper()
	ip, err := l.front.IP(l.t.Context())
	require.NoError(l.t, err)
	out, err := exec.Command("ip", "address", "add", ip+"/24", "dev", "lo").CombinedOutput()
	require.NoError(l.t, err, "%s", out)
	l.t.Cleanup(func() { assert.NoError(l.t, exec.Command("ip", "address", "del", ip+"/24", "dev", "lo").Run()) })
	var count atomic.Int32
	for _, port := range l.front.TLSPorts() {
		listener, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		require.NoError(l.t, err)
		l.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				count.Add(1)
				conn.Close()
			}
		}()
	}
	return func() int { return int(count.Load()) }
}

// findsPodman runs sync where no engine is named, there is no Docker socket, and Podman's
// is where its service puts it: in a mount namespace with a /run of its own.
func (l *lab) findsPodman(socket string) {
	l.t.Helper()
	const inside = `mount -t tmpfs tmpfs /run && mkdir /run/podman /run/lock && touch /run/podman/podman.sock &&
		mount --bind "$1" /run/podman/podman.sock && exec "$2" sync --output json`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", inside, "sh", socket, binary)
	cmd.Env = append(append(os.Environ(), l.env...), "DOCKER_HOST=")
	out, err := cmd.Output()
	require.NoError(l.t, err, "%s", out)
	assert.Contains(l.t, string(out), l.front.Name)
	assert.Contains(l.t, string(out), `"outcome": "unchanged"`)
}

// wantsItsOwner gives the certs directory to this host's root, and then back.
func (l *lab) wantsItsOwner(uid int) {
	l.t.Helper()
	key, err := filepath.EvalSymlinks(filepath.Join(l.certs(), "key.pem"))
	require.NoError(l.t, err)
	for _, name := range []string{l.certs(), key} {
		require.NoError(l.t, os.Chown(name, 0, 0))
	}
	before := snapshot(l.t, l.certs())
	live := l.lineage(l.next(), "mail.example.com")
	r := l.hook(live)
	assert.Equal(l.t, 2, r.code)
	assert.Contains(l.t, r.doc.Hint, fmt.Sprintf("chown -R %d %s", uid, l.certs()))
	assert.Equal(l.t, before, snapshot(l.t, l.certs()))
	for _, name := range []string{l.certs(), key} {
		require.NoError(l.t, os.Chown(name, uid, uid))
	}
	require.Equal(l.t, 0, l.hook(live).code)
}
