// Package e2e holds mailu-hook to its contract from outside: the real binary
// against a real Docker engine, real nginx and dovecot in a front container,
// real certbot and a real ACME server. What the ports serve is asked by
// openssl, not by the program's own prober.
//
// FRONT_IMAGE names another image to test against, FRONT_IMAGE_OLD one of
// Mailu 2.0. Without the peers the tests skip; make test makes that a failure.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "mailu-hook-e2e")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := rig.RemoveLeftovers(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: leftovers of an earlier run stay:", err)
		}
		defer func() { // if a test made it
			_ = exec.Command("docker", "rmi", "--force", imageName+":latest", imageName+":amd64", imageName+":arm64").Run()
		}()
		if binary = os.Getenv("MAILU_HOOK_BINARY"); binary != "" {
			return m.Run() // the one that is shipped
		}
		binary = filepath.Join(dir, "mailu-hook")
		build := exec.Command("go", "build", "-o", binary, "mailu-hook")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("building mailu-hook: %v\n%s", err, out))
		}
		return m.Run()
	}())
}

// lab is a mailu directory, a CA, and usually a front that serves from it.
type lab struct {
	t     *testing.T
	ca    *mint.CA
	roots string // PEM file of the CA's root
	root  string // mailu directory
	host  string // that runs take this one for; "" for what it is
	front *rig.Front
	env   []string // of every run of the binary

	renewals int // of the lineage: see renews
}

// newLab prepares a lab without a front.
func newLab(t *testing.T) *lab {
	t.Helper()
	rig.Need(t, rig.NeedDocker, rig.NeedImage, rig.NeedOpenSSL)
	t.Parallel()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	l := &lab{t: t, ca: ca, root: t.TempDir()}
	l.roots = filepath.Join(l.root, "roots.pem")
	require.NoError(t, os.WriteFile(l.roots, ca.RootPEM, 0o600))
	require.NoError(t, os.MkdirAll(l.certs(), 0o755))
	config := filepath.Join(l.root, "mailu-hook.conf")
	require.NoError(t, os.WriteFile(config, nil, 0o600))
	l.env = []string{
		"MAILU_HOOK_ROOTS=" + l.roots, "MAILU_HOOK_CONFIG=" + config, "MAILU_HOOK_DANE=off",
		"MAILU_HOOK_STATE_DIR=" + filepath.Join(l.root, "state"), "MAILU_HOOK_LETSENCRYPT_DIR=" + filepath.Join(l.root, "letsencrypt"),
	}
	return l
}

// ledger is the file in which the deploys into the lab's certs directory are
// remembered.
func (l *lab) ledger() string { return ledgerIn(l.t, filepath.Join(l.root, "state")) }

func ledgerIn(t *testing.T, stateDir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(stateDir, "deployed", "*.json"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	return found[0]
}

// start runs a front on the lab's directory, of a project of its own, and waits
// until it serves if it has a certificate.
func (l *lab) start(o rig.FrontOptions) {
	l.t.Helper()
	if o.Root == "" {
		o.Root = l.root
	}
	front, err := rig.StartFront(l.t.Context(), o)
	require.NoError(l.t, err)
	l.t.Cleanup(func() {
		if logs, err := front.Logs(context.Background()); l.t.Failed() && err == nil {
			l.t.Logf("the end of the log of %s:\n%s", front.Name, logs[max(0, len(logs)-8000):])
		}
		assert.NoError(l.t, front.Remove())
	})
	l.front = front
	l.env = append(l.env, "MAILU_HOOK_PROJECT="+front.Project)
}

// startServing starts a front on plain files, as the documented script leaves
// them, and returns the pair it serves.
func startServing(t *testing.T, o rig.FrontOptions) (*lab, *mint.Pair) {
	t.Helper()
	l := newLab(t)
	old := l.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)})
	l.writePlain(old, "cert.pem", "key.pem")
	l.start(o)
	l.waitServing()
	return l, old
}

// sub runs a subtest on the same lab. What it starts, and what it adds to the
// environment, ends with the subtest.
func (l *lab) sub(name string, test func(t *testing.T)) (ok bool) {
	l.t.Helper()
	outer, env := l.t, l.env
	l.env = slices.Clone(env)
	defer func() { l.t, l.env = outer, env }()
	return outer.Run(name, func(t *testing.T) {
		l.t = t
		test(t)
	})
}

func (l *lab) waitServing() {
	l.t.Helper()
	require.NoError(l.t, l.front.WaitServing(l.t.Context()))
	require.NoError(l.t, l.front.WaitReady(l.t.Context()))
}

