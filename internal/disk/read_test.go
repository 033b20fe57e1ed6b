package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyRegularFilesOfBoundedSizeAreRead(t *testing.T) {
	for what, c := range map[string]struct {
		put  func(name string) error
		fact string
	}{
		"missing":    {func(string) error { return nil }, "no such file"},
		"directory":  {func(name string) error { return os.Mkdir(name, 0o700) }, "expected a regular file, found a directory"},
		"fifo":       {func(name string) error { return syscall.Mkfifo(name, 0o600) }, "expected a regular file, found a fifo"},
		"link loop":  {func(name string) error { return os.Symlink("name", name) }, "symbolic links"},
		"over 1 MiB": {func(name string) error { return os.WriteFile(name, make([]byte, MaxFile+1), 0o600) }, "larger than 1048576 bytes"},
	} {
		t.Run(what, func(t *testing.T) {
			d := open(t, t.TempDir())
			path := filepath.Join(d.Path(), "name")
			require.NoError(t, c.put(path))
			_, err := d.Read("name")
			assertError(t, err, d, "name", c.fact)
			_, err = ReadUpTo(path, MaxFile)
			assert.ErrorContains(t, err, c.fact)
		})
	}
	_, err := ReadUpTo("/dev/zero", MaxFile)
	assert.ErrorContains(t, err, "a device")
}

func TestAFileOfExactlyOneMiBIsRead(t *testing.T) {
	d := open(t, t.TempDir())
	require.NoError(t, d.Create("file", make([]byte, MaxFile), 0o600))
	data, err := d.Read("file")
	require.NoError(t, err)
	assert.Len(t, data, MaxFile)
}

func TestLinksThatStayInsideAreFollowed(t *testing.T) {
	d, outside := open(t, t.TempDir()), t.TempDir()
	writeFile(t, filepath.Join(outside, "secret"), "theirs")
	require.NoError(t, d.CreateDir("archive", File{"cert1.pem", []byte("chain"), 0o600}))
	require.NoError(t, d.Link("archive/cert1.pem", "inside"))
	require.NoError(t, d.Link(filepath.Join(outside, "secret"), "outside"))
	data, err := d.Read("inside")
	require.NoError(t, err)
	assert.Equal(t, "chain", string(data))
	data, err = d.Read("outside")
	assertError(t, err, d, "outside", "escapes")
	assert.Empty(t, data)
	_, err = d.Readlink("archive")
	assertError(t, err, d, "archive", "invalid argument")
	_, err = d.Lstat("missing")
	assert.ErrorIs(t, err, fs.ErrNotExist)
}
