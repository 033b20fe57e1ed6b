package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// statusDocument is the JSON of mailu-hook status, as far as tests look at it.
type statusDocument struct {
	Status, Summary string
	Complete        bool
	Findings        []struct{ Severity, Code, Container, Text, Remedy string }
	Fronts          []struct {
		Container string
		Pending   *struct {
			UnderWay bool `json:"under_way"`
		}
		Endpoints []struct {
			Port          int
			Daemon, Shows string
		}
	}
}

// noTimer keeps out of the verdict what the machine of the tests lacks.
const noTimer = "MAILU_HOOK_IGNORE=sync_timer_missing"

// status runs mailu-hook status for its JSON, and holds its exit status to the
// verdict.
func (l *lab) status(env []string, args ...string) statusDocument {
	l.t.Helper()
	r := l.run(append([]string{noTimer, "MAILU_HOOK_OUTPUT=json"}, env...), append([]string{"status"}, args...)...)
	var doc statusDocument
	require.NoError(l.t, json.Unmarshal([]byte(r.stdout), &doc))
	assert.Equal(l.t, map[string]int{"ok": 0, "warning": 1, "critical": 2, "unknown": 3}[doc.Status], r.code)
	return doc
}

// says reports whether there is a finding of that code, with all those parts of
// its sentence.
func (d statusDocument) says(code string, parts ...string) bool {
	for _, f := range d.Findings {
		if f.Code != code || f.Remedy == "" {
			continue
		}
		all := true
		for _, part := range parts {
			all = all && strings.Contains(f.Text, part)
		}
		if all {
			return true
		}
	}
	return false
}

// codes are those of all findings, the worst first.
func (d statusDocument) codes() (codes []string) {
	for _, f := range d.Findings {
		codes = append(codes, f.Severity+" "+f.Code)
	}
	return codes
}

// What only looks shares one front. The last one stops it.
func TestOnAFrontWhereAllIsWell(t *testing.T) {
	l, _, _, second := deployed(t)
	for _, c := range []struct {
		name string
		test func(t *testing.T, l *lab, second *mint.Pair)
	}{
		{"status is OK when all is well and changes nothing", statusIsOKWhenAllIsWellAndChangesNothing},
		{"status without an engine says what it could not see", statusWithoutAnEngineSaysWhatItCouldNotSee},
		{"status opens no private key", statusOpensNoPrivateKey},
		{"status as another user tells what it could not see", statusAsAnotherUserTellsWhatItCouldNotSee},
		{"status reports on each front unless one is chosen", statusReportsOnEachFrontUnlessOneIsChosen},
		{"status writes metrics that Prometheus takes", statusWritesMetricsThatPrometheusTakes},
		{"status compares its clock with the engine's", statusComparesItsClockWithTheEngines},
		{"status ends in time whatever the engine does", statusEndsInTimeWhateverTheEngineDoes},
		{"sync finds nothing to do and changes nothing", syncFindsNothingToDoAndChangesNothing},
		{"a watcher that a killed deploy left stopped is seen and set going", aWatcherThatAKilledDeployLeftStoppedIsSeenAndSetGoing},
		{"the dashboard and the alerts ask for what status prints", dashboardAndAlertsAskForWhatStatusPrints},
		{"status speaks to monitoring plugins", statusSpeaksToMonitoringPlugins},
	} {
		l.sub(c.name, func(t *testing.T) { c.test(t, l, second) })
	}
}

func statusIsOKWhenAllIsWellAndChangesNothing(t *testing.T, l *lab, second *mint.Pair) {
	before := snapshot(t, l.root)
	doc := l.status(nil)
	assert.Equal(t, "ok", doc.Status, "%v", doc.codes())
	assert.True(t, doc.Complete)
	require.Len(t, doc.Fronts, 1)
	require.Len(t, doc.Fronts[0].Endpoints, 6)
	for _, e := range doc.Fronts[0].Endpoints {
		assert.Equal(t, "same", e.Shows)
		assert.Equal(t, e.Port == 25 || e.Port == 443, e.Daemon == "nginx")
	}
	assert.Contains(t, doc.Summary, "serves mail.example.com on 6 ports until "+second.Cert.NotAfter.UTC().Format(time.DateOnly))
	assert.Equal(t, before, snapshot(t, l.root))
}

