package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/mint"
)

// trap is a host with two generations, of which the second is live, a newer
// lineage, and beside the certs directory one that must not be touched: it has
// a loadable pair and everything else by the names that we use.
type trap struct {
	*host
	outside string
	newer   *mint.Pair
	live    string // the newer lineage
	canary  [][]byte
	gen     string // of the two, the one that is not live
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	x := &trap{host: newHost(t)}
	x.outside = filepath.Join(x.root, "outside")
	for i := range 2 {
		_, live := x.issue("mail.example.com", 50-i)
		code, out := x.run(x.certs, nil, "install", "--lineage", live)
		require.Equal(t, 8, code, out)
	}
	gens, err := filepath.Glob(filepath.Join(x.certs, ".mailu-hook", "2*"))
	require.NoError(t, err)
	require.Len(t, gens, 2)
	x.gen = filepath.Base(gens[0])
	x.newer, x.live = x.issue("mail.example.com", 30)

	bait, err := x.ca.Issue(mint.Leaf{NotBefore: time.Now().Add(-10 * time.Minute)}) // of no lineage: sync may look through those
	require.NoError(t, err)
	x.canary = [][]byte{[]byte("CANARY"), bait.KeyPEM[60:120], bait.LeafPEM[len(bait.LeafPEM)-120 : len(bait.LeafPEM)-60]}
	for _, dir := range []string{x.outside, x.outside + "/.mailu-hook", x.outside + "/live", x.outside + "/.mailu-hook/live", x.outside + "/" + x.gen} {
		require.NoError(t, os.MkdirAll(dir, 0o750))
		for _, name := range []string{"cert.pem", "key.pem", "live.pem", "lock", "state.json", "tmp-000000000000", "file"} {
			data := bait.Chain
			switch name {
			case "key.pem":
				data = bait.KeyPEM
			case "state.json":
				data = []byte(`{"version": 1, "held": "CANARY", "lineages": [{"lineage": "` + x.live + `"}]}`)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), slices.Concat(data, []byte("\nCANARY\n")), 0o600))
		}
	}
	if os.Geteuid() == 0 { // what is made in the certs directory is given away
		require.NoError(t, exec.Command("chown", "-hR", "12345:12345", x.certs).Run())
	}
	return x
}

// copied is the certs directory once more, as rsync would bring it.
func (x *trap) copied(name string) string {
	dir := filepath.Join(x.root, "copies", name)
	require.NoError(x.t, os.MkdirAll(filepath.Dir(dir), 0o755))
	require.NoError(x.t, exec.Command("cp", "-a", x.certs, dir).Run())
	return dir
}

// commands are all that write to a certs directory.
func (x *trap) commands() map[string]func(certs string) (code int, out string) {
	return map[string]func(string) (int, string){
		"install":  func(certs string) (int, string) { return x.run(certs, nil, "install", "--lineage", x.live) },
		"hook":     func(certs string) (int, string) { return x.run(certs, []string{"RENEWED_LINEAGE=" + x.live}) },
		"sync":     func(certs string) (int, string) { return x.run(certs, nil, "sync", "--now", "--lineage", x.live) },
		"rollback": func(certs string) (int, string) { return x.run(certs, nil, "rollback", x.gen) },
	}
}

// holds wants nothing of outside in the tree at certs, nor in what was printed,
// and everything that was made there to be its owner's.
func (x *trap) holds(what, certs, out string) {
	assertClean := func(where string, data []byte) {
		for _, canary := range x.canary {
			assert.False(x.t, bytes.Contains(data, canary), "%s: bytes from outside in %s", what, where)
		}
	}
	assertClean("the output", []byte(out))
	assert.NoError(x.t, filepath.WalkDir(certs, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			assertClean(path, data)
		}
		info, err := os.Lstat(path)
		if err == nil && os.Geteuid() == 0 {
			stat := info.Sys().(*syscall.Stat_t)
			assert.Equal(x.t, [2]uint32{12345, 12345}, [2]uint32{stat.Uid, stat.Gid}, "%s: the owner of %s", what, path)
		}
		return err
	}))
}

