package hook

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

// ErrLocked means that another run held the lock for as long as ctx lasted.
var ErrLocked = errors.New("another run holds the lock")

const lockPoll = 50 * time.Millisecond

// Lock makes this process the only one that changes the store, and waits for
// that as long as ctx lasts. It creates .mailu-hook where it is missing. The
// kernel releases the lock when the process ends, however it ends. After
// success the caller unlocks; after failure the store is as it was.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) {
	if err := s.makeHome(); err != nil {
		return nil, err
	}
	f, err := s.openLock()
	if err != nil {
		return nil, s.wrapIn(s.home, lockName, err)
	}
	if err := s.flock(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	if err := s.claim(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// openLock opens the lock file, and refuses anything that is put in its place:
// os.Root follows links that stay inside, O_NOFOLLOW or not.
func (s *Store) openLock() (*os.File, error) {
	if info, err := s.home.Lstat(lockName); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is in the way: not a regular file but %s", kind(info.Mode()))
	}
	f, err := s.home.OpenFile(lockName, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = s.home.Lstat(lockName); err == nil && !os.SameFile(opened, named) {
			err = errors.New("it was exchanged while it was being opened")
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) flock(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return s.wrapIn(s.home, lockName, fmt.Errorf("locking: %w", err))
		}
		select {
		case <-ctx.Done():
			return say.Hint(fmt.Errorf("%w of %s (%s)", ErrLocked, s.dir, holder(f)),
				"wait for it to end, or look at it: ps -fp PID; nothing was changed by this run")
		case <-time.After(lockPoll):
		}
	}
}

// claim notes who holds the lock, for whoever waits, and takes over from a
// predecessor that was killed: what it created or linked in the certs directory
// may belong to the wrong user and be lost with the power, and what it left
// unfinished is in the way.
func (s *Store) claim(f *os.File) error {
	err := f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err == nil {
		err = s.own(s.home, lockName)
	}
	if err != nil {
		return s.wrapIn(s.home, lockName, err)
	}
	if err := s.own(s.home, "."); err != nil {
		return err
	}
	if err := s.sync(s.root, "."); err != nil {
		return err
	}
	return s.sweep()
}

func holder(f *os.File) string {
	data, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return "pid unknown"
}