func TestStatusNamesWhatIsWrongWithTheContainer(t *testing.T) {
	l, _, _, _ := deployedTo(t, rig.FrontOptions{HealthEvery: time.Second})
	require.NoError(t, l.front.WaitHealthy(t.Context()))
	name := l.front.Name
	require.NoError(t, l.front.Pause(t.Context()))
	paused := l.status(nil)
	require.NoError(t, l.front.Unpause(t.Context()))
	assert.Equal(t, []string{"critical front_paused"}, paused.codes())
	assert.True(t, paused.says("front_paused", "the front "+name+" is paused and answers nobody"))

	l.execOK("rm", "/run/nginx.pid", "/run/dovecot/master.pid")
	lost := l.status(nil)
	assert.Contains(t, lost.codes(), "warning pid_file_lost")
	assert.True(t, lost.says("pid_file_lost", "pid files are missing or wrong in "+name+" (/run/nginx.pid and /run/dovecot/master.pid)", "Mailu#4080"))
	require.Eventually(t, func() bool {
		return l.status(nil).says("front_unhealthy", "Docker reports the front "+name+" as unhealthy")
	}, 30*time.Second, time.Second)
	require.Equal(t, 0, l.sync().code)
	require.NoError(t, l.front.WaitHealthy(t.Context()))
	assert.Equal(t, "ok", l.status(nil).Status, "sync fixed it, as the remedy says")

	require.NoError(t, l.front.Stop(t.Context()))
	stopped := l.status(nil)
	assert.Equal(t, []string{"critical front_stopped"}, stopped.codes())
	assert.True(t, stopped.says("front_stopped", "the front "+name+" is not running (exited)"))

	require.NoError(t, l.front.Remove())
	assert.True(t, l.status(nil).says("front_missing", "no front "))
}

func statusWithoutAnEngineSaysWhatItCouldNotSee(t *testing.T, l *lab, _ *mint.Pair) {
	for name, e := range map[string]string{"down": "/nonexistent/docker.sock", "hanging": hangingSocket(t)} {
		began := time.Now()
		doc := l.status([]string{"DOCKER_HOST=unix://" + e}, "--timeout", "3s")
		assert.Less(t, time.Since(began), 3500*time.Millisecond, name)
		assert.Equal(t, "unknown", doc.Status, name)
		assert.False(t, doc.Complete)
		assert.True(t, doc.says("engine_unseen", "cannot query the container engine"), name)
		assert.True(t, doc.says("ports_unseen", "no port of "+l.front.Name+" could be reached"), "%s: its ports are not published here; %v", name, doc.codes())
	}
}

func TestStatusEndsInTimeWhenTheResolverHangs(t *testing.T) {
	require.Zero(t, os.Geteuid(), "needs root to mount")
	l := newLab(t)
	const silent = "127.66.0.53" // a nameserver that takes questions and answers none
	server, err := net.ListenPacket("udp", silent+":53")
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	resolv := filepath.Join(l.root, "resolv.conf")
	require.NoError(t, os.WriteFile(resolv, []byte("nameserver "+silent+"\n"), 0o644))
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private",
		"sh", "-c", `mount --bind "$1" "$(readlink -f /etc/resolv.conf)" && shift && exec "$@"`, "sh", resolv, binary, "status", "--output", "json", "--timeout", "2s")
	cmd.Env = append(append(os.Environ(), l.env...), "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_HOSTNAME=mail.example.com", "MAILU_HOOK_CERTS_DIR="+l.certs())
	began := time.Now()
	out, _ := cmd.Output()
	assert.Less(t, time.Since(began), 2500*time.Millisecond)
	var doc statusDocument
	require.NoError(t, json.Unmarshal(out, &doc), "%s", out)
	assert.Contains(t, doc.codes(), "unknown ports_unseen")
	require.NoError(t, server.SetReadDeadline(time.Now().Add(time.Second)))
	n, _, err := server.ReadFrom(make([]byte, 512))
	require.NoError(t, err, "it was asked")
	assert.NotZero(t, n)
}

func TestStatusEndsInTimeWhateverAPortDoes(t *testing.T) {
	l, _, _, _ := deployed(t)
	l.execOK("sh", "-c", "kill -STOP -1") // all but PID 1: the kernel accepts connections, and nobody speaks
	for _, timeout := range []time.Duration{time.Second, 10 * time.Second} {
		began := time.Now()
		doc := l.status(nil, "--timeout", timeout.String())
		assert.Less(t, time.Since(began), min(timeout, 4*time.Second)+500*time.Millisecond)
		assert.NotEqual(t, "ok", doc.Status)
		assert.True(t, doc.says("ports_unseen", "no port of "+l.front.Name+" could be reached: port 25 (smtp): "), "%v", doc.codes())
	}
}

