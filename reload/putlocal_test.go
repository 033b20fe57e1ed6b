package reload

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// containerRoot is a root directory with a process in it, and beside it a
// directory that nothing inside may reach.
func containerRoot(t *testing.T) (root, outside string, pid1 int) {
	t.Helper()
	dir := t.TempDir()
	root, outside = filepath.Join(dir, "root"), filepath.Join(dir, "outside")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "run", "dovecot"), 0o755))
	require.NoError(t, os.Mkdir(outside, 0o755))
	return root, outside, rootedAt(t, root)
}

func entries(t *testing.T, dir string) (list []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range found {
		list = append(list, e.Name())
	}
	return list
}

func TestPidFileIsARegularOneWithTheModeAskedFor(t *testing.T) {
	t.Parallel()
	root, _, pid1 := containerRoot(t)
	for name, mode := range map[string]fs.FileMode{"/run/nginx.pid": 0o644, "/run/dovecot/master.pid": 0o600, "/run/wide.pid": 0o666} {
		require.NoError(t, putLocal(pid1, name, []byte("23\n"), mode))
		info, err := os.Lstat(root + name)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode(), "%s: regular, and the umask does not matter", name)
		data, err := os.ReadFile(root + name)
		require.NoError(t, err)
		assert.Equal(t, "23\n", string(data))
	}
	assert.Equal(t, []string{"dovecot", "nginx.pid", "wide.pid"}, entries(t, root+"/run"), "nothing else is left")
}

func TestPidFileThatIsRightIsLeftAlone(t *testing.T) {
	t.Parallel()
	root, _, pid1 := containerRoot(t)
	name := root + "/run/nginx.pid"
	require.NoError(t, os.WriteFile(name, []byte("23"), 0o640)) // no newline: as some daemons write it
	before, err := os.Stat(name)
	require.NoError(t, err)
	require.NoError(t, putLocal(pid1, "/run/nginx.pid", []byte("23\n"), 0o644))
	after, err := os.Stat(name)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	assert.Equal(t, before.ModTime(), after.ModTime())
}

func TestPidFileThatIsWrongIsReplaced(t *testing.T) {
	t.Parallel()
	root, outside, pid1 := containerRoot(t)
	secret := filepath.Join(outside, "file")
	for name, make := range map[string]func(file string) error{
		"empty, as nginx -t leaves it": func(file string) error { return os.WriteFile(file, nil, 0o644) },
		"another pid":                  func(file string) error { return os.WriteFile(file, []byte("9\n"), 0o644) },
		"huge":                         func(file string) error { return os.Truncate(file, 1<<40) },
		"link out, relative":           func(file string) error { return os.Symlink("../../outside/file", file) },
		"link out, absolute":           func(file string) error { return os.Symlink(secret, file) },
		"link to the right content":    func(file string) error { return os.Symlink("right", file) },
		"dangling link":                func(file string) error { return os.Symlink("nowhere", file) },
		"second name of a file":        func(file string) error { return os.Link(secret, file) },
	} {
		t.Run(name, func(t *testing.T) {
			file := root + "/run/nginx.pid"
			require.NoError(t, os.RemoveAll(file))
			require.NoError(t, os.WriteFile(secret, []byte("untouched"), 0o600))
			require.NoError(t, os.WriteFile(root+"/run/right", []byte("23\n"), 0o600))
			if name == "huge" {
				require.NoError(t, os.WriteFile(file, nil, 0o600))
			}
			require.NoError(t, make(file))
			require.NoError(t, putLocal(pid1, "/run/nginx.pid", []byte("23\n"), 0o644))
			info, err := os.Lstat(file)
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular(), "links would survive the front's start, and keep dovecot from starting")
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, "23\n", string(data))
			data, err = os.ReadFile(secret)
			require.NoError(t, err)
			assert.Equal(t, "untouched", string(data))
		})
	}
}

func TestRunThatLeadsOutOfTheContainerIsRefused(t *testing.T) {
	t.Parallel()
	root, outside, pid1 := containerRoot(t)
	for _, target := range []string{outside, "../outside", "/"} {
		require.NoError(t, os.RemoveAll(root+"/run"))
		require.NoError(t, os.Symlink(target, root+"/run"))
		assert.Error(t, putLocal(pid1, "/run/nginx.pid", []byte("23\n"), 0o644), target)
		assert.Empty(t, entries(t, outside))
	}
	assert.Equal(t, []string{"run"}, entries(t, root))
}

func TestTemporaryOfAKilledRunIsReplaced(t *testing.T) {
	t.Parallel()
	root, outside, pid1 := containerRoot(t)
	tmp := root + "/run/mailu-hook.nginx.pid"
	for name, make := range map[string]func() error{
		"file": func() error { return os.WriteFile(tmp, []byte("half"), 0o777) },
		"link": func() error { return os.Symlink("../../outside/new", tmp) },
		"dir":  func() error { return os.Mkdir(tmp, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.RemoveAll(root+"/run/nginx.pid"))
			require.NoError(t, make())
			require.NoError(t, putLocal(pid1, "/run/nginx.pid", []byte("23\n"), 0o644))
			assert.Equal(t, []string{"dovecot", "nginx.pid"}, entries(t, root+"/run"))
			assert.Empty(t, entries(t, outside))
		})
	}
}

func TestNoTemporaryIsLeftAfterAFailure(t *testing.T) {
	t.Parallel()
	root, _, pid1 := containerRoot(t)
	require.NoError(t, os.Mkdir(root+"/run/nginx.pid", 0o755)) // cannot be renamed onto
	require.Error(t, putLocal(pid1, "/run/nginx.pid", []byte("23\n"), 0o644))
	assert.Equal(t, []string{"dovecot", "nginx.pid"}, entries(t, root+"/run"))
}

func TestMissingDirectoryOfThePidFileIsAnError(t *testing.T) {
	t.Parallel()
	root, _, pid1 := containerRoot(t)
	require.NoError(t, os.RemoveAll(root+"/run/dovecot"))
	assert.ErrorIs(t, putLocal(pid1, "/run/dovecot/master.pid", []byte("23\n"), 0o600), fs.ErrNotExist)
	assert.Error(t, putLocal(exited(t), "/run/nginx.pid", []byte("23\n"), 0o644), "a container that is gone")
}
