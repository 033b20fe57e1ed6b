package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// agent is mailu-hook watch, and a dead man's switch that it calls.
type agent struct {
	l       *lab
	address string // of its pages
	cmd     *exec.Cmd
	ended   chan error

	mu    sync.Mutex
	out   bytes.Buffer
	calls []string
}

func (a *agent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(p)
}

// rounds is how often the switch was called so far, and how last.
func (a *agent) rounds() (count int, last string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.calls) == 0 {
		return 0, ""
	}
	return len(a.calls), a.calls[len(a.calls)-1]
}

// watch starts an agent, and returns after its first round.
func (l *lab) watch(args ...string) *agent {
	l.t.Helper()
	a := l.agent(nil, args...)
	a.waits(1)
	return a
}

// agent starts one, below the program that by names.
func (l *lab) agent(by []string, args ...string) *agent {
	l.t.Helper()
	a := &agent{l: l, address: loopback() + ":9090", ended: make(chan error, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.calls = append(a.calls, r.URL.Path+" "+string(body))
	}))
	l.t.Cleanup(server.Close)
	argv := append(by, l.command(append([]string{"watch", "--every", "1h", "--serve", a.address, "--ping", server.URL + "/all-is-well"}, args...)...)...)
	a.cmd = exec.Command(argv[0], argv[1:]...)
	a.cmd.Env = append(os.Environ(), l.env...)
	a.cmd.Stdout, a.cmd.Stderr = a, a
	require.NoError(l.t, a.cmd.Start())
	go func() { a.ended <- a.cmd.Wait() }()
	l.t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // it has ended, unless the test failed
		a.mu.Lock()
		defer a.mu.Unlock()
		l.t.Logf("mailu-hook watch:\n%s%s", a.out.String(), strings.Join(a.calls, "\n"))
		l.noSecretIn(a.out.String())
	})
	return a
}

