package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
	"mailu-hook/internal/source"
	"mailu-hook/internal/tlsa"
)

// judged is a candidate with the three verdicts, "" for acceptance.
type judged struct {
	candidate
	ours, nginx, dovecot string
	leaf                 string // SHA-256 that a handshake must show; "" if it may be any of the file
}

// The implication in the contract: what we accept, nginx and dovecot load. The
// bytes that they are given are those that an install wrote; of what we refuse,
// the files as they came.
func TestWhatIsAcceptedNginxLoadsAndDovecotServes(t *testing.T) {
	dir := workDir(t)
	l, _ := startServing(t, rig.FrontOptions{ExtraArgs: []string{"--volume", dir + ":/oracle"}})
	o := &oracle{lab: l, dir: dir}
	o.ask(forge(t, l))
	o.askNginx()
	o.askDovecot()

	needed, count := map[string]int{}, map[string]int{}
	for _, c := range o.all {
		switch {
		case c.ours == "":
			count["accepted"]++
			assert.Empty(t, c.nginx, "%s: accepted, and nginx refuses it", c.name)
			assert.Empty(t, c.dovecot, "%s: accepted, and dovecot refuses it", c.name)
			continue
		case c.nginx == "" && c.dovecot == "":
			count["refused, by us alone"]++
		default:
			count["refused"]++
		}
		rule := ruleOf(c.ours)
		count["  "+rule]++
		if c.nginx == "" && c.dovecot == "" {
			needed[rule]++
			assert.Contains(t, stricter, rule, "%s: refused by us alone, and no row says why: %s", c.name, c.ours)
		}
	}
	for rule, row := range stricter {
		assert.True(t, needed[rule] > 0 || row.lax, "no bundle needs the row %q any more", rule)
	}
	assert.Greater(t, count["accepted"], 100)
	assert.Greater(t, count["refused"]+count["refused, by us alone"], 150)
	summary, err := json.MarshalIndent(count, "", "  ")
	require.NoError(t, err)
	t.Logf("%d bundles: %s", len(o.all), summary)
}

// oracle puts candidates to the three judges.
type oracle struct {
	*lab
	dir string // the container's /oracle; a candidate has the directory of its index
	all []*judged
}

func (o *oracle) at(i int, name ...string) string {
	return filepath.Join(append([]string{o.dir, strconv.Itoa(i)}, name...)...)
}

// ask puts the candidates to the code that mailu-hook decides with, in this process:
// an install where no engine answers. Each tenth also goes through the program (all
// do in a soak), which has to say the same: a dry run against the front, then an
// install without one. Those that only a front's own test can admit (Ed25519) are
// installed into the front.
func (o *oracle) ask(candidates []candidate) {
	pem, err := os.ReadFile(o.roots)
	require.NoError(o.t, err)
	roots := x509.NewCertPool()
	require.True(o.t, roots.AppendCertsFromPEM(pem))
	queue, wg := make(chan int), sync.WaitGroup{}
	for _, c := range candidates {
		o.all = append(o.all, &judged{candidate: c})
	}
	for range 4 {
		wg.Go(func() {
			for i := range queue {
				c := o.all[i]
				for _, dir := range []string{o.given(i), o.at(i)} {
					assert.NoError(o.t, os.MkdirAll(dir, 0o755))
				}
				o.put(o.given(i), c.cert, c.key)
				if !c.needsFront {
					o.askHere(i, c, roots)
				}
				if c.needsFront || i%10 == 0 || soak {
					o.askProgram(i, c)
				}
			}
		})
	}
	for i := range o.all {
		queue <- i
	}
	close(queue)
	wg.Wait()
	for i, c := range o.all {
		if c.ours == "" && !c.staged(o.at(i)) {
			o.installInFront(i, c)
		}
	}
}

func (c *judged) staged(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cert.pem"))
	return err == nil
}

// given is where the program finds the files of a candidate.
func (o *oracle) given(i int) string { return filepath.Join(o.root, "given", strconv.Itoa(i)) }

// askHere leaves in at(i) what an install writes, or, of what is refused, the files
// as they came.
func (o *oracle) askHere(i int, c *judged, roots *x509.CertPool) {
	r, err := deploy.Install(o.t.Context(), source.Files(filepath.Join(o.given(i), "cert.pem"), filepath.Join(o.given(i), "key.pem")), deploy.Options{
		Settings:       func(name string) string { return map[string]string{"DOCKER_HOST": "unix:///nonexistent"}[name] },
		CertsDir:       o.at(i),
		StateDir:       filepath.Join(o.root, "state"),
		Hostnames:      []string{cmp.Or(c.host, mint.DefaultName)},
		Roots:          roots,
		AllowUntrusted: c.untrusted,
		DANE:           tlsa.Off,
		Timeout:        time.Minute,
	})
	if !assert.Error(o.t, err, "%s: installed, and nobody to ask", c.name) {
		return
	}
	o.noSecretIn(err.Error())
	switch {
	case r.Outcome == hook.OutcomePending:
		c.leaf = r.Bundle.Fingerprint()
	case assert.Equal(o.t, hook.OutcomeRejected, r.Outcome, "%s: %v", c.name, err):
		c.ours = err.Error()
		o.put(o.at(i), c.cert, c.key)
	}
}