func TestStatusTellsOfAPendingDeploy(t *testing.T) {
	l, _, _, _ := deployed(t)
	third := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	live := l.lineage(third, "mail.example.com")
	renewed := l.status(nil)
	assert.True(t, renewed.says("lineage_newer", live+" was renewed on ", "but the certificate is not installed"), "%v", renewed.codes())

	broken := filepath.Join(l.root, "overrides", "nginx", "broken.conf")
	require.NoError(t, os.WriteFile(broken, []byte("no_such_setting;\n"), 0o644))
	require.Equal(t, 4, l.hook(live).code)
	doc := l.status(nil)
	assert.Equal(t, []string{"warning deploy_pending"}, doc.codes(), "the old pair is served")
	assert.True(t, doc.says("deploy_pending", "a deploy has been unfinished since ", "next attempt at ", "no_such_setting"))
	require.NoError(t, os.Remove(broken))
	require.Equal(t, 0, l.sync("--now").code)
	assert.Equal(t, "ok", l.status(nil).Status)
}

func TestStatusNamesLinksThatLeadNowhereAndATLSOffFront(t *testing.T) {
	l, _, _, _ := deployed(t)
	for code, c := range map[string]struct{ target, sentence string }{
		"link_dangling": {"archive/cert7.pem", "cert.pem in CERTS points to archive/cert7.pem, which does not exist"},
		"link_outward":  {"/etc/letsencrypt/live/mail.example.com/fullchain.pem", "cert.pem in CERTS points to /etc/letsencrypt/live/mail.example.com/fullchain.pem, which is outside the directory and does not exist in the container"},
	} {
		l.sub(code, func(t *testing.T) {
			cert := filepath.Join(l.certs(), "cert.pem")
			require.NoError(t, os.Remove(cert))
			require.NoError(t, os.Symlink(c.target, cert))
			doc := l.status(nil)
			assert.Equal(t, "critical", doc.Status)
			assert.True(t, doc.says(code, strings.ReplaceAll(c.sentence, "CERTS", l.certs()), "when the front restarts, TLS will be off"), "%v", doc.codes())
			require.Eventually(t, func() bool { // the front's watcher has noticed
				return l.status(nil).says("front_tls_off", "TLS is off in "+l.front.Name+": 443 is closed and 25 offers no STARTTLS")
			}, 20*time.Second, 200*time.Millisecond)
			require.Equal(t, 0, l.sync("--now").code, "the remedy that is named")
			assert.Equal(t, "ok", l.status(nil).Status)
		})
	}
}

func TestStatusNamesAFrontThatStartedWithoutCertificates(t *testing.T) {
	l := newLab(t)
	l.start(rig.FrontOptions{})
	require.Eventually(t, func() bool { return l.listens(25) }, 30*time.Second, 100*time.Millisecond)
	doc := l.status(nil)
	assert.Equal(t, []string{"critical file_missing"}, doc.codes(), "one cause, one finding")
	assert.True(t, doc.says("file_missing", "there is no certificate in "+l.certs()+" yet, so the front has no TLS"))

	l.writePlain(l.issue(mint.Leaf{}), "cert.pem", "key.pem")
	require.NoError(t, l.front.WaitServing(t.Context(), 25, 443))
	require.Eventually(t, func() bool { // once config.py, which deletes nginx's pid file, has ended
		return slices.Equal([]string{"critical dovecot_down", "warning pid_file_lost", "warning not_adopted"}, l.status(nil).codes())
	}, 20*time.Second, 200*time.Millisecond)
}

func TestStatusNamesDaemonsThatAreOutOfStep(t *testing.T) {
	l, _, _, _ := deployed(t)
	file := filepath.Join(l.root, "overrides", "nginx", "dovecot", "proxy.conf")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("no_such_setting = yes\n"), 0o644))
	third := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	for name, data := range map[string][]byte{"cert.pem": third.Chain, "key.pem": third.KeyPEM} {
		require.NoError(t, os.WriteFile(filepath.Join(l.certs(), name), data, 0o600)) // through our links, as cp does
	}
	l.execOK("nginx", "-s", "reload")
	require.Eventually(t, func() bool {
		return l.status(nil).says("out_of_step", l.front.Name+" serves different certificates: nginx the installed one (25 and 443), dovecot an older one (465, 993, 995 and 4190)")
	}, 20*time.Second, 200*time.Millisecond)
}

func TestStatusInfersAKeyOfAnotherCertificateWithoutOpeningIt(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	other := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.NoError(t, os.WriteFile(filepath.Join(l.certs(), "cert.pem"), other.Chain, 0o644)) // half of a copy
	require.Eventually(t, func() bool {
		return l.status(nil).says("pair_mismatch", "cert.pem and key.pem in "+l.certs()+" do not appear to match: dovecot offers no TLS on any port")
	}, 20*time.Second, 200*time.Millisecond)
}

