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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

const (
	rounds   = 15
	askEvery = 25 * time.Millisecond // six handshakes each: more would slow down what is measured
)

// TestMeasure prints how long it takes from the start of a command until every
// TLS port serves the new leaf: the manual's four lines, ours, and the floor (one
// rename and HUP to both masters), by turns on the same front. It asserts
// nothing about time.
func TestMeasure(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	ip, err := l.front.IP(t.Context())
	require.NoError(t, err)
	require.Equal(t, 0, l.hook(l.lineage(l.issue(mint.Leaf{}), "mail.example.com")).code) // links are in place
	ways := []struct {
		name string
		run  func(live string)
	}{
		{"manual", l.manual}, {"ours", l.ours}, {"floor", l.floor},
	}
	took := map[string][]time.Duration{}
	for range rounds {
		for _, way := range ways {
			pair := l.issue(mint.Leaf{NotBefore: time.Now()})
			live := l.lineage(pair, "mail.example.com")
			began := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() { way.run(live) })
			untilServed(t, ip, pair.SHA256())
			took[way.name] = append(took[way.name], time.Since(began))
			wg.Wait()
			time.Sleep(4 * time.Second) // the front's watcher
			l.sync()
		}
	}
	for _, way := range ways {
		slices.Sort(took[way.name])
		t.Logf("%-8s median %s (min %s, max %s)", way.name, median(took[way.name]), took[way.name][0], took[way.name][rounds-1])
	}
	t.Logf("ours/manual %.2f, ours/floor %.2f", ratio(took["ours"], took["manual"]), ratio(took["ours"], took["floor"]))
	l.measureCost("not ours", "RENEWED_LINEAGE="+l.lineage(l.issue(mint.Leaf{Names: []string{"www.example.com"}}), "www.example.com"))
	l.measureCost("nothing to do", "RENEWED_LINEAGE="+filepath.Join(l.root, "letsencrypt", "live", "mail.example.com"))
}

func median(d []time.Duration) time.Duration { return d[len(d)/2] }
func ratio(a, b []time.Duration) float64     { return float64(median(a)) / float64(median(b)) }
func (l *lab) ours(live string)              { l.hook(live) }
func (l *lab) shell(argv ...string)          { _ = exec.Command(argv[0], argv[1:]...).Run() }
func (l *lab) copyPair(live, cert, key string) {
	l.shell("cp", filepath.Join(live, "privkey.pem"), key)
	l.shell("cp", filepath.Join(live, "fullchain.pem"), cert)
}

func (l *lab) manual(live string) {
	l.copyPair(live, filepath.Join(l.certs(), "cert.pem"), filepath.Join(l.certs(), "key.pem"))
	l.shell("docker", "exec", l.front.Name, "nginx", "-s", "reload")
	l.shell("docker", "exec", l.front.Name, "doveadm", "reload")
}

// floor changes the files in place and tells the masters, by pids found before.
func (l *lab) floor(live string) {
	l.copyPair(live, filepath.Join(l.certs(), "cert.pem"), filepath.Join(l.certs(), "key.pem"))
	for _, pid := range l.masters() {
		_ = syscall.Kill(pid, syscall.SIGHUP)
	}
}

func (l *lab) masters() (pids []int) {
	out, _ := exec.Command("docker", "top", l.front.Name, "-eo", "pid,ppid,comm").Output()
	parents := map[int]string{}
	type proc struct {
		pid, parent int
		name        string
	}
	var procs []proc
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pid, err := strconv.Atoi(f[0])
		if err != nil {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		procs = append(procs, proc{pid, parent, f[2]})
		parents[pid] = f[2]
	}
	for _, p := range procs {
		if (p.name == "nginx" || p.name == "dovecot") && parents[p.parent] != p.name {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

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

// measureCost prints what a run that changes nothing costs.
func (l *lab) measureCost(name, env string) {
	var wall []time.Duration
	var peak int64
	var cpu time.Duration
	for range rounds {
		cmd := exec.Command(binary)
		cmd.Env = append(append(os.Environ(), l.env...), env)
		began := time.Now()
		require.NoError(l.t, cmd.Run())
		wall = append(wall, time.Since(began))
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		peak = max(peak, usage.Maxrss)
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	slices.Sort(wall)
	l.t.Logf("%-14s median %s, cpu %s a run, peak memory %d KiB", name, median(wall), cpu/rounds, peak)
}
