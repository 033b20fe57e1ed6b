package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// stranger is somebody on a mail host of their own who does what the guides say: as
// root, in a copy-on-write root directory over this machine's, with Mailu in /mailu,
// certbot's directory, the units and the state where they belong. Nothing of it is
// left when a guide ends but what is bound from here: Mailu's directory, certbot's,
// and the state.
type stranger struct {
	*issuer
	resolver *rig.Resolver     // of this host; it validates
	calls    *switchboard      // a dead man's switch
	said     string            // all that was printed so far
	replaced *strings.Replacer // what the guides say, and what it is called here
}

// aStranger has a front without certificates, published on an address to which
// mail.example.com leads, for the CA and in a signed zone.
func aStranger(t *testing.T) *stranger {
	t.Helper()
	rig.Need(t, rig.NeedCertbot, rig.NeedDNS, rig.NeedPrometheus)
	require.Zero(t, os.Geteuid(), "needs root to mount")
	s := &stranger{issuer: newIssuer(t, rig.CAOptions{}), calls: newSwitchboard(t)}
	s.address = loopback()
	var published []string
	for _, port := range []string{"25", "80", "443", "465", "993", "995", "4190"} {
		published = append(published, "-p", s.address+":"+port+":"+port)
	}
	s.start(rig.FrontOptions{ExtraArgs: published})
	s.lead(s.address, mailName)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{Name: "example.com", Signed: true, Records: []string{"mail 1 IN A " + s.address}})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	s.resolver, err = rig.StartResolver(t.Context(), t.TempDir(), zone)
	require.NoError(t, err)
	t.Cleanup(s.resolver.Close)
	for _, dir := range []string{"letsencrypt", "state", "home", "new"} {
		require.NoError(t, os.MkdirAll(filepath.Join(s.root, dir), 0o700))
	}
	s.write("letsencrypt/cli.ini", "server = "+s.acme.DirectoryURL+"\nagree-tos = true\nregister-unsafely-without-email = true\nnon-interactive = true\nno-random-sleep-on-renew = true\n")
	s.replaced = strings.NewReplacer(
		"mailu-front-1", s.front.Name, "=PROJECT", "="+s.front.Project, "--project mailu", "--project "+s.front.Project,
		"https://hc-ping.com", s.calls.url, "https://kuma.example.com", s.calls.url,
		"https://ca.internal/acme/acme/directory", s.acme.DirectoryURL,
		"--resolver 127.0.0.1", "--resolver "+s.resolver.Addr, "--resolver 192.0.2.53", "--resolver "+s.resolver.Addr)
	require.Eventually(t, func() bool { return s.listens(25) }, 30*time.Second, 100*time.Millisecond)
	return s
}

func (s *stranger) write(name, content string) {
	s.t.Helper()
	require.NoError(s.t, os.MkdirAll(filepath.Dir(filepath.Join(s.root, name)), 0o755))
	require.NoError(s.t, os.WriteFile(filepath.Join(s.root, name), []byte(content), 0o600))
}

// home makes the root directory and enters it. $1 is an empty directory, $2 the
// stranger's, $3 the repository, $4 the program.
const home = `
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
for dir in proc sys dev tmp; do mount --rbind "/$dir" $dir; done
mount -t tmpfs tmpfs run
mkdir -p run/lock run/systemd/system mailu etc/letsencrypt var/lib/mailu-hook var/log/letsencrypt
touch run/docker.sock
mount --bind "$(realpath /var/run/docker.sock)" run/docker.sock
mount --bind "$2" mailu
mount --bind "$2/letsencrypt" etc/letsencrypt
mount --bind "$2/state" var/lib/mailu-hook
cat "$2/roots.pem" "$5" >> etc/ssl/certs/ca-certificates.crt
rm -f etc/mailu-hook.conf etc/cron.d/mailu-hook* usr/local/bin/mailu-hook
mkdir -p root/mailu-hook var/lib/prometheus/node-exporter etc/prometheus
cp -a "$3/examples" root/mailu-hook/
cp "$4" usr/local/bin/mailu-hook
cp "$4" usr/bin/mailu-hook
cp "$4" root/mailu-hook/mailu-hook
[ ! -x "$3/.cache/bin/promtool" ] || cp "$3/.cache/bin/promtool" usr/local/bin/
cp -a "$2/home/." root/mailu-hook/
cp "$6" root/script
exec chroot . /bin/sh -eu -c 'cd /root/mailu-hook; . /root/script'
`