// askProgram wants the verdict that c has already, if it has one.
func (o *oracle) askProgram(i int, c *judged) {
	args := []string{"--cert", filepath.Join(o.given(i), "cert.pem"), "--key", filepath.Join(o.given(i), "key.pem"), "--output", "json"}
	if c.host != "" {
		args = append(args, "--hostname", c.host)
	}
	if c.untrusted {
		args = append(args, "--allow-untrusted")
	}
	code, doc := o.answer(nil, append([]string{"install", "--dry-run"}, args...)...)
	switch {
	case c.needsFront && code == 0, c.leaf != "":
		assert.Equal(o.t, 0, code, "%s: %s", c.name, doc.Error)
		if assert.NotNil(o.t, doc.Leaf, c.name) {
			assert.Contains(o.t, []string{"", doc.Leaf.SHA256}, c.leaf, c.name)
			c.leaf = doc.Leaf.SHA256
		}
	case assert.Equal(o.t, 3, code, "%s: %s", c.name, doc.Error):
		assert.Contains(o.t, []string{"", doc.Error}, c.ours, c.name)
		c.ours = doc.Error
		o.put(o.at(i), c.cert, c.key)
		return
	}
	dir := o.at(i)
	if !c.needsFront {
		dir = o.t.TempDir()
	}
	code, doc = o.answer([]string{"DOCKER_HOST=unix:///nonexistent"}, append([]string{"install", "--certs-dir", dir}, args...)...)
	if !c.needsFront || code != 3 {
		assert.Equal(o.t, 8, code, "%s: accepted by the dry run: %s", c.name, doc.Error)
	}
	if !c.needsFront {
		for _, name := range []string{"cert.pem", "key.pem"} {
			written, err := os.ReadFile(filepath.Join(dir, name))
			assert.NoError(o.t, err, c.name)
			expected, err := os.ReadFile(o.at(i, name))
			assert.NoError(o.t, err, c.name)
			assert.Equal(o.t, string(expected), string(written), "%s: %s", c.name, name)
		}
	}
}

func (o *oracle) installInFront(i int, c *judged) {
	code, doc := o.answer(nil, "install", "--cert", filepath.Join(o.given(i), "cert.pem"), "--key", filepath.Join(o.given(i), "key.pem"), "--output", "json")
	if code != 0 {
		assert.Equal(o.t, 4, code, "%s: %s", c.name, doc.Error)
		c.ours = doc.Error
		o.put(o.at(i), c.cert, c.key)
		return
	}
	cert, err := os.ReadFile(filepath.Join(o.certs(), "cert.pem"))
	require.NoError(o.t, err)
	key, err := os.ReadFile(filepath.Join(o.certs(), "key.pem"))
	require.NoError(o.t, err)
	o.put(o.at(i), cert, key)
}

func (o *oracle) put(dir string, cert, key []byte) {
	assert.NoError(o.t, os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o644))
	assert.NoError(o.t, os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
}

