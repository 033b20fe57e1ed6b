package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// bench is a place for deploys that are nothing but disk work: there is no
// engine to ask, so a run ends with exit status 8 after the switch.
type bench struct {
	t   *testing.T
	ca  *mint.CA
	dir string
	env []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := workDir(t)
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	roots, config := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "mailu-hook.conf")
	require.NoError(t, os.WriteFile(roots, ca.RootPEM, 0o644))
	require.NoError(t, os.WriteFile(config, nil, 0o644))
	return &bench{t: t, ca: ca, dir: dir, env: []string{
		"MAILU_HOOK_ROOTS=" + roots, "MAILU_HOOK_CONFIG=" + config, "MAILU_HOOK_DANE=off",
		"MAILU_HOOK_HOSTNAME=mail.example.com", "DOCKER_HOST=unix:///nonexistent",
	}}
}

// workDir is a directory in memory where there is one: the kernel does the same
// calls, and fsync takes no time.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "mailu-hook-e2e")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// scenario is a kind of deploy, and the tree that it begins on.
type scenario struct {
	*bench
	name     string
	base     string                                  // certs directory to copy for each run
	old, new *mint.Pair                              // old is nil where nothing was installed
	env      []string                                // of the run
	args     []string                                // of the run
	next     func(certs string) (env, args []string) // a later run that has to finish it
	kept     int                                     // most generations that may be there in the end
}

// owner is that of the certs directory, so that ownership is among the things
// that must never be half done.
const owner = 12345

func (b *bench) issue(hoursAgo int) *mint.Pair {
	b.t.Helper()
	pair, err := b.ca.Issue(mint.Leaf{NotBefore: time.Now().Add(-time.Duration(hoursAgo) * time.Hour)})
	require.NoError(b.t, err)
	return pair
}

// scenarioOf builds a scenario by its name.
func scenarioOf(t *testing.T, name string) *scenario {
	t.Helper()
	b := newBench(t)
	sc := &scenario{bench: b, name: name, base: filepath.Join(b.dir, "base"), new: b.issue(1), kept: 3}
	certs := sc.certs() // prepared where the runs will be, as what is remembered is kept by path
	require.NoError(t, os.MkdirAll(certs, 0o755))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(certs, owner, owner))
	}
	live := filepath.Join(b.dir, "letsencrypt", "live", "mail.example.com")
	asHook := []string{"RENEWED_LINEAGE=" + live}
	install := func(p *mint.Pair) {
		_, err := p.WriteLineage(filepath.Join(b.dir, "letsencrypt"), "mail.example.com", 1)
		require.NoError(t, err)
		code, out := sc.run(certs, asHook)
		require.Equal(t, 8, code, out)
	}
	sync := func(string) (env, args []string) { return nil, []string{"sync", "--now"} }
	sc.env, sc.next = asHook, sync
	switch name {
	case "fresh install":
		sc.next = sc.syncOnceKnown
	case "adoption of plain files":
		sc.old = b.issue(24)
		require.NoError(t, os.WriteFile(filepath.Join(certs, "cert.pem"), sc.old.Chain, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(certs, "key.pem"), sc.old.KeyPEM, 0o600))
		sc.next = sc.syncOnceKnown
	case "renewal":
		sc.old = b.issue(24)
		install(sc.old)
	case "rollback":
		sc.old, sc.new = sc.new, b.issue(24)
		install(sc.new)
		first, err := filepath.Glob(filepath.Join(certs, ".mailu-hook", "2*Z-*"))
		require.NoError(t, err)
		install(sc.old)
		sc.env, sc.args = nil, []string{"rollback", filepath.Base(first[0])}
		sc.next = func(string) (env, args []string) { return nil, sc.args }
	case "pruning":
		for hours := 26; hours > 23; hours-- {
			sc.old = b.issue(hours)
			install(sc.old)
		}
		sc.args, sc.kept = []string{"--keep", "1"}, 2 // the way back stays, whatever is to be kept
		sc.next = func(string) (env, args []string) { return nil, []string{"sync", "--now", "--keep", "1"} }
	default:
		t.Fatalf("there is no scenario %q", name)
	}
	_, err := sc.new.WriteLineage(filepath.Join(b.dir, "letsencrypt"), "mail.example.com", 1)
	if name == "rollback" {
		_, err = sc.old.WriteLineage(filepath.Join(b.dir, "letsencrypt"), "mail.example.com", 1)
	}
	require.NoError(t, err)
	copyTree(t, certs, sc.base)
	return sc
}

var scenarios = []string{"fresh install", "adoption of plain files", "renewal", "rollback", "pruning"}

// syncOnceKnown: from the moment that the lineage is remembered, sync finishes
// what the first hook began. Before that, nothing has happened.
func (sc *scenario) syncOnceKnown(certs string) (env, args []string) {
	if found, err := filepath.Glob(filepath.Join(certs, stateIn, "deployed", "*.json")); err == nil && len(found) > 0 {
		return nil, []string{"sync", "--now"}
	}
	return sc.env, sc.args
}

// certs is the certs directory of all runs. A disk of its own may be mounted above
// it.
func (sc *scenario) certs() string { return filepath.Join(sc.dir, "disk", "certs") }

