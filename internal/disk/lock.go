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
	"mailu-hook/internal/wait"
)

// ErrLocked means that another run held the lock until ctx ended.
var ErrLocked = errors.New("another run holds the lock")

const (
	lockName = "lock"
	lockPoll = 50 * time.Millisecond
)

// Lock makes this process the only one that changes the directory, by
// [Dir.LockFile], and takes over from a predecessor by [Dir.TakeOver]. After
// success the caller unlocks; after failure what is there is as it was.
func (d *Dir) Lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = d.LockFile(ctx, lockName, d.base)
	if err != nil {
		return nil, err
	}
	if err := d.TakeOver(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// LockFile makes this process the only one that holds the file name, and waits
// for that as long as ctx lasts; then the error is an [ErrLocked] that names the
// holder and what is locked. The kernel releases the lock when the process ends,
// however it ends. The caller unlocks.
func (d *Dir) LockFile(ctx context.Context, name, what string) (unlock func(), err error) {
	for {
		f, err := d.openLock(name)
		if err != nil {
			return nil, d.Wrap(name, err)
		}
		err = d.flock(ctx, f, name, what)
		if err == nil && !d.isNamed(f, name) { // its holder has removed it: others lock another file by now
			f.Close()
			continue
		}
		if err == nil {
			err = d.claim(f, name)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return func() { f.Close() }, nil
	}
}

// isNamed reports whether name still leads to the file that was opened.
func (d *Dir) isNamed(f *os.File, name string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := d.root.Lstat(name)
	return err == nil && os.SameFile(opened, named)
}

// TakeOver completes what a predecessor that was killed left in the directory:
// what it created or linked may belong to the wrong user and be lost with the
// power, and what it left unfinished is in the way. The caller holds the lock.
func (d *Dir) TakeOver() error {
	if d.parent != nil {
		if err := d.settle(); err != nil {
			return err
		}
	}
	return d.Sweep()
}

// openLock opens the lock file, and refuses anything that is put in its place:
// os.Root follows links that stay inside, O_NOFOLLOW or not.
func (d *Dir) openLock(name string) (*os.File, error) {
	if info, err := d.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is in the way: expected a regular file, found %s", kind(info.Mode()))
	}
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if !d.isNamed(f, name) {
		f.Close()
		return nil, errors.New("it was exchanged while it was being opened")
	}
	return f, nil
}

func (d *Dir) flock(ctx context.Context, f *os.File, name, what string) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return d.Wrap(name, fmt.Errorf("locking: %w", err))
		}
		if wait.For(ctx, lockPoll) != nil {
			return say.Hint(fmt.Errorf("%w of %s (%s)", ErrLocked, what, holder(f)),
				"wait for it to end, or look at it on that host: ps -fp PID; nothing was changed by this run")
		}
	}
}

// Locked reports whether a process that lives holds the file name. It waits for
// nothing, and writes nothing.
func (d *Dir) Locked(name string) bool {
	if info, err := d.root.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close() // and with it the lock, should this process have got it
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// claim notes who holds the lock, for anyone who waits.
func (d *Dir) claim(f *os.File, name string) error {
	err := f.Truncate(0)
	if err == nil {
		host, _ := os.Hostname() // one without a name
		_, err = fmt.Fprintf(f, "%d %s\n", os.Getpid(), host)
	}
	if err == nil {
		err = d.own(name)
	}
	return d.Wrap(name, err)
}

// holder is what the file says of who holds it; those who can write it can say anything.
func holder(f *os.File) string {
	data, _ := io.ReadAll(io.NewSectionReader(f, 0, 100))
	number, host, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	pid, err := strconv.Atoi(number)
	switch {
	case err != nil:
		return "pid unknown"
	case host == "":
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d on %s", pid, say.Plain(host))
}
