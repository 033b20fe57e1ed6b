package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/say"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return d
}

func makeDir(t *testing.T, d *Dir, name string) *Dir {
	t.Helper()
	made, err := d.MakeDir(name)
	require.NoError(t, err)
	t.Cleanup(made.Close)
	return made
}

func writeFile(t *testing.T, name, data string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(data), 0o600))
}

func names(t *testing.T, d *Dir) []string {
	t.Helper()
	list, err := d.Names()
	require.NoError(t, err)
	return list
}

// assertError holds err to naming what is concerned.
func assertError(t *testing.T, err error, d *Dir, name, fact string) {
	t.Helper()
	var failed *Error
	require.ErrorAs(t, err, &failed)
	assert.ErrorContains(t, err, filepath.Join(d.Path(), name)+": ")
	assert.ErrorContains(t, err, fact)
}

// whileReading runs work while read is called as fast as it can be, and fails
// the test with the first thing that read objects to.
func whileReading(t *testing.T, read func() error, work func()) {
	t.Helper()
	var done atomic.Bool
	result, started := make(chan error, 1), make(chan struct{})
	go func() {
		err := read()
		close(started)
		for err == nil && !done.Load() {
			err = read()
		}
		result <- err
	}()
	<-started
	work()
	done.Store(true)
	require.NoError(t, <-result)
}

func TestOpenFollowsTheAdministratorsLinksAndWritesNothing(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("real", link))
	d := open(t, link+"/")
	assert.Equal(t, link+"/", d.Path(), "as it was given")
	assert.Empty(t, names(t, d))
	d.Close()
	d.Close() // harmless
}

func TestAMissingDirectoryIsForTheCallerToExplain(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.Empty(t, say.HintOf(err))
}

// inTheWay are the ways to put something else in the place of a name.
var inTheWay = map[string]struct {
	fact string
	put  func(name, outside string) error
}{
	"link to a directory": {"a symbolic link", func(name, outside string) error { return os.Symlink(outside, name) }},
	"link inside":         {"a symbolic link", func(name, _ string) error { return os.Symlink("beside", name) }},
	"link to nowhere":     {"a symbolic link", func(name, _ string) error { return os.Symlink("nowhere", name) }},
	"fifo":                {"a fifo", func(name, _ string) error { return syscall.Mkfifo(name, 0o600) }},
}