// standIns are what this machine does not have: sudo, and a systemd that runs.
const standIns = `
cat > /usr/local/bin/sudo <<'END'
#!/bin/sh
exec "$@"
END
cat > /usr/local/bin/systemctl <<'END'
#!/bin/sh -eu
verb=$1
shift
[ "${1-}" != --now ] || shift
case $verb in enable|disable) SYSTEMD_OFFLINE=1 /usr/bin/systemctl "$verb" "$@" ;; esac
case "$verb ${1-}" in "enable "*.service) until_it_acted $(sed -n s/^ExecStart=//p "/etc/systemd/system/$1") ;; esac
END
cat > /usr/local/bin/newhost <<'END'
#!/bin/sh -eu
# What rsync calls in place of ssh: its other end, with the directories of the new host.
shift
mkdir -p /mailu/new/mailu /mailu/new/letsencrypt /mailu/new/state
exec unshare --mount --propagation private sh -eu -c '
	mount --bind /mailu/new/letsencrypt /etc/letsencrypt
	mount --bind /mailu/new/state /var/lib/mailu-hook
	mount --bind /mailu/new/mailu /mailu
	exec "$@"' sh "$@"
END
cat > /usr/local/bin/until_it_acted <<'END'
#!/bin/sh -eu
# Runs the agent until it has done a round, and ends it as systemd does.
touch /run/before
"$@" & agent=$!
until [ -n "$(find /var/lib/mailu-hook/deployed -newer /run/before -name '*.json')" ]; do sleep 0.1; done
kill -TERM $agent
wait $agent
END
chmod 755 /usr/local/bin/*
until_ready() { until mailu-hook status >/run/status || [ $? = 1 ]; do sleep 0.2; done; }
`

// does runs a script in the stranger's root directory, and returns what it printed.
// Only what is in the environment of anybody is in that of the script, and where the
// CA and the DNS of this test are.
func (s *stranger) does(script string) string {
	s.t.Helper()
	root, err := rig.RepositoryRoot()
	require.NoError(s.t, err)
	issued, err := s.acme.Roots(s.t.Context())
	require.NoError(s.t, err)
	file := filepath.Join(s.t.TempDir(), "script")
	require.NoError(s.t, os.WriteFile(file, []byte(standIns+script), 0o600))
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", home, "sh", s.t.TempDir(), s.root, root, binary, issued, file)
	if pair, err := os.Open(filepath.Join(s.root, "home", "pair.pem")); err == nil { // for mailu-hook install -
		defer pair.Close()
		cmd.Stdin = pair
	}
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "RSYNC_RSH=newhost", "LANG=C.UTF-8", "REQUESTS_CA_BUNDLE=" + s.acme.DirectoryCAFile,
		"MAILU_HOOK_PROJECT=" + s.front.Project, "MAILU_HOOK_SERVER=" + s.acme.DirectoryURL, "MAILU_HOOK_CA_FILE=" + s.acme.DirectoryCAFile, "MAILU_HOOK_RESOLVER=" + s.resolver.Addr}
	out, err := cmd.CombinedOutput()
	s.t.Logf("%s", out)
	s.noSecretIn(string(out))
	require.NoError(s.t, err)
	return string(out)
}

// blocks are the indented blocks of a guide, with the number of each one's first line.
func blocks(t *testing.T, guide string) (all []snippet) {
	t.Helper()
	number, inside, blank := 0, false, true
	for line := range strings.Lines(example(t, guide)) {
		number++
		text, indented := strings.CutPrefix(line, "    ")
		empty := strings.TrimSpace(line) == ""
		switch {
		case empty:
		case indented && inside:
			all[len(all)-1].text += text
		case indented && blank:
			all = append(all, snippet{number, text})
			inside = true
		default:
			inside = false
		}
		blank = empty
	}
	return all
}

type snippet struct {
	number int
	text   string
}

// commands are the lines of a block, those that a backslash continues as one.
func (b snippet) commands() []string {
	text := strings.ReplaceAll(b.text, "\\\n", "")
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(text), "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
}

var comment = regexp.MustCompile(`\s+# .*$`)

// follows does all that a guide says, in its order, and holds it to ending as it says.
func (s *stranger) follows(g guide) string {
	s.t.Helper()
	script, used := new(strings.Builder), map[string]bool{}
	for _, b := range blocks(s.t, g.file) {
		if b.isShown() != "" {
			continue
		}
		for _, line := range b.commands() {
			line = comment.ReplaceAllString(line, "")
			if scene, ok := g.scenes[line]; ok {
				fmt.Fprintln(script, s.replaced.Replace(scene))
				used[line] = true
			}
			if notRun[line] == "" {
				exit, expected := g.exits[line]
				used[line] = used[line] || expected
				s.step(script, fmt.Sprintf("%s:%d", g.file, b.number), line, exit)
			}
		}
	}
	for line := range g.scenes {
		assert.True(s.t, used[line], "%s has no line %s", g.file, line)
	}
	for line := range g.exits {
		assert.True(s.t, used[line], "%s has no line %s", g.file, line)
	}
	output := s.does(script.String())
	s.said += output
	return output
}

// step adds a line of a guide to a script: it is printed, run, and has to end with
// that exit status.
func (s *stranger) step(script *strings.Builder, at, line string, exit int) {
	fmt.Fprintf(script, "echo '%s$' %s\n", at, quoted(line))
	line = s.replaced.Replace(line)
	if strings.HasPrefix(line, "mailu-hook watch") {
		line = "until_it_acted " + line
	}
	fmt.Fprintf(script, "status=0; %s || status=$?; [ $status = %d ] || { echo \"exit status $status, not %d\"; exit 1; }\n", line, exit, exit)
}

func quoted(line string) string { return "'" + strings.ReplaceAll(line, "'", `'\''`) + "'" }