func TestStatusJudgesTheCertificatesThatAreServed(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{Env: map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com"}})
	now := time.Now()
	alone := l.issue(mint.Leaf{Names: []string{"mail.example.com", "imap.example.com"}})
	alone.Chain = alone.LeafPEM
	both := []string{"mail.example.com", "imap.example.com"}
	const place = "the installed certificate, which every port serves, "
	for _, c := range []struct {
		pair           *mint.Pair
		severity, code string
		sentence       string
		args           []string
	}{
		{alone, "critical", "chain_incomplete", place + `is sent without its issuer "CN=mint intermediate", so most mail clients and servers reject it`, nil},
		{l.issue(mint.Leaf{Names: []string{"www.example.com"}}), "critical", "names_missing", place + "does not cover mail.example.com and imap.example.com (it covers www.example.com)", nil},
		{l.issue(mint.Leaf{Names: both[:1]}), "warning", "names_missing", place + "does not cover imap.example.com (it covers mail.example.com)", nil},
		{l.issue(mint.Leaf{Names: both, NotBefore: now.Add(-72 * 24 * time.Hour), NotAfter: now.Add(18*24*time.Hour + time.Hour)}), "warning", "cert_expiring", place + "expires in 18 days (20 % of its lifetime is left)", nil},
		{l.issue(mint.Leaf{Names: both, NotBefore: now.Add(-85 * 24 * time.Hour), NotAfter: now.Add(5*24*time.Hour + time.Hour)}), "critical", "cert_expiring", place + "expires in 5 days (5 % of its lifetime is left)", nil},
		{l.issue(mint.Leaf{Names: both, NotBefore: now.Add(-90 * 24 * time.Hour), NotAfter: now.Add(-time.Hour)}), "critical", "cert_expired", place + "expired on ", nil},
		{l.issue(mint.Leaf{Names: both}), "critical", "chain_untrusted", place + `is not trusted: its chain ends at "CN=mint root", which is not a root of this system`, []string{"--roots", ""}},
		{l.issue(mint.Leaf{Names: both}), "warning", "cert_expiring", place + "expires in 89 days", []string{"--warn", "90d"}},
	} {
		l.writePlain(c.pair, "cert.pem", "key.pem")
		require.Eventually(t, func() bool {
			served, err := l.front.Served(t.Context())
			for _, leaf := range served {
				if leaf != c.pair.SHA256() {
					return false
				}
			}
			return err == nil
		}, 2*time.Minute, 500*time.Millisecond, c.sentence)
		doc := l.status([]string{"MAILU_HOOK_IGNORE=sync_timer_missing,not_adopted"}, c.args...)
		assert.Equal(t, []string{c.severity + " " + c.code}, doc.codes())
		assert.True(t, doc.says(c.code, c.sentence), "%+v", doc.Findings)
	}
}

func TestStatusNamesAFrontThatADeployCannotReach(t *testing.T) {
	l := newLab(t)
	pair := l.issue(mint.Leaf{})
	l.writePlain(pair, "cert.pem", "key.pem")
	own := filepath.Join(l.certs(), "letsencrypt", "live", "mailu")
	require.NoError(t, os.MkdirAll(own, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own, "nginx-chain.pem"), pair.Chain, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(own, "privkey.pem"), pair.KeyPEM, 0o600))
	l.start(rig.FrontOptions{Env: map[string]string{"TLS_FLAVOR": "letsencrypt"}})
	l.waitServing()
	doc := l.status(nil)
	assert.Equal(t, []string{"warning tls_flavor"}, doc.codes(), "what it serves is in order")
	assert.True(t, doc.says("tls_flavor", "with TLS_FLAVOR=letsencrypt Mailu obtains its own certificates and ignores cert.pem and key.pem"))

	certs := filepath.Join(l.root, "certs")
	files := startMounts(t, l, "--volume", filepath.Join(certs, "cert.pem")+":/certs/cert.pem", "--volume", filepath.Join(certs, "key.pem")+":/certs/key.pem")
	doc = files.status(nil)
	assert.Equal(t, []string{"warning certs_mount"}, doc.codes())
	assert.True(t, doc.says("certs_mount", "/certs/cert.pem and /certs/key.pem is mounted as a single file"))
}

// startMounts starts another front in a lab like l, with mounts of its own and
// no certs directory.
func startMounts(t *testing.T, l *lab, mounts ...string) *lab {
	t.Helper()
	other := *l
	front, err := rig.StartFront(t.Context(), rig.FrontOptions{ExtraArgs: mounts})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, front.Remove()) })
	other.front = front
	other.env = append(slices.Clone(l.env), "MAILU_HOOK_PROJECT="+front.Project)
	other.waitServing()
	return &other
}

// hangingSocket is an engine that accepts connections and never answers.
func hangingSocket(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return socket
}
