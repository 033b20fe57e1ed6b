//go:build measure

package e2e

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

const (
	askEvery = 50 * time.Millisecond // six handshakes each: more would slow down what is measured
	restFor  = 3 * time.Second       // until the front's watcher is done with the last round
)

// way is a way to bring a new pair to the ports, and what it took.
type way struct {
	name          string
	run           func(live string)
	served, ended sample
}

// measureServed measures the time from the start of a command until every TLS
// port serves the new leaf, as seen by a prober of its own.
func measureServed(t *testing.T, r *report) {
	l, _ := startServing(t, rig.FrontOptions{})
	ip, err := l.front.IP(t.Context())
	require.NoError(t, err)
	require.Equal(t, 0, l.hook(l.lineage(l.issue(mint.Leaf{}), "mail.example.com")).code) // links are in place
	masters := l.masters()
	require.Len(t, masters, 2, "nginx and dovecot")
	profile := map[string]sample{}
	ways := []*way{
		{name: "the manual's four lines", run: l.manual},
		{name: "mailu-hook", run: func(live string) {
			r := l.hook(live)
			assert.Equal(t, "installed", r.doc.Outcome)
			for step, took := range r.doc.Durations {
				profile[step] = append(profile[step], float64(took))
			}
		}},
		{name: "the floor", run: func(live string) {
			l.copyPair(live)
			for _, pid := range masters {
				assert.NoError(t, syscall.Kill(pid, syscall.SIGHUP))
			}
		}},
	}
	for range r.rounds {
		for _, w := range ways {
			l.serveBy(w, ip)
		}
	}
	manual, floor := ways[0].served, ways[2].served
	tab := newTable(1, "Time to served", `From the start of the command until all six TLS ports show the new leaf to an
independent prober, which asks each port every `+askEvery.String()+`. The manual's lines are two cp,
nginx -s reload and doveadm reload by docker exec. The floor is two cp and a HUP
to the masters, whose pids are known before: no check, no Docker. mailu-hook
validates, stages, tests, verifies, and ends when the front has settled.`,
		"", "served after, ms", "over the manual's", "over the floor", "command ends after, ms")
	for _, w := range ways {
		tab.row(w.name, w.served, w.served.over(manual), w.served.over(floor), w.ended)
	}
	r.add(tab)
	steps := []string{"look", "validate", "guard", "stage", "switch", "test", "reload", "verify", "settle", "total"}
	tab = newTable(2, "Where our time goes", "The steps of the same runs by their own account (`duration_ms` of the JSON, in whole ms).", append([]string{""}, steps...)...)
	cells := []any{"ms"}
	for _, step := range steps {
		cells = append(cells, profile[step])
	}
	tab.row(cells...)
	r.add(tab)
	l.measureRefused(r)
}

// measureRefused measures how long a front with a broken override keeps a deploy busy.
func (l *lab) measureRefused(r *report) {
	override := filepath.Join(l.root, "overrides", "nginx", "broken.conf")
	require.NoError(l.t, os.WriteFile(override, []byte("no_such_directive on;\n"), 0o644))
	var seen, back, ended sample
	for range r.rounds {
		refused := l.hook(l.lineage(l.issue(mint.Leaf{NotBefore: time.Now()}), "mail.example.com"))
		require.Equal(l.t, 4, refused.code)
		took := refused.doc.Durations
		seen = append(seen, float64(took["total"]-took["rollback"]))
		back = append(back, float64(took["rollback"]))
		ended = append(ended, float64(took["total"]))
	}
	require.NoError(l.t, os.Remove(override))
	tab := newTable(2, "A refusal", `A broken file in the front's overrides: from the start of the command until the
refusal is known, from there until the old pair was seen on every port and the front
has settled, and both.`, "", "known after, ms", "back after, ms", "in all, ms")
	tab.row("mailu-hook", seen, back, ended)
	r.add(tab)
}

// serveBy brings a new pair to the ports, and leaves the front as it was but for
// the pair.
func (l *lab) serveBy(w *way, ip string) {
	l.t.Helper()
	pair := l.issue(mint.Leaf{NotBefore: time.Now()})
	live := l.lineage(pair, "mail.example.com")
	began := time.Now()
	var ended time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		w.run(live)
		ended = time.Since(began)
	})
	untilServed(l.t, ip, pair.SHA256())
	w.served = append(w.served, milliseconds(time.Since(began)))
	wg.Wait()
	w.ended = append(w.ended, milliseconds(ended))
	time.Sleep(restFor)
	require.Equal(l.t, 0, l.sync().code) // pid files, if the watcher took them
}

func (l *lab) shell(argv ...string) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	assert.NoError(l.t, err, "%s: %s", argv, out)
}

func (l *lab) copyPair(live string) {
	l.shell("cp", filepath.Join(live, "privkey.pem"), filepath.Join(l.certs(), "key.pem"))
	l.shell("cp", filepath.Join(live, "fullchain.pem"), filepath.Join(l.certs(), "cert.pem"))
}

func (l *lab) manual(live string) {
	l.copyPair(live)
	l.shell("docker", "exec", l.front.Name, "nginx", "-s", "reload")
	l.shell("docker", "exec", l.front.Name, "doveadm", "reload")
}

// masters are the pids of nginx and dovecot on this host.
func (l *lab) masters() (pids []int) {
	out, err := exec.Command("docker", "top", l.front.Name, "-eo", "pid,ppid,comm").Output()
	require.NoError(l.t, err)
	names := map[string]string{} // by pid
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")[1:]
	for _, line := range lines {
		f := strings.Fields(line)
		names[f[0]] = f[2]
	}
	for _, line := range lines {
		f := strings.Fields(line)
		if (f[2] == "nginx" || f[2] == "dovecot") && names[f[1]] != f[2] {
			pid, err := strconv.Atoi(f[0])
			require.NoError(l.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// untilServed returns once every port shows the leaf.
func untilServed(t *testing.T, ip, leaf string) {
	var wg sync.WaitGroup
	for _, port := range []int{25, 443, 465, 993, 995, 4190} {
		wg.Go(func() {
			for deadline := time.Now().Add(30 * time.Second); shown(ip, port) != leaf; time.Sleep(askEvery) {
				if time.Now().After(deadline) {
					t.Errorf("port %d never served it", port)
					return
				}
			}
		})
	}
	wg.Wait()
}

// shown is the leaf that a port shows, "" if it shows none. It is no code of
// mailu-hook's, and cheaper than openssl.
func shown(ip string, port int) string {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip, strconv.Itoa(port)), time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	lines := bufio.NewReader(conn)
	for _, step := range map[int][][2]string{
		25:   {{"", "220 "}, {"EHLO x.invalid\r\n", "250 "}, {"STARTTLS\r\n", "220 "}},
		4190: {{"", "OK"}, {"STARTTLS\r\n", "OK"}},
	}[port] {
		fmt.Fprint(conn, step[0])
		for line := ""; !strings.HasPrefix(line, step[1]); {
			if line, err = lines.ReadString('\n'); err != nil {
				return ""
			}
		}
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "mail.example.com"})
	if client.Handshake() != nil {
		return ""
	}
	sum := sha256.Sum256(client.ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}
