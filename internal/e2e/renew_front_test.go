package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// gate stands before the web ports of a front, as a balancer does: it says the
// PROXY header where one is wanted, and can be shut.
type gate struct {
	i       *issuer
	header  string
	arrived chan struct{} // somebody stands before the shut gate
	opened  chan struct{} // closed: it is open
	once    sync.Once
}

// build puts a gate at the address where the names lead.
func (i *issuer) build(header string) *gate {
	i.t.Helper()
	g := &gate{i: i, header: header, arrived: make(chan struct{}), opened: make(chan struct{})}
	i.address = loopback()
	i.lead(i.address, mailName)
	for _, port := range []string{"80", "443"} {
		listener, err := net.Listen("tcp", net.JoinHostPort(i.address, port))
		require.NoError(i.t, err)
		i.t.Cleanup(func() { _ = listener.Close() })
		go g.serve(listener, port)
	}
	return g
}

func (g *gate) open() { close(g.opened) }

func (g *gate) serve(listener net.Listener, port string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		go g.pass(client, port)
	}
}

func (g *gate) pass(client net.Conn, port string) {
	defer client.Close()
	select {
	case <-g.opened:
	default:
		g.once.Do(func() { close(g.arrived) })
		<-g.opened
	}
	ip, err := g.i.front.IP(g.i.t.Context())
	if err != nil {
		return
	}
	server, err := net.DialTimeout("tcp", net.JoinHostPort(ip, port), 5*time.Second)
	if err != nil {
		return
	}
	defer server.Close()
	_, _ = server.Write([]byte(g.header))
	go func() {
		_, _ = io.Copy(client, server)
		client.Close()
	}()
	_, _ = io.Copy(server, client)
}

// inBackground starts renew and returns what waits for its result.
func (i *issuer) inBackground(args ...string) (wait func() result) {
	done := make(chan result, 1)
	go func() { done <- i.renew(args...) }()
	return func() result { return <-done }
}

// proxyHeader is PROXY protocol version 2 with the command LOCAL.
const proxyHeader = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

func TestFrontThatWantsPROXYHeadersEverywhereAnswers(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	old := i.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)})
	i.writePlain(old, "cert.pem", "key.pem")
	i.start(rig.FrontOptions{Env: map[string]string{"PROXY_PROTOCOL": "80,443,mail", "REAL_IP_FROM": "0.0.0.0/0"}})
	require.NoError(t, i.front.WaitServing(t.Context()))
	i.build(proxyHeader).open()
	i.issues()
	i.servesLineage(mailName)
	i.nothingLeft()
}

func TestFrontThatIsRecreatedDuringTheChallengeStillGetsItsCertificate(t *testing.T) {
	i, _ := startServingIssuer(t)
	g := i.build("")
	wait := i.inBackground("--no-self-check")
	<-g.arrived // the CA looks
	require.NoError(t, i.front.Remove())
	i.start(rig.FrontOptions{Project: i.front.Project})
	require.NoError(t, i.front.WaitServing(t.Context(), 443))
	g.open()
	r := wait()
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	i.servesLineage(mailName)
	i.healthyAndReloadable()
	i.nothingLeft()
}

func TestFrontThatIsStoppedDuringTheChallengeLeavesNothingBehind(t *testing.T) {
	i, old := startServingIssuer(t)
	g := i.build("")
	wait := i.inBackground("--no-self-check")
	<-g.arrived
	require.NoError(t, i.front.Stop(t.Context()))
	g.open()
	r := wait()
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "for "+mailName)
	i.nothingLeft()
	require.NoError(t, i.front.Start(t.Context()))
	i.waitServing()
	i.serves(old)
	i.issues("--now")
	i.servesLineage(mailName)
	i.nothingLeft()
}

// startServingIssuer is startRenewing with nothing published: a gate stands there.
func startServingIssuer(t *testing.T) (*issuer, *mint.Pair) {
	t.Helper()
	i := newIssuer(t, rig.CAOptions{})
	old := i.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)})
	i.writePlain(old, "cert.pem", "key.pem")
	i.start(rig.FrontOptions{})
	i.waitServing()
	return i, old
}

func TestTwoConcurrentRunsObtainOneCertificate(t *testing.T) {
	i, _ := startServingIssuer(t)
	g := i.build("")
	first := i.inBackground("--no-self-check")
	<-g.arrived
	second := i.inBackground("--no-self-check")
	hurried := i.renew("--timeout", "1s")
	assert.Equal(t, 7, hurried.code, "another run holds the lock")
	require.FileExists(t, filepath.Join(i.root, "overrides", "nginx", "mailu-hook-acme.conf"), "the answer of the first is still there")
	g.open()
	assert.True(t, first().renewal(t).Issued)
	r := second()
	require.Equal(t, 0, r.code)
	assert.Equal(t, "unchanged", r.doc.Outcome)
	assert.Equal(t, 1, strings.Count(i.log(), "Issued certificate serial"))
	i.servesLineage(mailName)
	i.healthyAndReloadable()
	i.nothingLeft()
}