// answer is run without its log, which would be a thousand documents long.
func (o *oracle) answer(env []string, args ...string) (code int, doc document) {
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(append(os.Environ(), o.env...), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, _ := cmd.Output() // the exit status says more
	o.noSecretIn(string(stdout) + stderr.String())
	assert.NoError(o.t, json.Unmarshal(stdout, &doc), "%s\n%s", stdout, stderr.String())
	return cmd.ProcessState.ExitCode(), doc
}

const nginxConf = `pid /tmp/oracle-nginx.pid;
error_log stderr;
events {}
http {
  server {
    listen 127.0.0.1:19443 ssl;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate cert.pem;
    ssl_certificate_key key.pem;
  }
}
`

// askNginx lets nginx test each pair, all in one docker exec: that is most of
// what such a test costs.
func (o *oracle) askNginx() {
	for i := range o.all {
		require.NoError(o.t, os.WriteFile(o.at(i, "nginx.conf"), []byte(nginxConf), 0o644))
	}
	const script = `cd /oracle; for n in *; do if out=$(nginx -t -c /oracle/$n/nginx.conf 2>&1); then echo $n; else echo $n $(echo "$out" | head -1); fi; done`
	out, _, err := o.front.Exec(o.t.Context(), "sh", "-c", script)
	require.NoError(o.t, err)
	answers := map[string]string{}
	for line := range strings.Lines(out) {
		i, complaint, _ := strings.Cut(strings.TrimSpace(line), " ")
		answers[i] = complaint
	}
	for i, c := range o.all {
		complaint, ok := answers[strconv.Itoa(i)]
		require.True(o.t, ok, "nginx did not judge %s: %.1000s", c.name, out)
		c.nginx = complaint
	}
}

const dovecotConf = `base_dir = /run/oracle-%[1]d
state_dir = /run/oracle-%[1]d-state
instance_name = oracle-%[1]d
log_path = /tmp/oracle-%[1]d.log
protocols = imap
listen = *
ssl = required
ssl_min_protocol = TLSv1.2
ssl_options = no_compression no_ticket
ssl_cert = </certs/cert.pem
ssl_key = </certs/key.pem
passdb {
  driver = static
  args = password={CRYPT}!
}
service imap-login {
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = %[1]d
    ssl = yes
  }
  service_count = 0
  client_limit = 1000
  process_min_avail = 1
  process_limit = 1
}
`

// askDovecot has dovecots serve the pairs, many each by server name, and
// completes a handshake for every one with openssl. A name whose pair dovecot
// cannot load fails alone; a file on which the whole configuration fails is
// found by halving. Where nginx and we refuse, dovecot need not be asked.
func (o *oracle) askDovecot() {
	const batch = 100
	var accepted, refused []int
	for i, c := range o.all {
		switch {
		case c.ours == "":
			accepted = append(accepted, i)
		case c.nginx == "":
			refused = append(refused, i)
		}
	}
	port := 20000
	for _, list := range [][]int{accepted, refused} {
		for start := 0; start < len(list); start += batch {
			o.serveAll(&port, list[start:min(start+batch, len(list))])
		}
	}
}

func (o *oracle) serveAll(port *int, list []int) {
	*port++
	var conf strings.Builder
	fmt.Fprintf(&conf, dovecotConf, *port)
	for _, i := range list {
		fmt.Fprintf(&conf, "local_name n%[1]d.test {\n  ssl_cert = </oracle/%[1]d/cert.pem\n  ssl_key = </oracle/%[1]d/key.pem\n}\n", i)
	}
	name := fmt.Sprintf("dovecot-%d.conf", *port)
	require.NoError(o.t, os.WriteFile(filepath.Join(o.dir, "0", name), []byte(conf.String()), 0o644))
	complaint, ok := o.startDovecot(name, *port)
	switch {
	case ok:
		o.shakeHands(*port, list)
	case len(list) == 1:
		o.all[list[0]].dovecot = complaint
	default:
		o.serveAll(port, list[:len(list)/2])
		o.serveAll(port, list[len(list)/2:])
	}
}

// startDovecot returns when the dovecot listens, or with what it says at its
// end. In the foreground it is up at once, where a daemon takes two seconds.
func (o *oracle) startDovecot(conf string, port int) (complaint string, ok bool) {
	ip, err := o.front.IP(o.t.Context())
	require.NoError(o.t, err)
	ended := make(chan string, 1)
	go func() {
		out, _, err := o.front.Exec(o.t.Context(), "dovecot", "-F", "-c", "/oracle/0/"+conf)
		ended <- fmt.Sprint(out, err)
	}()
	for {
		conn, err := net.Dial("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err == nil {
			conn.Close()
			return "", true
		}
		select {
		case complaint := <-ended:
			return complaint, false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (o *oracle) shakeHands(port int, list []int) {
	ip, err := o.front.IP(o.t.Context())
	require.NoError(o.t, err)
	fallback, err := os.ReadFile(filepath.Join(o.certs(), "cert.pem"))
	require.NoError(o.t, err)
	address, wg, slots := net.JoinHostPort(ip, strconv.Itoa(port)), sync.WaitGroup{}, make(chan bool, 4)
	for _, i := range list {
		c := o.all[i]
		slots <- true
		wg.Go(func() {
			defer func() { <-slots }()
			name := fmt.Sprintf("n%d.test", i)
			shown, err := rig.Served(o.t.Context(), address, 993, name)
			for try := 0; try < 3 && err != nil && c.nginx == ""; try++ { // dovecot may hang up before openssl has read all
				shown, err = rig.Served(o.t.Context(), address, 993, name)
			}
			switch {
			case err != nil && strings.Contains(err.Error(), ": x509: "): // shown, and not to be parsed by Go
			case err != nil:
				c.dovecot = err.Error()
			case c.leaf != "" && shown != c.leaf:
				c.dovecot = "it shows another leaf"
			case c.leaf == "" && shown == sha256OfPEM(o.t, fallback):
				c.dovecot = "it shows the default leaf"
			}
		})
	}
	wg.Wait()
}
