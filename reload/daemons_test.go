package reload

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// daemons is the inside of a front as far as commands see it.
type daemons struct {
	mu       sync.Mutex
	ps       []string          // answers of ps in turn; the last one stays
	files    map[string]string // what cat finds
	statuses map[string]int    // of commands that fail, by name
	once     map[string]int    // likewise, of those that fail the first time
}

const (
	psWhole       = "1 0 python3 python3 /start.py\n14 1 dovecot dovecot -c /etc/dovecot/proxy.conf\n23 1 nginx nginx: master process\n24 23 nginx nginx: worker\n"
	psNoDovecot   = "1 0 python3 python3 /start.py\n23 1 nginx nginx: master process\n"
	psNginxOnly   = "1 0 nginx nginx: master process\n7 1 nginx nginx: worker\n"
	psStarting    = "1 0 python3 python3 /start.py\n"
	psConfiguring = psWhole + "99 8 python3 /usr/bin/python3 /config.py\n"
	psWatched     = psWhole + "8 1 python3 python3 /certwatcher.py\n"
)

func (d *daemons) command(argv []string) (string, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if status := d.once[argv[0]]; status != 0 {
		delete(d.once, argv[0])
		d.files = map[string]string{} // as the watcher leaves them
		return "chmod: No such file or directory", status
	}
	if status := d.statuses[argv[0]]; status != 0 {
		return argv[0] + ": \x1b[31mwent\nwrong", status
	}
	last := argv[len(argv)-1]
	switch argv[0] {
	case "ps":
		out := d.ps[0]
		if len(d.ps) > 1 {
			d.ps = d.ps[1:]
		}
		return "PID PPID COMMAND COMMAND\n" + out, 0
	case "cat":
		content, ok := d.files[last]
		if !ok {
			return "cat: can't open", 1
		}
		return content, 0
	case "rm":
		delete(d.files, last)
	case "awk":
		d.files[last] = argv[2] + "\n"
	}
	return "", 0
}

func frontOf(t *testing.T, d *daemons) (*Front, *engine) {
	t.Helper()
	if d.files == nil {
		d.files = map[string]string{}
	}
	f, fake := execFront(t, d.command)
	f.hosts, f.published = nil, nil // no port can be asked
	return f, fake
}

// follows and keeps are what the ports of a front show after a reload.
func follows(mailu.Endpoint) bool { return true }
func keeps(mailu.Endpoint) bool   { return false }

func TestReloadHangsUpEachMaster(t *testing.T) {
	for name, c := range map[string]struct {
		ps   []string
		want []string
	}{
		"nginx and dovecot": {[]string{psWhole}, []string{"killall -HUP nginx", "killall -HUP dovecot"}},
		"Mailu 2.0":         {[]string{psNginxOnly}, []string{"killall -HUP nginx"}},
		"still starting":    {[]string{psStarting, psStarting, psWhole}, []string{"killall -HUP nginx", "killall -HUP dovecot"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, fake := frontOf(t, &daemons{ps: c.ps})
			require.NoError(t, f.Reload(t.Context(), follows))
			assert.Equal(t, c.want, fake.ran()[len(c.ps):], "and nothing is asked why")
			assert.Zero(t, fake.restarts)
		})
	}
}

func TestDovecotIsToldOnceAPortOfNginxShowsThePair(t *testing.T) {
	d := &daemons{ps: []string{psWhole}}
	f, fake := frontOf(t, d)
	renewed := newPair(t)
	before, after := serverConfig(t, newPair(t)), serverConfig(t, renewed)
	var handshakes atomic.Int32
	f.published = map[int][]string{443: {listen(t, func(conn net.Conn) {
		assert.NotContains(t, fake.ran(), "killall -HUP dovecot")
		if handshakes.Add(1) < 3 {
			handshaking(before)(conn)
			return
		}
		handshaking(after)(conn)
	})}}
	require.NoError(t, f.Reload(t.Context(), func(e mailu.Endpoint) bool { return e.Leaf == renewed.SHA256() }))
	assert.Equal(t, []string{"killall -HUP nginx", "killall -HUP dovecot"}, fake.ran()[1:])
	assert.EqualValues(t, 3, handshakes.Load())
}

func TestAnNginxThatDoesNotFollowIsAskedWhyBeforeDovecotIsTold(t *testing.T) {
	for status, c := range map[int]struct {
		refused, told bool
		says          string
	}{
		0:         {told: true},
		1:         {refused: true, says: `nginx in mailu-front-1: exit status 1: "nginx: `},
		137:       {told: true, says: "was killed"},
		cannotRun: {told: true},
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			f, fake := frontOf(t, &daemons{ps: []string{psWhole}, statuses: map[string]int{"nginx": status}})
			err := f.Reload(t.Context(), keeps)
			var refusal *mailu.Refusal
			assert.Equal(t, c.refused, errors.As(err, &refusal))
			if c.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.says)
			}
			assert.Contains(t, fake.ran(), "nginx -t -q")
			assert.Equal(t, c.told, slices.Contains(fake.ran(), "killall -HUP dovecot"))
		})
	}
}