// fresh is a copy of the scenario's tree for one run.
func (sc *scenario) fresh() string {
	sc.t.Helper()
	dir := sc.certs()
	require.NoError(sc.t, os.RemoveAll(dir))
	copyTree(sc.t, sc.base, dir)
	return dir
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// stateIn is where the runs keep what they remember: in the certs directory, so
// that it is traced, killed and lost with the rest.
const stateIn = ".state"

// withDir adds the flags that name the certs directory and that of the state.
func withDir(args []string, certs string) []string {
	return append(append([]string{}, args...), "--certs-dir", certs, "--state-dir", filepath.Join(certs, stateIn))
}

// run runs the binary on a certs directory, without a tracer.
func (b *bench) run(certs string, env []string, args ...string) (code int, out string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), binary, withDir(args, certs)...)
	cmd.Env = append(append(os.Environ(), b.env...), env...)
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(b.t, err)
	}
	return cmd.ProcessState.ExitCode(), string(output)
}

// trace runs the scenario's deploy under the tracer.
func (sc *scenario) trace(certs string, f fault) traced {
	sc.t.Helper()
	return trace(sc.t, certs, f, append(append([]string{}, sc.bench.env...), sc.env...), withDir(sc.args, certs)...)
}

// installed is which pair the two names lead to: "old", "new", or, where there
// was none before, "none". Anything else is a broken promise, and is described.
func (sc *scenario) installed(certs string) string {
	cert, certErr := os.ReadFile(filepath.Join(certs, "cert.pem"))
	key, keyErr := os.ReadFile(filepath.Join(certs, "key.pem"))
	return sc.judge(cert, key, certErr, keyErr)
}

func (sc *scenario) judge(cert, key []byte, certErr, keyErr error) string {
	switch {
	case sc.old == nil && (errors.Is(certErr, fs.ErrNotExist) || errors.Is(keyErr, fs.ErrNotExist)):
		return "none"
	case certErr != nil || keyErr != nil:
		return "a name that does not resolve: " + errors.Join(certErr, keyErr).Error()
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return "a pair that does not load: " + err.Error()
	}
	for name, pair := range map[string]*mint.Pair{"old": sc.old, "new": sc.new} {
		if pair != nil && bytes.Equal(cert, pair.Chain) && bytes.Equal(key, pair.KeyPEM) {
			return name
		}
	}
	return "a pair of unknown origin"
}

// exposed lists files with a key, or that are to hold one, that others than
// the owner may read.
func exposed(t *testing.T, dir string) (list []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && (e.Name() == "key.pem" || bytes.Contains(data, []byte("PRIVATE KEY"))) {
			list = append(list, path)
		}
		return err
	}))
	return list
}

func leftovers(t *testing.T, certs string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(certs, ".mailu-hook", "tmp-*"))
	require.NoError(t, err)
	return found
}

// finishes lets a later run finish, and holds it to having done so.
func (sc *scenario) finishes(certs, what string) bool {
	sc.t.Helper()
	env, args := sc.next(certs)
	code, out := sc.run(certs, env, args...)
	ok := assert.Equal(sc.t, 8, code, "%s: then %v: %s", what, args, out)
	ok = assert.Equal(sc.t, "new", sc.installed(certs), "%s: then %v: %s", what, args, out) && ok
	return sc.tidy(certs, what) && ok
}

// tidy: what a run that ended well leaves, and no more.
func (sc *scenario) tidy(certs, what string) bool {
	sc.t.Helper()
	ok := assert.Empty(sc.t, leftovers(sc.t, certs), what)
	ok = assert.Empty(sc.t, exposed(sc.t, certs), what) && ok
	for _, name := range []string{"cert.pem", "key.pem"} {
		target, err := os.Readlink(filepath.Join(certs, name))
		ok = assert.NoError(sc.t, err, what) && assert.Equal(sc.t, ".mailu-hook/live/"+name, target, what) && ok
	}
	entries, err := os.ReadDir(certs)
	require.NoError(sc.t, err)
	ok = assert.Len(sc.t, entries, 4, what) && ok // both names, ours, and stateIn
	gens, err := filepath.Glob(filepath.Join(certs, ".mailu-hook", "2*Z-*"))
	require.NoError(sc.t, err)
	ok = assert.LessOrEqual(sc.t, len(gens), sc.kept, what) && ok
	if os.Geteuid() != 0 {
		return ok
	}
	require.NoError(sc.t, filepath.WalkDir(filepath.Join(certs, ".mailu-hook"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		ok = err == nil && assert.Equal(sc.t, uint32(owner), info.Sys().(*syscall.Stat_t).Uid, "%s: owner of %s", what, path) && ok
		return err
	}))
	return ok
}

// state describes a tree without what differs from run to run: what a later
// run meets is the same where it is the same.
func (sc *scenario) state(certs string) string {
	sc.t.Helper()
	home := filepath.Join(certs, ".mailu-hook")
	gens, err := filepath.Glob(filepath.Join(home, "2*Z-*"))
	require.NoError(sc.t, err)
	var numbered []string
	for i, gen := range gens {
		numbered = append(numbered, filepath.Base(gen), fmt.Sprint("generation ", i))
	}
	rename := strings.NewReplacer(numbered...)
	var s strings.Builder
	require.NoError(sc.t, filepath.WalkDir(certs, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		case strings.HasSuffix(e.Name(), ".lock"): // holds a pid
			content = fmt.Sprint(info.Size() > 0)
		case e.Type().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			content = anyTime.ReplaceAllString(string(data), "")
		}
		line := fmt.Sprintln(strings.TrimPrefix(path, certs), info.Mode(), info.Sys().(*syscall.Stat_t).Uid, content)
		s.WriteString(randomTmp.ReplaceAllString(rename.Replace(line), "tmp"))
		return err
	}))
	return s.String()
}

var anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)

// layout is what a front sees: the bytes, and by which links it comes to them.
func (sc *scenario) layout(certs, installed string) string {
	for _, name := range []string{"cert.pem", "key.pem"} {
		target, _ := os.Readlink(filepath.Join(certs, name))
		installed += ", " + name + " -> " + target
	}
	return installed
}