// ends tells it to end, which is exit status 0 whatever it met.
func (a *agent) ends() {
	a.l.t.Helper()
	require.NoError(a.l.t, a.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(a.l.t, <-a.ended)
}

// waits until it has done so many rounds.
func (a *agent) waits(rounds int) {
	a.l.t.Helper()
	require.Eventually(a.l.t, func() bool { n, _ := a.rounds(); return n >= rounds }, time.Minute, 20*time.Millisecond)
}

func (a *agent) get(path string) (status int, body string) {
	a.l.t.Helper()
	response, err := http.Get("http://" + a.address + path)
	require.NoError(a.l.t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(a.l.t, err)
	return response.StatusCode, string(data)
}

func TestWatchServesWhateverChanges(t *testing.T) {
	l, store := deployedFromTraefik(t)

	told := l.notified()
	a := l.watch()
	told("READY=1")
	_, last := a.rounds()
	assert.Equal(t, "/all-is-well ", last)
	status, body := a.get("/healthz")
	assert.Equal(t, 200, status, body)
	_, body = a.get("/metrics")
	assert.Contains(t, body, "mailu_hook_installed_not_after_timestamp_seconds")
	require.NoError(t, rig.CheckMetrics(t.Context(), body))
	found := l.status(nil)
	for _, f := range found.Findings {
		assert.NotContains(t, []string{"sync_timer_missing", "certbot_hook_missing"}, f.Code, "the agent does it")
	}

	// Whoever issues it writes a file, and calls nobody.
	renewed := l.next()
	began := time.Now()
	l.traefik(store, renewed)
	l.endsServing(renewed.SHA256())
	t.Logf("served on every port %s after the file was written", time.Since(began))
	a.waits(2)
	l.healthyAndReloadable()

	// SIGHUP is a reason, and a reload to systemd, which has ended when all is well again.
	told("WATCHDOG=1")
	l.execOK("rm", "/run/nginx.pid", "/run/dovecot/master.pid")
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGHUP))
	told(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	told("READY=1")
	require.NoError(t, l.front.CheckHealth(t.Context()))
	l.healthyAndReloadable()

	// So is a front that starts, also one that takes the place of another in mid-deploy.
	renewed = l.next()
	before, err := os.Readlink(l.live())
	require.NoError(t, err)
	l.traefik(store, renewed)
	require.Eventually(t, func() bool { now, err := os.Readlink(l.live()); return err == nil && now != before }, time.Minute, time.Millisecond)
	require.NoError(t, l.front.Remove())
	l.start(rig.FrontOptions{Project: l.front.Project})
	l.endsServing(renewed.SHA256())
	require.Eventually(t, func() bool { return !l.status(nil).says("deploy_pending") }, time.Minute, 100*time.Millisecond)
	l.healthyAndReloadable()

	// One that is killed converges when it starts again.
	require.NoError(t, a.cmd.Process.Kill())
	require.Error(t, <-a.ended)
	final := l.next()
	l.traefik(store, final)
	b := l.watch()
	l.endsServing(final.SHA256())

	b.ends()
	told("STOPPING=1")
}

// notified has systemd's part played to agents that are started from now on. told waits
// until one tells what matches the expression.
func (l *lab) notified() (told func(expression string)) {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short enough for a socket
	require.NoError(l.t, err)
	l.t.Cleanup(func() { os.RemoveAll(dir) })
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	require.NoError(l.t, err)
	l.t.Cleanup(func() { conn.Close() })
	l.env = append(l.env, "NOTIFY_SOCKET="+conn.LocalAddr().String(), "WATCHDOG_USEC=2000000")
	states := make(chan string, 1000)
	go func() {
		for buffer := make([]byte, 1000); ; {
			length, err := conn.Read(buffer)
			if err != nil {
				return
			}
			states <- string(buffer[:length])
		}
	}()
	return func(expression string) {
		l.t.Helper()
		wanted := regexp.MustCompile("^" + expression + "$")
		require.Eventually(l.t, func() bool { return wanted.MatchString(<-states) }, time.Minute, time.Microsecond, expression)
	}
}

// live is the link that a deploy switches.
func (l *lab) live() string { return filepath.Join(l.certs(), ".mailu-hook", "live") }

// next is a pair that is newer than all before it.
func (l *lab) next() *mint.Pair {
	l.t.Helper()
	l.renewals++
	return l.issue(mint.Leaf{NotBefore: time.Now().Add(-30*time.Minute + time.Duration(l.renewals)*time.Minute)})
}

// deployedFromTraefik is a front that serves what an acme.json holds.
func deployedFromTraefik(t *testing.T) (l *lab, store string) {
	t.Helper()
	l, _, _, _ = deployed(t)
	store = filepath.Join(l.root, "traefik", "acme.json")
	l.traefik(store, l.next())
	require.Equal(t, 0, l.run(nil, "install", store).code)
	return l, store
}

// traefik rewrites an acme.json in place, as Traefik does.
func (l *lab) traefik(name string, pair *mint.Pair) {
	l.t.Helper()
	require.NoError(l.t, os.MkdirAll(filepath.Dir(name), 0o700))
	require.NoError(l.t, os.WriteFile(name, traefikStore(l.t, pair), 0o600))
}

func traefikStore(t *testing.T, pair *mint.Pair) []byte {
	t.Helper()
	data, err := json.MarshalIndent(map[string]any{"le": map[string]any{
		"Account":      map[string]any{"Email": "admin@example.com"},
		"Certificates": []any{map[string]any{"domain": map[string]any{"main": mailName}, "certificate": pair.Chain, "key": pair.KeyPEM, "Store": "default"}},
	}}, "", "  ")
	require.NoError(t, err)
	return data
}

func TestAgentThatIsKilledOrToldToEndInADeployLeavesWhatTheNextOneFinishes(t *testing.T) {
	l, _, _, _ := deployed(t)
	for _, point := range []killPoint{
		{name: "at the first change", nth: 1},
		{name: "before the switch", call: "renameat", path: "live", nth: 1},
		{name: "after the switch", call: "renameat", path: "live", nth: 1, after: true},
		{name: "when it is served", call: "fsync", path: "fronts", nth: 1},
	} {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			if signal == syscall.SIGTERM && point.call != "renameat" && !soak {
				continue
			}
			what := fmt.Sprintf("%v %s", signal, point.name)
			renewed := l.renews()
			f := point.fault()
			f.signal = signal
			r := trace(t, l.certs(), f, l.env, "watch", "--every", "1h")
			require.Len(t, r.hits, 1, what)
			if signal == syscall.SIGTERM {
				assert.Zero(t, r.code, "%s: %s", what, r.out)
			} else {
				assert.True(t, r.killed, what)
			}
			l.holdsAPair(what)

			l.nextAgentFinishes(renewed, what)
		}
	}
}

