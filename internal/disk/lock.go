package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mailu-hook/internal/say"
)

// ErrLocked means that another run held the lock until ctx ended.
var ErrLocked = errors.New("another run holds the lock")

const (
	lockName = "lock"
	lockPoll = 50 * time.Millisecond
)

// Lock makes this process the only one that changes the directory. It waits until
// ctx ends; the error is then an [ErrLocked] that names the holder. It also cleans
// up after a run that was killed, whose last entries may still have the wrong
// owner or not be durable, and whose unfinished work is in the way. The kernel
// releases the lock when the process ends, however it ends. After success the
// caller unlocks; after failure nothing has changed.
func (d *Dir) Lock(ctx context.Context) (unlock func(), err error) {
	f, err := d.openLock()
	if err != nil {
		return nil, d.Wrap(lockName, err)
	}
	if err := d.flock(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	if err := d.claim(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// openLock opens the lock file and refuses anything else in its place: os.Root
// follows symlinks that stay inside, with or without O_NOFOLLOW.
func (d *Dir) openLock() (*os.File, error) {
	if info, err := d.root.Lstat(lockName); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is in the way: expected a regular file, found %s", kind(info.Mode()))
	}
	f, err := d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = d.root.Lstat(lockName); err == nil && !os.SameFile(opened, named) {
			err = errors.New("it was replaced while it was being opened")
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d *Dir) flock(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return d.Wrap(lockName, fmt.Errorf("locking: %w", err))
		}
		select {
		case <-ctx.Done():
			return say.Hint(fmt.Errorf("%w of %s (%s)", ErrLocked, d.base, holder(f)),
				"wait for it to end, or look at it with ps -fp PID; this run changed nothing")
		case <-time.After(lockPoll):
		}
	}
}

// claim records who holds the lock, for those who wait, and cleans up after the
// last holder.
func (d *Dir) claim(f *os.File) error {
	err := f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err == nil {
		err = d.own(lockName)
	}
	if err != nil {
		return d.Wrap(lockName, err)
	}
	if d.parent != nil {
		if err := d.settle(); err != nil {
			return err
		}
	}
	return d.Sweep()
}

func holder(f *os.File) string {
	data, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return "pid unknown"
}
