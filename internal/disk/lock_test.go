package disk

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

// startHolder returns a process that has the lock, killed at the end of the test.
func startHolder(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), helperRole+"=hold")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stdin, err := cmd.StdinPipe() // a helper that outlives the test sees it end
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		kill(cmd)
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // says "killed", or that it was waited for already
}

func lock(t *testing.T, d *Dir) (unlock func()) {
	t.Helper()
	unlock, err := d.Lock(t.Context())
	require.NoError(t, err)
	t.Cleanup(unlock)
	return unlock
}

func TestSecondHolderWaitsUntilItsTimeIsUpAndNamesTheFirst(t *testing.T) {
	dir := t.TempDir()
	holder := startHolder(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	_, err := open(t, dir).Lock(ctx)
	require.ErrorIs(t, err, ErrLocked)
	require.Error(t, ctx.Err(), "it waited")
	assert.ErrorContains(t, err, fmt.Sprintf("(pid %d on %s)", holder.Process.Pid, hostname(t)))
	assert.ErrorContains(t, err, dir)
	assert.Contains(t, say.HintOf(err), "wait")
}

func TestLockIsReleasedWhenItsHolderIsKilled(t *testing.T) {
	dir := t.TempDir()
	kill(startHolder(t, dir))
	writeFile(t, filepath.Join(dir, "lock"), "a longer number than any\n")
	lock(t, open(t, dir))
	data, err := os.ReadFile(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("%d %s\n", os.Getpid(), hostname(t)), string(data))
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	require.NoError(t, err)
	return name
}

func TestALockFileThatItsHolderRemovesIsNoLock(t *testing.T) {
	dir := t.TempDir()
	unlock := lock(t, open(t, dir))
	taken := make(chan error, 1)
	go func() {
		release, err := open(t, dir).Lock(t.Context())
		if err == nil {
			defer release()
			_, err = os.Stat(filepath.Join(dir, "lock"))
		}
		taken <- err
	}()
	require.Eventually(t, func() bool { // it waits for the file that is there
		opened := 0
		fds, _ := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			if name, _ := os.Readlink("/proc/self/fd/" + fd.Name()); name == filepath.Join(dir, "lock") {
				opened++
			}
		}
		return opened == 2
	}, 5*time.Second, time.Millisecond)
	require.NoError(t, os.Remove(filepath.Join(dir, "lock")))
	unlock()
	require.NoError(t, <-taken, "the file that is locked is the one that others see")
}

func TestWaitingEndsWhenTheLockIsReleased(t *testing.T) {
	dir := t.TempDir()
	unlock := lock(t, open(t, dir))
	second, got := open(t, dir), make(chan error, 1)
	go func() {
		unlock, err := second.Lock(context.Background())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("locked twice: %v", err)
	default:
	}
	unlock()
	require.NoError(t, <-got)
}

func TestAHolderWithoutARecordedPidIsNotNamed(t *testing.T) {
	d := open(t, t.TempDir())
	lock(t, d)
	writeFile(t, filepath.Join(d.Path(), "lock"), "\x1b[31mjunk")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Lock(ctx)
	require.ErrorIs(t, err, ErrLocked)
	assert.ErrorContains(t, err, "(pid unknown)")
}

func TestALockThatIsNotARegularFileIsRefused(t *testing.T) {
	for way, c := range inTheWay {
		t.Run(way, func(t *testing.T) {
			d, outside := open(t, t.TempDir()), t.TempDir()
			require.NoError(t, d.Create("beside", []byte("precious"), 0o600))
			require.NoError(t, c.put(filepath.Join(d.Path(), "lock"), outside))
			_, err := d.Lock(t.Context())
			assertError(t, err, d, "lock", "it is in the way: expected a regular file, found "+c.fact)
			data, err := d.Read("beside")
			require.NoError(t, err)
			assert.Equal(t, "precious", string(data))
		})
	}
}

func TestTheLockSweepsItsDirectory(t *testing.T) {
	d := open(t, t.TempDir())
	sub := makeDir(t, d, "sub")
	for _, dir := range []*Dir{d, sub} {
		writeFile(t, filepath.Join(dir.Path(), "tmp-left"), "half")
	}
	lock(t, sub)
	assert.Equal(t, []string{"lock"}, names(t, sub))
	assert.Equal(t, []string{"sub", "tmp-left"}, names(t, d), "not the one above")
}

func TestALockIsSeenToBeHeldByWhoLivesAndByNobodyElse(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	assert.False(t, d.Locked(lockName), "there is none")
	holder := startHolder(t, dir)
	before, err := os.ReadFile(filepath.Join(dir, lockName))
	require.NoError(t, err)
	assert.True(t, d.Locked(lockName))
	after, err := os.ReadFile(filepath.Join(dir, lockName))
	require.NoError(t, err)
	assert.Equal(t, before, after)
	kill(holder)
	assert.False(t, d.Locked(lockName), "its holder was killed")
	lock(t, d)() // and looking has not kept it
	require.NoError(t, os.Remove(filepath.Join(dir, lockName)))
	require.NoError(t, os.Symlink("elsewhere", filepath.Join(dir, lockName)))
	assert.False(t, d.Locked(lockName))
}