// Between the steps that touch the disk a deploy sends signals to the front's processes.
func TestAgentThatIsKilledOrToldToEndAtASignalToTheFrontLeavesWhatTheNextOneFinishes(t *testing.T) {
	rig.Need(t, "strace")
	l, _, _, _ := deployed(t)
	type point struct {
		signal string
		nth    int // signal of a thread of the agent: which of all it is differs from run to run
	}
	points := []point{{"KILL", 1}, {"KILL", 2}, {"TERM", 1}}
	if soak {
		points = nil
		for nth := 1; nth <= 10; nth++ { // more than any thread sends
			points = append(points, point{"KILL", nth}, point{"TERM", nth})
		}
	}
	for _, p := range points {
		what := fmt.Sprintf("SIG%s at signal %d", p.signal, p.nth)
		renewed := l.renews()
		a := l.agent([]string{"strace", "-D", "-f", "-o", os.DevNull, "-e", "trace=pidfd_send_signal", "-e", fmt.Sprintf("inject=pidfd_send_signal:signal=%s:when=%d", p.signal, p.nth)})
		require.Eventually(t, func() bool { rounds, _ := a.rounds(); return rounds > 0 || len(a.ended) > 0 }, 30*time.Second, 20*time.Millisecond, what)
		if len(a.ended) == 0 {
			assert.Greater(t, p.nth, 1, "it was to end: %s", what)
			a.ends()
			continue
		}
		err := <-a.ended
		assert.Equal(t, p.signal == "TERM", err == nil, "%s: %v", what, err)
		if p.signal == "KILL" {
			assert.True(t, l.status(nil).says("deploy_pending"), "there is something to finish: %s", what)
		}
		l.holdsAPair(what)
		l.nextAgentFinishes(renewed, what)
	}
}

// nextAgentFinishes starts an agent after one that has ended in a deploy.
func (l *lab) nextAgentFinishes(renewed *mint.Pair, after string) {
	l.t.Helper()
	a := l.watch()
	l.endsServing(renewed.SHA256())
	a.ends()
	l.healthyAndReloadable()
	found := l.status(nil)
	for _, code := range []string{"deploy_pending", "watcher_stopped", "pid_file_lost"} {
		assert.False(l.t, found.says(code), "%s: %v", after, found.codes())
	}
}

func TestTwoAgentsAndAnEngineThatComesBackEndWell(t *testing.T) {
	l, live, _, _ := deployed(t)
	a, b := l.watch("--warn", "100%", "--crit", "100%"), l.watch("--warn", "100%", "--crit", "100%", "--ignore", "cert_expiring")
	status, body := a.get("/healthz")
	assert.Equal(t, 503, status, body)
	status, body = b.get("/healthz")
	assert.Equal(t, 200, status, body)
	renewed := l.renews()
	l.endsServing(renewed.SHA256())
	a.waits(2)
	b.waits(2)
	for _, agent := range []*agent{a, b} {
		agent.ends()
	}
	l.healthyAndReloadable()
	r := l.sync("--output", "json")
	assert.Equal(t, "unchanged", r.doc.Outcome)

	engine := l.engine()
	l.env = append(l.env, "DOCKER_HOST=unix://"+engine.path)
	c := l.watch()
	engine.stop()
	n, _ := c.rounds()
	final := l.renews() // without an engine it is installed, and not yet verified
	c.waits(n + 1)
	_, last := c.rounds()
	assert.Contains(t, last, "/all-is-well/fail ")
	assert.NotContains(t, last, live)
	engine.start()
	l.endsServing(final.SHA256()) // it is back, and that is a reason
	require.Eventually(t, func() bool { _, last := c.rounds(); return last == "/all-is-well " }, time.Minute, 20*time.Millisecond)
	l.healthyAndReloadable()
	c.ends()
}