// ends wants one of the contract's outcomes, said clearly, and no hanging.
func (x *trap) ends(what, certs string, code int, out string) {
	assert.Contains(x.t, []int{0, 1, 2, 3, 8}, code, "%s: %s", what, out)
	if code != 0 {
		assert.Contains(x.t, out, "mailu-hook: error: ", what)
		assert.Contains(x.t, out, "mailu-hook: hint: ", what)
	}
	if code == 1 {
		assert.Contains(x.t, out, certs, "%s: the message names the place", what)
	}
	assert.NotContains(x.t, out, "panic", what)
	if code == 8 { // installed: then what the names lead to is a pair
		cert, key, err := byNames(certs)
		_, bad := tls.X509KeyPair(cert, key)
		assert.True(x.t, err == nil && bad == nil, "%s: said to be installed: %v %v", what, err, bad)
		assert.False(x.t, bytes.Contains(cert, x.canary[2]), "%s: the names lead outside", what)
	}
}

// planted are the ways to put something hostile in the place of a name.
var planted = map[string]func(x *trap, name string) error{
	"link to a file": func(x *trap, name string) error { return os.Symlink(filepath.Join(x.outside, "file"), name) },
	"link to a key":  func(x *trap, name string) error { return os.Symlink(filepath.Join(x.outside, "key.pem"), name) },
	"link to its like": func(x *trap, name string) error {
		return os.Symlink(filepath.Join(x.outside, filepath.Base(name)), name)
	},
	"relative link to a key":   func(x *trap, name string) error { return relative(name, filepath.Join(x.outside, "key.pem")) },
	"relative link to a dir":   func(x *trap, name string) error { return relative(name, x.outside) },
	"link to a directory":      func(x *trap, name string) error { return os.Symlink(x.outside, name) },
	"link to nowhere":          func(x *trap, name string) error { return os.Symlink(filepath.Join(x.outside, "made"), name) },
	"link to a device":         func(_ *trap, name string) error { return os.Symlink("/dev/null", name) },
	"link to itself":           func(_ *trap, name string) error { return os.Symlink(filepath.Base(name), name) },
	"fifo":                     func(_ *trap, name string) error { return syscall.Mkfifo(name, 0o600) },
	"directory of links":       func(x *trap, name string) error { return directoryOfLinks(x, name) },
	"file that cannot be read": func(_ *trap, name string) error { return os.WriteFile(name, []byte("\x00"), 0) },
}

func relative(name, target string) error {
	path, err := filepath.Rel(filepath.Dir(name), target)
	if err != nil {
		return err
	}
	return os.Symlink(path, name)
}

func directoryOfLinks(x *trap, name string) error {
	err := os.Mkdir(name, 0o700)
	for _, file := range []string{"cert.pem", "key.pem", "lock", "state.json", "live", x.gen, "tmp-000000000000"} {
		if err == nil {
			err = os.Symlink(filepath.Join(x.outside, file), filepath.Join(name, file))
		}
	}
	return err
}

func TestNothingOutsideIsReadWrittenOrGivenAway(t *testing.T) {
	x := newTrap(t)
	live, err := os.Readlink(filepath.Join(x.certs, ".mailu-hook", "live"))
	require.NoError(t, err)
	before := snapshot(t, x.outside)
	codes, n := map[int]int{}, 0
	for _, name := range []string{
		"cert.pem", "key.pem", ".mailu-hook", ".mailu-hook/live", ".mailu-hook/lock", ".mailu-hook/state.json", ".mailu-hook/tmp-000000000000", ".mailu-hook/" + x.gen, ".mailu-hook/" + live,
		".mailu-hook/" + live + "/key.pem", ".mailu-hook/" + x.gen + "/cert.pem", ".mailu-hook/21000101T000000Z-00000000",
	} {
		for _, way := range slices.Sorted(maps.Keys(planted)) {
			for _, command := range []string{"install", "hook", "sync", "rollback"} {
				if n++; n%3 == 0 || soak { // a third of all, and of each command
					code := x.spring(name, way, command)
					codes[code]++
				}
				require.Equal(t, before, snapshot(t, x.outside), "%s is a %s, %s: outside was touched", name, way, command)
			}
		}
	}
	t.Logf("%d cases, by exit status: %v", n, codes)
}

// spring plants something in the place of a name and runs a command on it.
func (x *trap) spring(name, way, command string) (code int) {
	what, certs := fmt.Sprintf("%s is a %s, %s", name, way, command), x.copied("c")
	place := filepath.Join(certs, name)
	require.NoError(x.t, os.RemoveAll(place))
	require.NoError(x.t, planted[way](x, place))
	if os.Geteuid() == 0 {
		require.NoError(x.t, exec.Command("chown", "-hR", "12345:12345", place).Run())
	}
	code, out := x.commands()[command](certs)
	require.NotEqual(x.t, -1, code, "%s: it hangs", what)
	x.ends(what, certs, code, out)
	x.holds(what, certs, out)
	require.NoError(x.t, os.RemoveAll(certs))
	return code
}