func TestOnlyADirectoryIsOpenedAsOne(t *testing.T) {
	for way, c := range inTheWay {
		t.Run(way, func(t *testing.T) {
			d, outside := open(t, t.TempDir()), t.TempDir()
			makeDir(t, d, "beside")
			require.NoError(t, c.put(filepath.Join(d.Path(), "dir"), outside))
			_, err := d.OpenDir("dir")
			assertError(t, err, d, "dir", "dir is in the way: expected a directory, found "+c.fact)
			_, err = d.MakeDir("dir")
			assertError(t, err, d, "dir", "dir is in the way: expected a directory, found "+c.fact)
		})
	}
	d := open(t, t.TempDir())
	_, err := d.OpenDir("missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	assertError(t, err, d, "missing", "no such file")
}

func TestALinkSwappedInForADirectoryIsNotFollowed(t *testing.T) {
	d := open(t, t.TempDir())
	require.NoError(t, d.CreateDir("good"))
	require.NoError(t, d.CreateDir("evil", File{"mark", nil, 0o600}))
	require.NoError(t, os.Symlink("evil", filepath.Join(d.Path(), "link")))
	good, link := filepath.Join(d.Path(), "good"), filepath.Join(d.Path(), "link")
	opened, refused := 0, 0
	whileReading(t, func() error {
		return unix.Renameat2(unix.AT_FDCWD, good, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
	}, func() {
		for range 5000 {
			sub, err := d.OpenDir("good")
			if err != nil {
				refused++
				continue
			}
			opened++
			_, err = sub.Lstat("mark")
			sub.Close()
			require.ErrorIs(t, err, fs.ErrNotExist, "it was led to the other directory")
		}
	})
	assert.NotZero(t, opened)
	assert.NotZero(t, refused)
}

func TestMakeDirMakesOrOpensAPrivateDirectory(t *testing.T) {
	d := open(t, t.TempDir())
	accounts := makeDir(t, makeDir(t, d, "acme"), "accounts")
	assert.Equal(t, d.Path()+"/acme/accounts", accounts.Path())
	info, err := os.Lstat(accounts.Path())
	require.NoError(t, err)
	assert.Equal(t, fs.ModeDir|0o700, info.Mode())

	require.NoError(t, accounts.Create("key", []byte("secret"), 0o600))
	data, err := makeDir(t, makeDir(t, d, "acme"), "accounts").Read("key")
	require.NoError(t, err)
	assert.Equal(t, "secret", string(data), "what exists is kept")
}

func TestWhatRootCreatesBelongsToTheOwnerOfTheDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can give files away")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, 12345, 23456))
	d := open(t, dir)
	sub := makeDir(t, d, "made")
	require.NoError(t, d.Mkdir("bare"))
	bare, err := d.OpenDir("bare")
	require.NoError(t, err)
	defer bare.Close()
	unlock, err := bare.Lock(t.Context()) // takes it over
	require.NoError(t, err)
	defer unlock()
	require.NoError(t, sub.Create("created", nil, 0o600))
	require.NoError(t, sub.Replace("replaced", nil, 0o644))
	require.NoError(t, sub.CreateDir("whole", File{"file", nil, 0o600}))
	require.NoError(t, sub.Link("created", "link"))
	seen := 0
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := os.Lstat(name)
		require.NoError(t, err)
		owner := info.Sys().(*syscall.Stat_t)
		assert.Equal(t, [2]uint32{12345, 23456}, [2]uint32{owner.Uid, owner.Gid}, name)
		seen++
		return nil
	}))
	assert.Equal(t, 9, seen)
}

func TestErrorsHintAtTheRemedy(t *testing.T) {
	for cause, hint := range map[error]string{
		syscall.ENOSPC: "free some space",
		syscall.EDQUOT: "free some space",
		syscall.EROFS:  "read-only",
		syscall.EACCES: "as root",
		syscall.EPERM:  "as root",
		syscall.EIO:    "dmesg",
	} {
		err := &Error{"/mailu/certs", "cert.pem", &fs.PathError{Op: "openat", Path: "tmp-x", Err: cause}}
		assert.Contains(t, say.HintOf(err), hint)
		assert.Equal(t, "/mailu/certs/cert.pem: "+cause.Error(), err.Error())
		assert.True(t, errors.Is(err, cause))
	}
}

func TestAnErrorNamesThePathOnce(t *testing.T) {
	d := open(t, t.TempDir())
	sub := makeDir(t, d, "sub")
	require.NoError(t, sub.Wrap("state.json", nil))
	err := sub.Wrap("state.json", errors.New("damaged"))
	assert.EqualError(t, err, d.Path()+"/sub/state.json: damaged")
	assert.Equal(t, err, d.Wrap("other", err))
}

func TestNewFilesFollowTheOwnerOfTheDirectoryAndElseOfTheFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct{ dir, file, want int }{{0, 0, 0}, {0, 12345, 12345}, {23456, 12345, 23456}, {23456, 0, 23456}} {
		require.NoError(t, os.Chown(dir, c.dir, c.dir))
		require.NoError(t, os.Chown(file, c.file, c.file))
		owner, err := OwnerFor(dir, "key.pem")
		require.NoError(t, err)
		assert.Equal(t, Owner{c.want, c.want}, owner)

		d, err := Open(dir)
		require.NoError(t, err)
		d.Follow("key.pem")
		made, err := d.MakeDir("made")
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join(dir, "made"))
		require.NoError(t, err)
		assert.EqualValues(t, c.want, info.Sys().(*syscall.Stat_t).Uid)
		made.Close()
		d.Close()
		require.NoError(t, os.Remove(filepath.Join(dir, "made")))
	}
	_, err := OwnerFor(filepath.Join(dir, "missing"), "key.pem")
	assert.Error(t, err)
}
