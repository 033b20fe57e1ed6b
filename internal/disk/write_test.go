package disk

import (
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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestFilesHaveTheirContentAndMode(t *testing.T) {
	d := open(t, t.TempDir())
	require.NoError(t, d.Create("key.pem", []byte("key"), 0o600))
	require.NoError(t, d.Replace("cert.pem", []byte("old"), 0o600))
	require.NoError(t, d.Replace("cert.pem", []byte("chain"), 0o644))
	require.NoError(t, d.CreateDir("pair", File{"key.pem", []byte("key"), 0o600}, File{"cert.pem", []byte("chain"), 0o644}))
	assert.Equal(t, []string{"cert.pem", "key.pem", "pair"}, names(t, d), "sorted, and nothing else")
	for _, dir := range []string{"", "pair"} {
		for file, want := range map[string]struct {
			data string
			mode fs.FileMode
		}{"key.pem": {"key", 0o600}, "cert.pem": {"chain", 0o644}} {
			name := filepath.Join(d.Path(), dir, file)
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			assert.Equal(t, want.data, string(data))
			info, err := os.Lstat(name)
			require.NoError(t, err)
			assert.Equal(t, want.mode, info.Mode())
		}
	}
}

func TestCreateDoesNotReplaceWhatExists(t *testing.T) {
	d := open(t, t.TempDir())
	require.NoError(t, d.Create("file", []byte("first"), 0o600))
	require.NoError(t, d.Link("nowhere", "link"))
	for _, name := range []string{"file", "link"} {
		err := d.Create(name, []byte("second"), 0o600)
		require.ErrorIs(t, err, fs.ErrExist)
		assertError(t, err, d, name, "exists")
	}
	data, err := d.Read("file")
	require.NoError(t, err)
	assert.Equal(t, "first", string(data))
	assert.Equal(t, []string{"file", "link"}, names(t, d))
}

func TestAReaderFindsTheOldContentOrTheNew(t *testing.T) {
	d, size := open(t, t.TempDir()), 1<<16
	content := func(n int) []byte { return []byte(strings.Repeat(fmt.Sprint(n%10), size)) }
	require.NoError(t, d.Replace("file", content(0), 0o600))
	whileReading(t, func() error {
		data, err := os.ReadFile(filepath.Join(d.Path(), "file"))
		if err == nil && (len(data) != size || strings.Trim(string(data), string(data[:1])) != "") {
			err = errors.New("a part of it, or a mixture")
		}
		return err
	}, func() {
		for n := range 200 {
			require.NoError(t, d.Replace("file", content(n), 0o600))
		}
	})
}

func TestALinkIsNeverAbsent(t *testing.T) {
	d := open(t, t.TempDir())
	require.NoError(t, d.CreateDir("below"))
	require.NoError(t, d.Create("a", nil, 0o600))
	require.NoError(t, d.Create("b", nil, 0o600))
	require.NoError(t, d.Create("name", nil, 0o600)) // a file first
	whileReading(t, func() error {
		_, err := os.Stat(filepath.Join(d.Path(), "name"))
		return err
	}, func() {
		for range 100 {
			require.NoError(t, d.Link("a", "name"))
			require.NoError(t, d.LinkVia(filepath.Join("below", TempName()), "b", "name"))
		}
	})
	target, err := d.Readlink("name")
	require.NoError(t, err)
	assert.Equal(t, "b", target)
	assert.Equal(t, []string{"a", "b", "below", "name"}, names(t, d))
}

func TestADirectoryIsDisplacedByALinkToIt(t *testing.T) {
	d := open(t, t.TempDir())
	require.NoError(t, d.CreateDir("live", File{"key.pem", []byte("key"), 0o600}))
	whileReading(t, func() error {
		_, err := os.ReadFile(filepath.Join(d.Path(), "live", "key.pem"))
		return err
	}, func() { require.NoError(t, d.Displace("live", "moved")) })
	target, err := d.Readlink("live")
	require.NoError(t, err)
	assert.Equal(t, "moved", target)
	info, err := d.Lstat("moved")
	require.NoError(t, err)
	assert.True(t, info.IsDir())
	assert.ErrorIs(t, d.Displace("live", "moved"), fs.ErrExist, "it is not free")
	assertError(t, d.Displace("missing", "free"), d, "missing", "cannot be moved away: no such file")
	assert.Equal(t, []string{"live", "moved"}, names(t, d))
}

// changes are what a directory can be asked for, under one name.
var changes = map[string]func(d *Dir, name string) error{
	"Create":    func(d *Dir, name string) error { return d.Create(name, []byte("new"), 0o600) },
	"Replace":   func(d *Dir, name string) error { return d.Replace(name, []byte("new"), 0o600) },
	"CreateDir": func(d *Dir, name string) error { return d.CreateDir(name, File{"file", []byte("new"), 0o600}) },
	"Link":      func(d *Dir, name string) error { return d.Link("target", name) },
	"Displace":  func(d *Dir, name string) error { return d.Displace("old", name) },
	"Rename":    func(d *Dir, name string) error { return d.Rename("old", name) },
}

func TestAChangeThatFailsLeavesEverythingAsItWas(t *testing.T) {
	for what, change := range changes {
		t.Run(what, func(t *testing.T) { // a directory that is not empty is in the way
			d := open(t, t.TempDir())
			require.NoError(t, d.Create("old", []byte("old"), 0o600))
			require.NoError(t, d.CreateDir("name", File{"file", []byte("old"), 0o600}))
			var failed *Error
			require.ErrorAs(t, change(d, "name"), &failed)
			assert.Equal(t, []string{"name", "old"}, names(t, d))
			data, err := os.ReadFile(filepath.Join(d.Path(), "name", "file"))
			require.NoError(t, err)
			assert.Equal(t, "old", string(data))
		})
	}
}

func TestAFullDiskLeavesEverythingAsItWas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a tmpfs")
	}
	for what, free := range map[string]int{"Create": 0, "Replace": 0, "CreateDir": 1, "Link": 0, "Displace": 0} { // files that it has room for
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=64k,nr_inodes=", 2+free)))
			t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
			d := open(t, dir)
			writeFile(t, filepath.Join(dir, "old"), "old")
			require.ErrorIs(t, changes[what](d, "name"), syscall.ENOSPC)
			assert.Equal(t, []string{"old"}, names(t, d))
		})
	}
}

