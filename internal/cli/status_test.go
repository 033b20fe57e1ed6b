package cli

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/tlsa"
)

// looked is a status of a front on which dovecot lags behind, at a fixed time.
func looked(t *testing.T) *status {
	t.Helper()
	at := time.Date(2026, 11, 24, 6, 30, 0, 0, time.UTC)
	ca, err := mint.NewCA(mint.CAOptions{Name: "Example", NotBefore: at.AddDate(-1, 0, 0), NotAfter: at.AddDate(9, 0, 0)})
	require.NoError(t, err)
	issue := func(from time.Time) []*x509.Certificate {
		pair, err := ca.Issue(mint.Leaf{Names: []string{"mail.example.com", "imap.example.com"}, NotBefore: from, NotAfter: from.AddDate(0, 0, 90)})
		require.NoError(t, err)
		return []*x509.Certificate{pair.Cert, ca.Issuer}
	}
	newer, older := issue(at.AddDate(0, 0, -1)), issue(at.AddDate(0, 0, -70))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	facts := mailu.ParseEnvironment(func(name string) string {
		return map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com", "TLS_FLAVOR": "cert"}[name]
	})
	facts.Container, facts.Project, facts.Image, facts.CertsDir = "mailu-front-1", "mailu", "ghcr.io/mailu/nginx:2024.06", "/mailu/certs"
	f := health.Front{
		Facts: facts, State: "running", Health: "healthy",
		Inside: &mailu.Inside{Daemons: []mailu.Daemon{{Name: "nginx", PidFile: "/run/nginx.pid", Pid: "intact", Runs: true}, {Name: "dovecot", PidFile: "/run/dovecot/master.pid", Pid: "intact", Runs: true}}},
		Directory: health.Directory{Path: "/mailu/certs", Used: true, Chain: newer,
			Cert: health.File{Name: "cert.pem", Kind: health.Ours}, Key: health.File{Name: "key.pem", Kind: health.Ours}},
		Memory: hook.State{Last: &hook.Last{At: at.Add(-25 * time.Hour), Outcome: hook.OutcomeInstalled, Lineage: "/etc/letsencrypt/live/mail.example.com"},
			Pending: &hook.Pending{Since: at.Add(-time.Hour), Next: at.Add(time.Hour), Reason: "dovecot objects"}},
		DANE:     []health.DANE{{Host: "mail.example.com", Verdict: health.DANEMatch}},
		Lineages: []health.Lineage{{Path: "/etc/letsencrypt/live/mail.example.com", Chain: newer, Last: true, Certbot: true, Hooked: true}},
	}
	for _, p := range facts.Ports {
		e := mailu.Endpoint{Port: p, Chain: newer, Leaf: pki.Fingerprint(newer[0])}
		if f.Daemon(p.Number) == "dovecot" {
			e.Chain, e.Leaf = older, pki.Fingerprint(older[0])
		}
		if p.Number == 4190 {
			e.Chain, e.Leaf, e.Err = nil, "", errors.New("connection refused at 192.168.203.4:4190, and a text that goes on and on and on")
		}
		f.Endpoints = append(f.Endpoints, e)
	}
	s := &status{c: &call{command: statusCommand(), fs: newFlagSet(statusCommand())}, options: health.Options{Warn: health.DefaultWarn, Crit: health.DefaultCrit}}
	s.look = health.Look{At: at, Roots: roots, Fronts: []health.Front{f}, Schedule: health.Schedule{Certbot: health.Timer{By: "certbot.timer"}, Sync: health.Timer{By: "mailu-hook-sync.timer"}}}
	s.dane = map[string][]tlsa.Host{"mailu-front-1": {{Name: "mail.example.com", Verdict: dane.Match, TLSA: resolve.TLSA{Secure: true, Owner: "_25._tcp.mail.example.com.", TTL: time.Hour}}}}
	s.findings = health.Judge(s.look, s.options)
	return s
}

func drawn(s *status, width int, colour bool) string {
	sc := &screen{width: width, colour: colour}
	s.draw(sc)
	return regexp.MustCompile(`\b[0-9a-f]{8}\b`).ReplaceAllString(sc.String(), "c0ffee00")
}