func (l *lab) certs() string { return filepath.Join(l.root, "certs") }

func (l *lab) issue(leaf mint.Leaf) *mint.Pair {
	l.t.Helper()
	pair, err := l.ca.Issue(leaf)
	require.NoError(l.t, err)
	return pair
}

func (l *lab) writePlain(p *mint.Pair, cert, key string) {
	l.t.Helper()
	require.NoError(l.t, os.WriteFile(filepath.Join(l.certs(), cert), p.Chain, 0o644))
	require.NoError(l.t, os.WriteFile(filepath.Join(l.certs(), key), p.KeyPEM, 0o600))
}

// lineage writes the pair as certbot does and returns its live directory.
func (l *lab) lineage(p *mint.Pair, name string) string {
	l.t.Helper()
	live, err := p.WriteLineage(filepath.Join(l.root, "letsencrypt"), name, 1)
	require.NoError(l.t, err)
	return live
}

// document is the JSON that the binary prints.
type document struct {
	Outcome    string
	Lineage    string
	Generation string
	Leaf       *struct{ SHA256 string }
	Front      *struct{ Container, Image, Project string }
	Endpoints  []struct {
		Port      int
		Container string
		Served    string `json:"served_sha256"`
		OK        bool
	}
	Durations map[string]int64 `json:"duration_ms"`
	DANE      []struct{ Host, State string }
	Warnings  []string
	Error     string
	Hint      string
	Also      []document // of other groups of fronts
}

// result is one run of the binary.
type result struct {
	code           int
	stdout, stderr string
	doc            document // with --output json
}

// run runs the binary and holds its output to what every output owes: no
// secret, valid UTF-8, and with --output json exactly one document.
func (l *lab) run(env []string, args ...string) result {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Minute)
	defer cancel()
	argv := l.command(args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(append(os.Environ(), l.env...), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(l.t, err)
	}
	r := result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	l.t.Logf("mailu-hook %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	l.noSecretIn(r.stdout + r.stderr)
	if strings.Contains(strings.Join(args, " "), "--output json") {
		decoder := json.NewDecoder(strings.NewReader(r.stdout))
		require.NoError(l.t, decoder.Decode(&r.doc))
		require.False(l.t, decoder.More(), "more than one document")
	}
	return r
}

// command is the command line of a run of the binary.
func (l *lab) command(args ...string) []string {
	argv := append([]string{binary}, args...)
	if l.host == "" {
		return argv
	}
	return append([]string{"unshare", "--uts", "sh", "-c", `hostname "$0" && exec "$@"`, l.host}, argv...)
}

func (l *lab) noSecretIn(text string) {
	l.t.Helper()
	assert.True(l.t, utf8.ValidString(text), "not UTF-8")
	assert.NotContains(l.t, text, "-----BEGIN")
	assert.NotContains(l.t, text, "PRIVATE KEY")
	if l.front != nil {
		assert.NotContains(l.t, text, l.front.SecretKey)
	}
}

// hook runs the binary as certbot does, but with JSON for its output.
func (l *lab) hook(live string) result {
	l.t.Helper()
	return l.run([]string{"RENEWED_LINEAGE=" + live, "RENEWED_DOMAINS=mail.example.com"}, "--output", "json")
}

// serves asks every TLS port, by openssl, and wants the pair's leaf on each.
func (l *lab) serves(p *mint.Pair, ports ...int) {
	l.t.Helper()
	l.showsEverywhere(p.SHA256(), ports...)
}

func (l *lab) showsEverywhere(sha256 string, ports ...int) {
	l.t.Helper()
	served, err := l.front.Served(l.t.Context(), ports...)
	require.NoError(l.t, err)
	require.NotEmpty(l.t, served)
	for port, leaf := range served {
		assert.Equal(l.t, sha256, leaf, "port %d", port)
	}
}

// healthyAndReloadable holds the front to being as good as a fresh one.
func (l *lab) healthyAndReloadable() {
	l.t.Helper()
	require.NoError(l.t, l.front.CheckHealth(l.t.Context()))
	l.execOK("nginx", "-s", "reload")
	l.execOK("doveadm", "reload")
}

func (l *lab) execOK(args ...string) {
	l.t.Helper()
	out, code, err := l.front.Exec(l.t.Context(), args...)
	require.NoError(l.t, err)
	require.Zero(l.t, code, "%s: %s", strings.Join(args, " "), out)
}

// snapshot is everything about a tree that a run might change.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		content := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		}
		seen[path] = fmt.Sprint(info.Mode(), stat.Uid, stat.Gid, stat.Ino, info.ModTime().UnixNano(), content)
		return err
	}))
	return seen
}