// file writes a file with that content.
func (l *lab) file(content string) string {
	l.t.Helper()
	name := filepath.Join(l.root, fmt.Sprintf("file%d", time.Now().UnixNano()))
	require.NoError(l.t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

// door is a socket behind which the engine is, as long as it is open.
type door struct {
	t        *testing.T
	path     string
	listener net.Listener
	mu       sync.Mutex
	inside   []net.Conn
}

func (l *lab) engine() *door {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "door") // short enough for a socket
	require.NoError(l.t, err)
	l.t.Cleanup(func() { os.RemoveAll(dir) })
	d := &door{t: l.t, path: filepath.Join(dir, "s")}
	d.start()
	l.t.Cleanup(d.stop)
	return d
}

func (d *door) start() {
	listener, err := net.Listen("unix", d.path)
	require.NoError(d.t, err)
	d.listener = listener
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", "/var/run/docker.sock")
			if err != nil {
				client.Close()
				continue
			}
			d.mu.Lock()
			d.inside = append(d.inside, client, server)
			d.mu.Unlock()
			for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
				go func() {
					_, _ = io.Copy(to, from)
					client.Close()
					server.Close()
				}()
			}
		}
	}()
}

// stop closes it, and breaks off every conversation.
func (d *door) stop() {
	d.listener.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.inside {
		conn.Close()
	}
	d.inside = nil
}

func TestAgentServesWhatStandsAfterManyRewrites(t *testing.T) {
	rewrites, stands := 100, 0
	if soak {
		rewrites, stands = 1000, 10
	}
	l, store := deployedFromTraefik(t)
	a := l.watch()
	var pair *mint.Pair
	for n := 1; n <= rewrites; n++ {
		pair = l.issue(mint.Leaf{NotBefore: time.Now().Add(-20*time.Minute + time.Duration(n)*time.Second)})
		whole := traefikStore(t, pair)
		require.NoError(t, os.WriteFile(store, whole[:len(whole)/2], 0o600)) // as a reader may meet it
		time.Sleep(5 * time.Millisecond)
		require.NoError(t, os.WriteFile(store, whole, 0o600))
		time.Sleep(20 * time.Millisecond)
		if stands > 0 && n%(rewrites/stands) == 0 {
			l.endsServing(pair.SHA256())
		}
		l.holdsAPair(fmt.Sprint("after rewrite ", n))
	}
	l.endsServing(pair.SHA256())

	// The source goes, and comes back with what was issued since.
	n, _ := a.rounds()
	require.NoError(t, os.RemoveAll(filepath.Dir(store)))
	a.waits(n + 1)
	pair = l.issue(mint.Leaf{NotBefore: time.Now()})
	l.traefik(store, pair)
	l.endsServing(pair.SHA256())
	a.ends()
	require.Equal(t, 0, l.sync().code)
	l.healthyAndReloadable()
}

func TestAgentObtainsACertificateToo(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	i.startPublished(rig.FrontOptions{})
	require.Eventually(t, func() bool { return i.listens(25) }, 30*time.Second, 100*time.Millisecond)
	a := i.watch("--renew", "--agree-tos")
	i.servesLineage(mailName)
	_, last := a.rounds()
	assert.Equal(t, "/all-is-well ", last)
	requests := i.asked(func() {
		require.NoError(t, a.cmd.Process.Signal(syscall.SIGHUP))
		a.waits(2)
	})
	assert.Zero(t, count(requests, newOrder), "it is not due")
	for _, f := range i.status(nil).Findings {
		assert.NotContains(t, []string{"sync_timer_missing", "renew_timer_missing"}, f.Code)
	}
	a.ends()
	i.healthyAndReloadable()
	i.nothingLeft()
}