func TestScreenOf80Columns(t *testing.T) {
	assert.Equal(t, `CRITICAL  port 4190 of mailu-front-1: no TLS: 4190 (sieve): connection refused
          at 192.168.203.4:4190, and a text that goes on and on and on
          do: docker logs mailu-front-1 tells why; mailu-hook sync --now reloads
              the daemons
WARNING   mailu-front-1 is out of step: nginx shows the installed certificate
          (25 and 443), dovecot shows an older one (465, 993 and 995)
          do: docker exec mailu-front-1 nginx -t, and doveconf -n, tell which
              configuration is broken; then mailu-hook sync --now
WARNING   the certificate that ports 465, 993 and 995 show expires in 20 days
          (22 % of its lifetime is left), on 2026-12-14
          do: certbot renew, and its log /var/log/letsencrypt/letsencrypt.log;
              then mailu-hook sync --now
WARNING   a deploy is unfinished since 2026-11-24 05:30:00 (the next attempt is
          due at 2026-11-24 07:30:00): dovecot objects
          do: mend the cause, then mailu-hook sync --now

mailu-front-1 (project mailu): running, healthy, pid files intact

                  DAEMON   SHOWS  LEAF      LEFT           NAMES  CHAIN
lineage                    same   c0ffee00  89 days  98 %  all    complete
installed                         c0ffee00  89 days  98 %  all    complete
  25 smtp         nginx    same   c0ffee00  89 days  98 %  all    complete
 443 https        nginx    same   c0ffee00  89 days  98 %  all    complete
 465 submissions  dovecot  older  c0ffee00  20 days  22 %  all    complete
 993 imaps        dovecot  older  c0ffee00  20 days  22 %  all    complete
 995 pop3s        dovecot  older  c0ffee00  20 days  22 %  all    complete
4190 sieve        dovecot  none   connection refused at 192.168.203.4:4190, and…

names        mail.example.com, imap.example.com
lineage      /etc/letsencrypt/live/mail.example.com
last deploy  2026-11-23 05:30 UTC, installed
pending      since 2026-11-24 05:30 UTC, next attempt at 2026-11-24 07:30 UTC
next         certbot renews from 2027-01-22 on (certbot.timer)
DANE         mail.example.com: match
`, drawn(looked(t), 80, false))
}

func TestScreenOf120ColumnsShowsMore(t *testing.T) {
	got := drawn(looked(t), 120, false)
	assert.Contains(t, got, `
                  DAEMON   SHOWS  LEAF      EXPIRES     LEFT           NAMES  CHAIN     ISSUER
lineage                    same   c0ffee00  2027-02-21  89 days  98 %  all    complete  Example intermediate
`)
}

func TestScreenIsNeverWiderThanTheTerminal(t *testing.T) {
	const longestPath = 60 // with what stands before it; below, paths are left whole
	for width := longestPath; width <= widest; width++ {
		for line := range strings.Lines(drawn(looked(t), width, false)) {
			line = strings.TrimRight(line, "\n")
			assert.LessOrEqual(t, len([]rune(line)), width, "%d: %s", width, line)
			assert.Equal(t, strings.TrimRight(line, " "), line, "trailing blanks")
		}
	}
}

func TestScreenIsColouredOnATerminalOnlyAndNeverWithNOCOLOR(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	for name, c := range map[string]struct {
		env     map[string]string
		columns uint16
		colour  bool
	}{
		"a terminal":            {nil, 100, true},
		"NO_COLOR":              {map[string]string{"NO_COLOR": "1"}, 100, false},
		"a terminal without it": {map[string]string{"TERM": "dumb"}, 100, false},
		"a narrow terminal":     {nil, 60, true},
		"of no known width":     {nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			out := onTerminal(t, c.columns, func(tty *os.File) {
				Run(t.Context(), []string{"status"}, func(name string) string { return firstNonEmpty(c.env[name], w.env[name]) }, tty, tty)
			})
			assert.Contains(t, out, "CRITICAL")
			assert.Equal(t, c.colour, strings.Contains(out, "\x1b[1;31mCRITICAL"))
			width := int(c.columns)
			if width == 0 {
				width = usual
			}
			longest := 0
			for line := range strings.Lines(regexp.MustCompile(`\x1b\[[\d;]*m`).ReplaceAllString(out, "")) {
				if strings.Contains(line, w.dir) { // paths are left whole
					continue
				}
				longest = max(longest, len([]rune(strings.TrimRight(line, "\r\n"))))
			}
			assert.LessOrEqual(t, longest, width)
			assert.Greater(t, longest, min(width, 80)-20, "it is used")
		})
	}
	assert.NotContains(t, w.run("status").stdout, "\x1b", "no terminal")
}