// What survives a power loss is decided by what was synced before what.
func TestEachChangeIsDurableInItsOrder(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	for what, want := range map[string][]string{
		"Create":    {"fsync tmp", "renameat tmp name"},
		"Replace":   {"fsync tmp", "renameat tmp name", "fsync ."},
		"CreateDir": {"mkdirat tmp", "fsync tmp/file", "fsync tmp", "renameat tmp name", "fsync ."},
		"Link":      {"symlinkat target tmp", "renameat tmp name"},
		"Displace":  {"symlinkat name name", "renameat2 old name", "fsync ."},
		"Rename":    {"renameat old name"},
		"RemoveAll": {"renameat name tmp"},
		"MakeDir":   {"mkdirat name", "fsync ."},
		"Lock":      {"mkdirat name", "fsync ."},
		"Sync":      {"fsync ."},
	} {
		t.Run(what, func(t *testing.T) {
			dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
			if what == "Displace" || what == "RemoveAll" {
				name := map[string]string{"Displace": "old", "RemoveAll": "name"}[what]
				require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			} else {
				writeFile(t, filepath.Join(dir, "old"), "old")
			}
			cmd := exec.CommandContext(t.Context(), "strace", "-f", "-y", "-e", "trace=fsync,mkdirat,symlinkat,renameat,renameat2", "-o", log, os.Args[0], dir)
			cmd.Env = append(os.Environ(), helperRole+"="+what)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			data, err := os.ReadFile(log)
			require.NoError(t, err)
			assert.Equal(t, want, calls(string(data), dir))
		})
	}
}

// calls are those in a log of strace, without what differs from run to run.
func calls(log, dir string) (list []string) {
	log = regexp.MustCompile(`tmp-[A-Z2-7]{12}`).ReplaceAllString(log, "tmp")
	for _, call := range regexp.MustCompile(`(?m)^\d+ +(\w+)\((.*)$`).FindAllStringSubmatch(log, -1) {
		words := []string{call[1]}
		if call[1] == "fsync" {
			name, err := filepath.Rel(dir, regexp.MustCompile(`<([^>]*)>`).FindStringSubmatch(call[2])[1])
			if err != nil {
				name = err.Error()
			}
			words = append(words, name)
		}
		for _, name := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(call[2], -1) {
			words = append(words, name[1])
		}
		list = append(list, strings.Join(words, " "))
	}
	return list
}

func TestRemovingFollowsNoLink(t *testing.T) {
	d, outside := open(t, t.TempDir()), t.TempDir()
	writeFile(t, filepath.Join(outside, "precious"), "kept")
	sub := makeDir(t, d, "dir")
	require.NoError(t, sub.CreateDir("deep", File{"file", nil, 0o600}))
	require.NoError(t, sub.Link(outside, "link"))
	require.NoError(t, d.Link(outside, "link"))
	require.NoError(t, d.RemoveAll("dir"))
	require.NoError(t, d.RemoveAll("link"))
	assert.Empty(t, names(t, d))
	assert.FileExists(t, filepath.Join(outside, "precious"))
	assert.ErrorIs(t, d.RemoveAll("dir"), fs.ErrNotExist)
}

func TestSweepRemovesWhatAKilledRunLeftAndNoMore(t *testing.T) {
	d, outside := open(t, t.TempDir()), t.TempDir()
	writeFile(t, filepath.Join(outside, "precious"), "kept")
	require.NoError(t, os.MkdirAll(filepath.Join(d.Path(), TempName(), "deep"), 0o700))
	writeFile(t, filepath.Join(d.Path(), TempName()), "half")
	require.NoError(t, os.Symlink(outside, filepath.Join(d.Path(), TempName())))
	require.NoError(t, d.Create("file", nil, 0o600))
	require.Len(t, names(t, d), 4)
	require.NoError(t, d.Sweep())
	assert.Equal(t, []string{"file"}, names(t, d))
	assert.FileExists(t, filepath.Join(outside, "precious"))
}