func TestReloadThatFailsNamesTheDaemon(t *testing.T) {
	f, _ := frontOf(t, &daemons{ps: []string{psWhole}, statuses: map[string]int{"killall": 1}})
	err := f.Reload(t.Context(), follows)
	var refusal *mailu.Refusal
	assert.False(t, errors.As(err, &refusal), "not told is not refused")
	for _, want := range []string{"reloading nginx in mailu-front-1: exit status 1: \"killall: ", "reloading dovecot"} {
		assert.ErrorContains(t, err, want)
	}
	assert.NotContains(t, err.Error(), "\x1b")
}

func TestFrontWhoseNginxNeverStartsIsWaitedForWithinTheTime(t *testing.T) {
	f, fake := frontOf(t, &daemons{ps: []string{psStarting}})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 250*time.Millisecond, errors.New("the time is up"))
	defer cancel()
	assert.ErrorContains(t, f.Reload(ctx, follows), "the time is up")
	assert.NotContains(t, strings.Join(fake.ran(), "\n"), "killall")
}

func TestFrontThatWasRestartedMeanwhileIsAskedWhereItIsNow(t *testing.T) {
	f, _ := frontOf(t, &daemons{ps: []string{psWhole}})
	f.in.pid, f.hosts, f.watcher.paused = 1234567, []string{"172.20.0.99"}, true // which is another container's by now
	require.NoError(t, f.Explain(t.Context()))
	assert.Equal(t, []string{"172.20.0.3", "192.168.203.4", "fd00:203::4"}, f.Target().Hosts)
	assert.False(t, f.watcher.paused, "its watcher is another process")
}

func TestFrontWithoutItsDovecotIsRestarted(t *testing.T) {
	f, fake := frontOf(t, &daemons{ps: []string{psNoDovecot, psStarting, psWhole}})
	f.in.pid = 1234567
	require.NoError(t, f.Reload(t.Context(), follows))
	assert.Equal(t, 1, fake.restarts)
	assert.Equal(t, []string{"172.20.0.3", "192.168.203.4", "fd00:203::4"}, f.hosts, "addresses may have changed")
	assert.Zero(t, f.in.pid)
	assert.True(t, f.watcher.reacts.IsZero(), "the watcher has nothing to react to")
	assert.NotContains(t, strings.Join(fake.ran(), "\n"), "killall")
}

func TestFrontWhoseMailPortsAnswerIsNotRestarted(t *testing.T) {
	f, fake := frontOf(t, &daemons{ps: []string{psNoDovecot}})
	f.published = map[int][]string{993: {listen(t, func(conn net.Conn) { handshaking(serverConfig(t, newPair(t)))(conn) })}}
	require.NoError(t, f.Reload(t.Context(), follows))
	assert.Zero(t, fake.restarts)
	assert.Contains(t, fake.ran(), "killall -HUP nginx")
}

func TestFrontWithoutMailPortsIsNotRestarted(t *testing.T) {
	f, fake := frontOf(t, &daemons{ps: []string{psNoDovecot}})
	f.Ports = f.Ports[:2] // 25 and 443: nginx's own
	require.NoError(t, f.Reload(t.Context(), follows))
	assert.Zero(t, fake.restarts)
}

func TestVerdictIsARefusalOnlyIfTheCommandRan(t *testing.T) {
	for status, refused := range map[int]bool{0: false, 1: true, 89: true, 126: false, 127: false, 137: false, 143: false, 139: false} {
		d := &daemons{ps: []string{psWhole}, statuses: map[string]int{"nginx": status, "doveconf": status}}
		f, fake := frontOf(t, d)
		for command, err := range map[string]error{"nginx": f.Reload(t.Context(), keeps), "doveconf": f.Explain(t.Context())} {
			var refusal *mailu.Refusal
			require.Equal(t, refused, errors.As(err, &refusal), "%s %d", command, status)
			if refused {
				assert.ErrorContains(t, err, `went wrong"`, "the command's own words, quoted and on one line")
				assert.NotContains(t, err.Error(), "\x1b")
				assert.Contains(t, say.HintOf(err), "overrides")
			} else if status > 128 {
				assert.ErrorContains(t, err, "was killed")
			} else {
				assert.NoError(t, err)
			}
		}
		assert.Contains(t, fake.ran(), "doveconf -c /etc/dovecot/proxy.conf -h protocols")
	}
}