// onTerminal returns what work writes to a terminal of so many columns.
func onTerminal(t *testing.T, columns uint16, work func(tty *os.File)) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	defer master.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 24}))
	out := make(chan string)
	go func() {
		var all []byte
		for buffer := make([]byte, 4096); ; {
			n, err := master.Read(buffer)
			all = append(all, buffer[:n]...)
			if err != nil { // EIO, once nobody has the other end open
				out <- string(all)
				return
			}
		}
	}()
	work(tty)
	tty.Close()
	return <-out
}

func TestJSONKeysOfAStatusAreStable(t *testing.T) {
	s := looked(t)
	var doc any
	require.NoError(t, json.Unmarshal([]byte(s.json()), &doc))
	var keys []string
	collectKeys("", doc, &keys)
	slices.Sort(keys)
	golden, err := os.ReadFile("testdata/status_keys.txt")
	require.NoError(t, err)
	assert.Equal(t, string(golden), strings.Join(slices.Compact(keys), "\n")+"\n", "keys are added, never renamed or removed")
}

func collectKeys(at string, value any, keys *[]string) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			*keys = append(*keys, strings.TrimPrefix(at+"."+key, "."))
			collectKeys(at+"."+key, inner, keys)
		}
	case []any:
		for _, inner := range value {
			collectKeys(at+"[]", inner, keys)
		}
	}
}

func TestPerfdataAndMetricsTellOfEachCertificate(t *testing.T) {
	s := looked(t)
	assert.Equal(t, "MAILU TLS CRITICAL - port 4190 of mailu-front-1: no TLS: 4190 (sieve): connection refused at 192.168.203.4:4190, and a text that goes on and on and on (and 3 more)"+
		" | installed=7689600s;1944000:;972000:;;7776000 port_25=7689600s;1944000:;972000:;;7776000 port_443=7689600s;1944000:;972000:;;7776000"+
		" port_465=1728000s;1944000:;972000:;;7776000 port_993=1728000s;1944000:;972000:;;7776000 port_995=1728000s;1944000:;972000:;;7776000\n", s.nagios())
	metrics := s.prometheus()
	for _, want := range []string{
		"mailu_hook_status 2", "mailu_hook_look_complete 1", "mailu_hook_look_timestamp_seconds 1795501800",
		`mailu_hook_finding{code="out_of_step",container="mailu-front-1",severity="warning"} 1`,
		`mailu_hook_installed_not_after_timestamp_seconds{container="mailu-front-1"} 1803191400`,
		`mailu_hook_port_not_after_timestamp_seconds{container="mailu-front-1",port="993",protocol="imaps"} 1797229800`,
		`mailu_hook_port_matches_installed{container="mailu-front-1",port="443",protocol="https"} 1`,
		`mailu_hook_port_matches_installed{container="mailu-front-1",port="993",protocol="imaps"} 0`,
		`mailu_hook_port_up{container="mailu-front-1",port="4190",protocol="sieve"} 0`,
		`mailu_hook_deploy_pending{container="mailu-front-1"} 1`, `mailu_hook_last_deploy_timestamp_seconds{container="mailu-front-1"} 1795411800`,
	} {
		assert.Contains(t, metrics, want+"\n")
	}
	assert.NotContains(t, metrics, `port_not_after_timestamp_seconds{container="mailu-front-1",port="4190"`, "it shows none")
}

func TestSettingsOfOneFrontAreNotThoseOfSeveral(t *testing.T) {
	w := newWorld(t) // MAILU_HOOK_CERTS_DIR is set
	other := container{"other-front-1", "other", "exited", t.TempDir(), map[string]string{"TLS_FLAVOR": "cert", "HOSTNAMES": "mail.example.org"}}
	w.engine(w.stopped(), other)
	doc := w.run("status", "--output", "json").document(t)
	fronts := doc["fronts"].([]any)
	require.Len(t, fronts, 2)
	for i, want := range []string{w.certs, other.certs} {
		assert.Equal(t, want, fronts[i].(map[string]any)["certs_dir"])
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.certs, "cert.pem"), w.pair.Chain, 0o600))
	assert.Contains(t, w.run("status", "--output", "nagios").stdout, " | mailu-front-1_installed=", "labels are told apart")
	assert.Equal(t, 3, w.run("status", "--container", "other-front-1").status, "the directory that was set is not the one it mounts")
}