// exchanging swaps two names forever, until stop is called.
func exchanging(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	n := 0
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
				n++
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(done)
		wg.Wait()
		assert.Greater(t, n, 1000, "so few exchanges are no race")
	})
	t.Cleanup(stop) // should the test end before
	return stop
}

func TestNamesThatAreExchangedDuringTheRunLeadNowhereOutside(t *testing.T) {
	t.Parallel()
	runs := 67 // of each name: 200
	if soak {
		runs = 2000
	}
	for _, name := range []string{".mailu-hook", "cert.pem", ".mailu-hook/live"} {
		t.Run(name, func(t *testing.T) {
			x := newTrap(t)
			before := snapshot(t, x.outside)
			evil := filepath.Join(x.certs, "evil")
			require.NoError(t, planted["link to its like"](x, filepath.Join(x.root, filepath.Base(name))))
			require.NoError(t, os.Rename(filepath.Join(x.root, filepath.Base(name)), evil))
			if os.Geteuid() == 0 {
				require.NoError(t, os.Lchown(evil, 12345, 12345))
			}
			_, other := x.issue("other", 20)
			codes := map[int]int{}
			stop := exchanging(t, filepath.Join(x.certs, name), evil)
			for i := range runs {
				lineage := []string{x.live, other}[i%2]
				code, out := x.run(x.certs, nil, "install", "--lineage", lineage)
				codes[code]++
				assert.Contains(t, []int{1, 8}, code, out)
				assert.NotContains(t, out, "panic")
			}
			stop()
			x.holds("after the exchanges", x.certs, "")
			assert.Equal(t, before, snapshot(t, x.outside), "outside was touched")
			t.Logf("%d runs, by exit status: %v", runs, codes)

			x.repair(name, evil)
			code, out := x.run(x.certs, nil, "install", "--lineage", x.live)
			require.Equal(t, 8, code, out)
			cert, key, err := byNames(x.certs)
			require.NoError(t, err)
			assert.Equal(t, x.newer.Chain, cert)
			assert.Equal(t, x.newer.KeyPEM, key)
		})
	}
}

// What lies beside our directory is others' as well, and a link to it does not
// leave the certs directory.
func TestAHomeThatIsExchangedForALinkToADirectoryBesideItIsNotFollowed(t *testing.T) {
	x := newTrap(t)
	theirs, evil := filepath.Join(x.certs, "letsencrypt"), filepath.Join(x.certs, "evil")
	require.NoError(t, exec.Command("cp", "-a", x.outside, theirs).Run())
	require.NoError(t, os.Symlink("letsencrypt", evil))
	before := snapshot(t, theirs)
	_, other := x.issue("other", 20)
	stop := exchanging(t, filepath.Join(x.certs, ".mailu-hook"), evil)
	for i := range 60 {
		code, out := x.run(x.certs, nil, "install", "--lineage", []string{x.live, other}[i%2])
		assert.Contains(t, []int{1, 8}, code, out)
	}
	stop()
	assert.Equal(t, before, snapshot(t, theirs), "the directory beside was touched")
}

// repair puts back in its place what the exchanges left under the other name.
func (x *trap) repair(name, evil string) {
	target, err := os.Readlink(filepath.Join(x.certs, name))
	if err == nil && strings.HasPrefix(target, x.outside) {
		require.NoError(x.t, unix.Renameat2(unix.AT_FDCWD, filepath.Join(x.certs, name), unix.AT_FDCWD, evil, unix.RENAME_EXCHANGE))
	}
}

func TestNewFilesBelongToTheOwnerOfTheDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	x := newTrap(t)
	certs := filepath.Join(x.root, "theirs")
	require.NoError(t, os.Mkdir(certs, 0o755))
	require.NoError(t, os.Chown(certs, 12345, 12345))
	x.certs = certs
	for command, run := range x.commands() {
		if command != "rollback" {
			code, out := run(certs)
			require.Equal(t, 8, code, out)
			x.holds(command, certs, out)
		}
	}
	assertStore(t, certs, 1)
}