func TestStoppedFrontMattersOnlyWhenACertificateIsDue(t *testing.T) {
	i, _ := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	i.issues()
	leaf := i.live(mailName)
	again := []string{"--force", "--min-interval", "1ms"}
	i.env = append(i.env, "MAILU_HOOK_CERTS_DIR="+i.certs())
	for _, state := range []struct {
		name, why string
		make      func() error
	}{
		{"stopped", "is not running (exited)", func() error { return i.front.Stop(t.Context()) }},
		{"absent", "no front container found", i.front.Remove},
	} {
		require.NoError(t, state.make(), state.name)
		idle := i.renew()
		require.Equal(t, 0, idle.code, state.name)
		assert.False(t, idle.renewal(t).Due, state.name)
		r := i.renew(append(again, "--now")...)
		assert.Equal(t, 6, r.code, state.name)
		assert.Contains(t, r.doc.Error, "no front can answer the CA's challenge", state.name)
		assert.Contains(t, r.doc.Error, state.why)
		assert.Contains(t, r.doc.Hint, "--challenge", state.name)
		assert.Equal(t, leaf, i.live(mailName))
	}
	i.start(rig.FrontOptions{Project: i.front.Project, ExtraArgs: []string{"-p", i.address + ":80:80", "-p", i.address + ":443:443"}})
	i.waitServing()
	require.NoError(t, i.front.Pause(t.Context()))
	r := i.renew(append(again, "--now")...)
	require.NoError(t, i.front.Unpause(t.Context()))
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "the front "+i.front.Name+" is paused")
	i.issues(append(again, "--now")...)
	i.servesLineage(mailName)
	i.nothingLeft()
}

func TestEveryFrontGetsACertificateForItsOwnNames(t *testing.T) {
	i, _ := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	other := &issuer{lab: &lab{t: t, ca: i.ca, root: t.TempDir()}, acme: i.acme, state: i.state}
	require.NoError(t, os.MkdirAll(other.certs(), 0o755))
	other.writePlain(other.issue(mint.Leaf{Names: []string{"second.example.com"}}), "cert.pem", "key.pem")
	other.startPublished(rig.FrontOptions{Env: map[string]string{"HOSTNAMES": "second.example.com"}})
	other.waitServing()
	i.env = append(i.env, "MAILU_HOOK_PROJECT=", "DOCKER_HOST=unix://"+narrowEngine(t, i.front.ID, other.front.ID))

	r := i.renew()
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	require.Len(t, r.doc.Also, 1)
	assert.Equal(t, "installed", r.doc.Also[0].Outcome)
	i.servesLineage(mailName)
	other.servesLineage("second.example.com")
	i.nothingLeft()
	other.nothingLeft()

	assert.Zero(t, count(i.asked(func() { r = i.renew() }), newOrder), "neither is due")
	assert.Equal(t, "unchanged", r.doc.Outcome)
	assert.Equal(t, "unchanged", r.doc.Also[0].Outcome)
	assert.Equal(t, 0, i.sync().code)
}

func TestCertificateThatTheFrontRefusesIsKeptAndInstalledOnceTheCauseIsFixed(t *testing.T) {
	i, old := startServingIssuer(t)
	i.address = loopback()
	i.lead(i.address, mailName)
	i.env = append(i.env, "MAILU_HOOK_CHALLENGE=standalone", "MAILU_HOOK_LISTEN="+i.address+":80")
	broken := filepath.Join(i.root, "overrides", "nginx", "broken.conf")
	served := old.SHA256()
	for n, c := range []struct {
		name   string
		args   []string // of the renewal
		finish func() result
	}{
		{"by renew", nil, func() result { return i.renew("--now") }},
		{"by sync", []string{"--force", "--min-interval", "1ms"}, func() result { return i.sync("--now") }},
	} {
		i.sub(c.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(broken, []byte("no_such_setting;\n"), 0o644))
			r := i.renew(c.args...)
			assert.Equal(t, 4, r.code)
			assert.Contains(t, r.doc.Error, "no_such_setting")
			assert.True(t, r.renewal(t).Issued)
			i.showsEverywhere(served)
			leaf := i.live(mailName)

			waits := i.renew()
			assert.Equal(t, 8, waits.code)
			assert.Contains(t, waits.doc.Error, "too early to retry")
			i.showsEverywhere(served)

			require.NoError(t, os.Remove(broken))
			require.Equal(t, 0, c.finish().code)
			served = i.servesLineage(mailName)
			assert.Equal(t, leaf, i.live(mailName))
			assert.Equal(t, n+1, strings.Count(i.log(), "Issued certificate serial"))
			i.healthyAndReloadable()
		})
	}
}

func TestRenewFinishesADeployThatTheEngineInterrupted(t *testing.T) {
	i, _ := startServingIssuer(t)
	i.address = loopback()
	i.lead(i.address, mailName)
	i.env = append(i.env, "MAILU_HOOK_CHALLENGE=standalone", "MAILU_HOOK_LISTEN="+i.address+":80", "MAILU_HOOK_HOSTNAME="+mailName, "MAILU_HOOK_CERTS_DIR="+i.certs())
	r := i.run([]string{"DOCKER_HOST=unix:///nonexistent"}, "renew", "--agree-tos", "--output", "json")
	assert.Equal(t, 8, r.code)
	assert.True(t, r.renewal(t).Issued)
	leaf := i.live(mailName)
	finished := i.renew("--now")
	require.Equal(t, 0, finished.code)
	assert.False(t, finished.renewal(t).Issued)
	assert.Equal(t, leaf, i.live(mailName))
	i.servesLineage(mailName)
	i.healthyAndReloadable()
}

// After a reload, old workers of nginx take connections for a moment beside the
// new ones. None of these runs may let the CA look in that moment.
func TestConsecutiveRunsNeverLetTheCAMeetAWorkerWithoutTheOverride(t *testing.T) {
	i, _ := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	for n := range 8 {
		require.Equal(t, 0, i.renew("--dry-run", "--no-self-check").code, "run %d", n)
	}
	i.nothingLeft()
}