func TestMistakeOfTheCallerIsUnknownAndNotCritical(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{
		{"--frobnicate"}, {"extra"}, {"--warn", "soon"}, {"--crit", "-1"}, {"--timeout", "0s"}, {"--ignore", "everything"},
		{"--roots", "/nonexistent"}, {"--config", "/nonexistent"}, {"--log-level", "loud"}, {"--textfile", "/tmp/mailu.txt"},
	} {
		r := w.run(append([]string{"status"}, args...)...)
		assert.Equal(t, 3, r.status, "%q", args)
		assert.Contains(t, r.stderr, "mailu-hook: error: ", "%q", args)
		doc := w.run(append([]string{"status", "--output", "json"}, args...)...).document(t)
		assert.Equal(t, "unknown", doc["status"], "%q", args)
	}
	r := w.run("status", "--output", "yaml")
	assert.Equal(t, 3, r.status)
	w.env["DOCKER_HOST"] = "nonsense"
	assert.Equal(t, 3, w.run("status").status)
}

func TestMetricsThatCannotBeWrittenAreAnError(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	r := w.run("status", "--textfile", filepath.Join(w.dir, "none", "mailu.prom"))
	assert.Equal(t, 2, r.status)
	assert.Contains(t, r.stdout, "UNKNOWN   writing the metrics: ", "nobody may take old metrics for new ones")
	assert.Contains(t, r.stdout, "is not running", "what was seen is told all the same")
	dir := filepath.Join(w.dir, "mailu.prom")
	require.NoError(t, os.Mkdir(dir, 0o755))
	doc := w.run("status", "--output", "json", "--ignore", "front_stopped,file_missing", "--textfile", dir).document(t)
	assert.Equal(t, "unknown", doc["status"])
	entries, err := os.ReadDir(w.dir)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "no litter: %v", entries)
}

func TestOnlyStatusHasItsFormats(t *testing.T) {
	w := newWorld(t)
	for _, cmd := range commands() {
		fs := newFlagSet(cmd)
		if fs.Lookup("output") == nil || cmd.name == "status" {
			continue
		}
		r := w.run(slices.DeleteFunc([]string{cmd.name, "--output", "nagios"}, func(arg string) bool { return arg == "" })...)
		assert.Equal(t, exitUsage, r.status, cmd.name)
		assert.Contains(t, r.stderr, `"nagios" is neither text nor json`)
	}
	newFlagSet(statusCommand()).VisitAll(func(f *pflag.Flag) { assert.Equal(t, f.DefValue, f.Value.String(), f.Name) })
}

func TestHostileCertificateDoesNoHarmInAStatus(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{Name: "Evil | '" + controls})
	require.NoError(t, err)
	w := newWorldOf(t, ca, mint.Leaf{Names: []string{"x" + strings.ReplaceAll(controls, "\u202e", ""), "-----BEGIN PRIVATE KEY-----"}})
	c := w.stopped()
	c.name, c.env["HOSTNAMES"] = "front|'\x1b[31m", "evil"+controls+".example.com"
	require.NoError(t, os.WriteFile(filepath.Join(w.certs, "cert.pem"), w.pair.Chain, 0o600))
	require.NoError(t, os.Symlink("/evil"+strings.ReplaceAll(controls, "\x00", ""), filepath.Join(w.certs, "key.pem")))
	for _, engine := range []func(){func() {}, func() { w.engine(c) }} {
		engine()
		for _, output := range []string{"text", "json", "prometheus", "nagios"} {
			r := w.run("status", "--output", output, "--lineage", w.lineage, "--timeout", "3s")
			assert.NotZero(t, r.status)
			if output == "nagios" {
				assert.Equal(t, 1, strings.Count(r.stdout, "|"))
			}
		}
	}
}
