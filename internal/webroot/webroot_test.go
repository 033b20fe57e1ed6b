package webroot

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const answers = ".well-known/acme-challenge"

func open(t *testing.T, dir string) *Root {
	t.Helper()
	r, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

func mode(t *testing.T, name string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(name)
	require.NoError(t, err)
	return info.Mode().Perm()
}

func left(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, name); rel != "." {
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func TestTheServersUserCanReadTheResponseUnderAnyUmask(t *testing.T) {
	for _, umask := range []int{0o022, 0o077, 0o777} {
		t.Run(fmt.Sprintf("%04o", umask), func(t *testing.T) {
			if umask == 0o777 && os.Geteuid() != 0 {
				t.Skip("needs root: nobody else enters a directory without any permission")
			}
			dir := t.TempDir()
			r := open(t, dir)
			old := syscall.Umask(umask)
			err := r.Present(t.Context(), "token", "token.thumb")
			syscall.Umask(old)
			require.NoError(t, err)
			data, err := os.ReadFile(filepath.Join(dir, answers, "token"))
			require.NoError(t, err)
			assert.Equal(t, "token.thumb", string(data))
			assert.EqualValues(t, 0o755, mode(t, filepath.Join(dir, ".well-known")))
			assert.EqualValues(t, 0o755, mode(t, filepath.Join(dir, answers)))
			assert.EqualValues(t, 0o644, mode(t, filepath.Join(dir, answers, "token")))
		})
	}
}

func TestNothingIsLeftAfterCleanUpAndClose(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	require.NoError(t, r.Present(t.Context(), "token", "x"))
	require.NoError(t, r.CleanUp(t.Context(), "token"))
	require.NoError(t, r.CleanUp(t.Context(), "token"), "it is gone already")
	r.Close()
	assert.Empty(t, left(t, dir))
	r.Close()
}

func TestFilesOfOthersStay(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".well-known"), 0o750))
	r := open(t, dir)
	require.NoError(t, r.Present(t.Context(), "token", "x"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, answers, "theirs"), nil, 0o600))
	require.NoError(t, r.CleanUp(t.Context(), "token"))
	r.Close()
	assert.Equal(t, []string{".well-known", answers, answers + "/theirs"}, left(t, dir))
	assert.EqualValues(t, 0o750, mode(t, filepath.Join(dir, ".well-known")), "its mode was theirs to choose")
}

func TestSeveralResponsesAtOnce(t *testing.T) {
	for range 50 { // the directories are made in each
		dir := t.TempDir()
		r := open(t, dir)
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				token := fmt.Sprint("token", n)
				assert.NoError(t, r.Present(t.Context(), token, token))
				assert.FileExists(t, filepath.Join(dir, answers, token))
				assert.NoError(t, r.CleanUp(t.Context(), token))
			})
		}
		wg.Wait()
		r.Close()
		require.Empty(t, left(t, dir))
	}
}

func TestAResponseReplacesTheOneOfAKilledRun(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	require.NoError(t, r.Make())
	for _, name := range []string{"token", "token.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, answers, name), []byte("old, and longer than the new one"), 0o600))
	}
	require.NoError(t, r.Present(t.Context(), "token", "new"))
	data, err := os.ReadFile(filepath.Join(dir, answers, "token"))
	require.NoError(t, err)
	assert.Equal(t, "new", string(data))
	assert.NoFileExists(t, filepath.Join(dir, answers, "token.tmp"))
}

func TestTheResponsesOfAKilledRunAreRemovedAndNobodyElses(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, answers), 0o755))
	for name, content := range map[string]string{"old": "old.thumb", "half.tmp": "half.thumb", "theirs": "theirs.other", "text": "old.thumb", "dir/x": ""} {
		file := filepath.Join(dir, answers, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	r := open(t, dir)
	require.NoError(t, r.Present(t.Context(), "one", "one.thumb"))
	require.NoError(t, r.Present(t.Context(), "two", "two.thumb"))
	entries, err := os.ReadDir(filepath.Join(dir, answers))
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	assert.Equal(t, []string{"dir", "one", "text", "theirs", "two"}, names)
}

func TestLinksOutOfTheRootAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	for name, plant := range map[string]func(dir string) error{
		"the upper directory": func(dir string) error { return os.Symlink(outside, filepath.Join(dir, ".well-known")) },
		"the lower directory": func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, ".well-known"), 0o755); err != nil {
				return err
			}
			return os.Symlink(outside, filepath.Join(dir, answers))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, plant(dir))
			err := open(t, dir).Present(t.Context(), "token", "x")
			require.ErrorContains(t, err, "escapes from parent")
			assert.Equal(t, []string{"secret"}, left(t, outside))
		})
	}
	t.Run("the file", func(t *testing.T) {
		dir := t.TempDir()
		private := filepath.Join(dir, "private")
		require.NoError(t, os.WriteFile(private, []byte("private"), 0o600))
		r := open(t, dir)
		require.NoError(t, r.Make())
		for _, name := range []string{"token", "token.tmp"} {
			require.NoError(t, os.Symlink("../../private", filepath.Join(dir, answers, name)))
		}
		require.NoError(t, r.Present(t.Context(), "token", "x"))
		data, err := os.ReadFile(private)
		require.NoError(t, err)
		assert.Equal(t, "private", string(data))
		assert.EqualValues(t, 0o600, mode(t, private))
	})
}

func TestAMissingDirectoryIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := Open(missing)
	require.ErrorContains(t, err, missing)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAFullDiskLeavesNoPartialResponse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a tmpfs")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "full"), make([]byte, 4096), 0o600))
	r := open(t, dir)
	require.ErrorIs(t, r.Present(t.Context(), "token", "x"), syscall.ENOSPC)
	r.Close()
	assert.Equal(t, []string{"full"}, left(t, dir))
}
