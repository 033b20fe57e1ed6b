package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

// tinyDisk mounts a file system of its own for the test.
func tinyDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a tmpfs")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill writes until the disk is full.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
}

// fillInodes makes files until the disk can hold no more.
func fillInodes(t *testing.T, dir string) {
	t.Helper()
	for n := 0; ; n++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("filler", n)))
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			return
		}
		f.Close()
	}
}

// publicDir is a directory that the user nobody may enter, too.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

// asNobody runs do with the file rights of nobody, on a thread that ends with
// it. The rights to files follow the fsuid (setfsuid(2)), which is a thread's.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
		if os.Geteuid() == 0 {
			if err := unix.Setfsuid(65534); err != nil {
				t.Error(err)
				return
			}
		}
		do()
	}()
	<-done
}

func assertDiskError(t *testing.T, err error, cause error, hint string) {
	t.Helper()
	var failed *disk.Error
	require.ErrorAs(t, err, &failed)
	assert.ErrorIs(t, err, cause)
	assert.Contains(t, say.HintOf(err), hint)
}

func TestFullDiskLeavesTheOldPairAndSaysSo(t *testing.T) {
	for name, plain := range map[string]bool{"plain files": true, "our links": false} {
		t.Run(name, func(t *testing.T) {
			dir, a := tinyDisk(t, "size=128k"), aged(t, 2*time.Hour)
			if plain {
				writePair(t, dir, a)
			} else {
				install(t, dir, a)
			}
			fill(t, dir)
			err := deployWithout(t, dir, aged(t, time.Hour))
			assertDiskError(t, err, syscall.ENOSPC, "free some space")
			assert.Equal(t, a.Fingerprint(), onDisk(t, dir))
			left, err := filepath.Glob(filepath.Join(dir, homeName, "tmp-*"))
			require.NoError(t, err)
			assert.Empty(t, left)

			require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
			b := aged(t, time.Hour)
			require.NoError(t, deployWithout(t, dir, b))
			assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
		})
	}
}

func TestEveryWriteThatFailsLeavesTheOldPair(t *testing.T) {
	for free := range 20 { // inodes: each run comes one file further than the one before
		dir, a, b := tinyDisk(t, "size=1m,nr_inodes=64"), aged(t, 2*time.Hour), aged(t, time.Hour)
		writePair(t, dir, a)
		fillInodes(t, dir)
		for n := range free {
			require.NoError(t, os.Remove(filepath.Join(dir, fmt.Sprint("filler", n))))
		}
		err := deployWithout(t, dir, b)
		if err == nil {
			assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
			assert.Greater(t, free, 6, "it failed on the way often enough")
			return
		}
		assertDiskError(t, err, syscall.ENOSPC, "free some space")
		assert.Equal(t, a.Fingerprint(), onDisk(t, dir))
	}
	t.Error("20 files were not enough")
}

func TestReadOnlyFileSystemIsExplained(t *testing.T) {
	dir, a := tinyDisk(t, "size=256k"), aged(t, 2*time.Hour)
	install(t, dir, a)
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	before := snapshot(t, dir)
	assertDiskError(t, deployWithout(t, dir, aged(t, time.Hour)), syscall.EROFS, "read-only")
	assert.Equal(t, before, snapshot(t, dir))
	require.NoError(t, deployWithout(t, dir, a), "nothing to do needs no write")
}

func TestASwitchThatTheDiskRefusesReportsTheOldGeneration(t *testing.T) {
	dir, a := tinyDisk(t, "size=1m,nr_inodes=64"), aged(t, 2*time.Hour)
	old := install(t, dir, a)
	r, err := Deploy(t.Context(), aged(t, time.Hour), openStore(t, dir), nil, Options{Rules: trusted(t), Progress: func(s Step) {
		if s == StepSwitch {
			fillInodes(t, dir) // a link takes one
		}
	}})
	assertDiskError(t, err, syscall.ENOSPC, "free some space")
	assert.Equal(t, OutcomeFailed, r.Outcome)
	assert.Equal(t, a.Fingerprint(), onDisk(t, dir))
	assert.Equal(t, old.Generation, r.Generation, "the one that is live")
}

func TestARollbackThatTheDiskRefusesNeedsAPerson(t *testing.T) {
	s := newScene(t)
	s.dir = tinyDisk(t, "size=1m,nr_inodes=64")
	s.f.dir, s.f.refuses = s.dir, s.new.Fingerprint()
	writePair(t, s.dir, s.old)
	s.o.Progress = func(step Step) {
		if step == StepRollback {
			fillInodes(t, s.dir)
		}
	}
	r, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrRollbackFailed)
	assertDiskError(t, err, syscall.ENOSPC, "free some space")
	assert.Equal(t, OutcomeRollbackFailed, r.Outcome)
	assert.Equal(t, s.new.Fingerprint(), onDisk(t, s.dir), "still a pair, and said to be the new one")
	assert.Contains(t, string(r.Generation), s.new.Fingerprint()[:8])
	assert.NotNil(t, remembered(t, s.dir).Pending, "what is remembered is on another disk")
}

func TestADirectoryThatIsNotWritableIsExplained(t *testing.T) {
	dir, a, b := publicDir(t), aged(t, 2*time.Hour), aged(t, time.Hour)
	writePair(t, dir, a)
	require.NoError(t, os.Chmod(filepath.Join(dir, "key.pem"), 0o644)) // nobody can read it
	require.NoError(t, os.Chmod(dir, 0o555))
	t.Cleanup(func() { assert.NoError(t, os.Chmod(dir, 0o755)) })
	before := snapshot(t, dir)
	var err error
	asNobody(t, func() { err = deployWithout(t, dir, b) })
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.Contains(t, say.HintOf(err), "as root")
	assert.Equal(t, before, snapshot(t, dir))
}

func TestUnreadableFileIsRejectedWithTheRemedy(t *testing.T) {
	dir, b := publicDir(t), aged(t, time.Hour)
	writePair(t, dir, b)
	src := source.Files(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	require.NoError(t, os.Chmod(src.KeyFile, 0))
	var err error
	asNobody(t, func() { _, err = readBundle(t.Context(), src) })
	assertRejected(t, err, src.KeyFile, "permission denied", "run mailu-hook as root")
	assert.True(t, errors.Is(err, fs.ErrPermission))
}