func TestExplainSaysNothingOfADovecotThatDoesNotRun(t *testing.T) {
	for _, ps := range []string{psNoDovecot, psNginxOnly, "1 0 dovecot dovecot -F\n", "1 0 dovecot dovecot -c\n"} {
		f, fake := frontOf(t, &daemons{ps: []string{ps}, statuses: map[string]int{"doveconf": 1}})
		require.NoError(t, f.Explain(t.Context()))
		assert.Len(t, fake.ran(), 1)
	}
}

func TestSettlePutsBothPidFilesBack(t *testing.T) {
	d := &daemons{ps: []string{psConfiguring, psConfiguring, psWhole}, files: map[string]string{"/run/nginx.pid": ""}}
	f, fake := frontOf(t, d)
	began := time.Now()
	require.NoError(t, f.Settle(t.Context(), time.Time{}))
	assert.Equal(t, map[string]string{"/run/nginx.pid": "23\n", "/run/dovecot/master.pid": "14\n"}, d.files)
	assert.Contains(t, fake.ran(), "chmod 644 /run/nginx.pid")
	assert.Contains(t, fake.ran(), "chmod 600 /run/dovecot/master.pid")
	assert.GreaterOrEqual(t, time.Since(began), quiet, "after the last configuration run it must stay quiet for a while")
}

func TestSettleLeavesRightPidFilesAlone(t *testing.T) {
	f, fake := frontOf(t, &daemons{ps: []string{psWatched}, files: map[string]string{"/run/nginx.pid": "23\n", "/run/dovecot/master.pid": "14\n"}})
	began := time.Now()
	require.NoError(t, f.Settle(t.Context(), time.Time{}))
	assert.Equal(t, []string{"ps -A -o pid,ppid,comm,args", "cat /run/nginx.pid", "cat /run/dovecot/master.pid"}, fake.ran())
	within(t, time.Second, began, "settling what was not switched")
}

func TestSettleOutwaitsTheWatcherAfterASwitch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ps    string
		waits bool
	}{"watched": {psWatched, true}, "no watcher": {psWhole, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _ := frontOf(t, &daemons{ps: []string{c.ps}})
			switched := time.Now()
			require.NoError(t, f.Settle(t.Context(), switched))
			assert.Equal(t, c.waits, time.Since(switched) >= watcherDelay)
		})
	}
}

func TestSettleThatCannotFinishSaysSo(t *testing.T) {
	f, _ := frontOf(t, &daemons{ps: []string{psConfiguring}})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("the time is up"))
	defer cancel()
	assert.ErrorContains(t, f.Settle(ctx, time.Time{}), "waiting for mailu-front-1 to settle: ")

	f, _ = frontOf(t, &daemons{ps: []string{psWhole}, statuses: map[string]int{"awk": 1}})
	assert.ErrorContains(t, f.Settle(t.Context(), time.Time{}), "putting /run/nginx.pid back in mailu-front-1: awk: exit status 1")
}

func TestSettleSkipsADaemonThatDoesNotRun(t *testing.T) {
	d := &daemons{ps: []string{psNginxOnly}}
	f, _ := frontOf(t, d)
	require.NoError(t, f.Settle(t.Context(), time.Time{}))
	assert.Equal(t, map[string]string{"/run/nginx.pid": "1\n"}, d.files)
}

func TestRunningIsWhatTheEngineSays(t *testing.T) {
	for state, want := range map[string]bool{"running": true, "exited": false, "paused": false} {
		fake := &engine{containers: map[string]string{frontID: answer(t, inState(state))}}
		f := describe(serveHTTP(t, fake), fixture(t))
		runs, err := f.Running(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, runs, state)
	}
	runs, err := describe(serveHTTP(t, &engine{}), fixture(t)).Running(t.Context())
	require.NoError(t, err, "a container that is gone does not run")
	assert.False(t, runs)
	_, err = describe(nowhere(t), fixture(t)).Running(t.Context())
	require.ErrorIs(t, err, ErrEngine, "what could not be asked is not stopped")
}

func TestSettlePutsPidFilesBackThatTheWatcherDeletesMeanwhile(t *testing.T) {
	d := &daemons{ps: []string{psWhole}, once: map[string]int{"chmod": 1}}
	f, _ := frontOf(t, d)
	require.NoError(t, f.Settle(t.Context(), time.Time{}))
	assert.Equal(t, map[string]string{"/run/nginx.pid": "23\n", "/run/dovecot/master.pid": "14\n"}, d.files)
}
