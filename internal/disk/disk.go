// Package disk changes directories whose content must not be lost. Each change
// happens completely or not at all: for concurrent readers, after kill -9 at any
// instruction, and after a power loss.
//
// A file, a directory of files or a link gets its name by one rename(2), after
// its content is complete and durable. Files are private from their first byte,
// and what root creates belongs to the owner of the directory. All access goes
// through [os.Root], so no symlink placed in the directory leads out of it; a
// symlink in place of a directory or the lock is refused, even if it is swapped
// in at the last moment. Unfinished work of a killed run has a temporary name,
// and the next holder of the lock removes it.
//
// Limits: a change survives a power loss once Sync has been called, or if the
// method says that it is durable; a disk that lies about fsync(2) voids that. Two
// changes are two steps, and a crash or a reader can come between them. The lock
// binds only those that take it.
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
)

const tmpPrefix = "tmp-" // unfinished work, removed by the next run

// TempName returns a new name of the kind that Sweep removes.
func TempName() string { return tmpPrefix + rand.Text()[:12] }

// Dir is an open directory. Its methods take names of its own entries unless
// they say otherwise, and their errors are of type [*Error]. Anyone who changes
// anything must hold the lock of the Dir or of one above it.
type Dir struct {
	root   *os.Root
	base   string // path by which the topmost directory was opened
	name   string // of this one below base
	parent *Dir   // nil for the topmost
	owner  Owner  // of what root creates
}

// Owner is the user and group that a file belongs to.
type Owner struct{ UID, GID int }

// OwnerFor returns whom new files beside the file name in the directory dir will belong
// to: the owner of the directory, or if that is root, the owner of the file, which may
// have been given to someone who can read nothing else. Without root's rights, it is
// the user who asks.
func OwnerFor(dir, name string) (Owner, error) {
	d, err := Open(dir)
	if err != nil {
		return Owner{}, err
	}
	defer d.Close()
	d.Follow(name)
	if os.Geteuid() != 0 {
		return Owner{os.Geteuid(), os.Getegid()}, nil
	}
	return d.owner, nil
}

// Follow makes new files belong to the owner of the entry name, as OwnerFor says. A link
// counts as what it leads to within the directory.
func (d *Dir) Follow(name string) {
	if d.owner.UID != 0 {
		return
	}
	if info, err := d.root.Stat(name); err == nil {
		d.owner = ownerOf(info)
	}
}

func ownerOf(info os.FileInfo) Owner {
	stat := info.Sys().(*syscall.Stat_t)
	return Owner{int(stat.Uid), int(stat.Gid)}
}

// Open opens the directory path. Symlinks in the path are followed: they are the
// administrator's. It writes nothing. If the directory is missing, the error is
// that of [os.OpenRoot], and the caller knows what that means. The caller closes
// the Dir.
func Open(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, base: path, name: "."}
	info, err := root.Stat(".")
	if err != nil {
		d.Close()
		return nil, d.Wrap(".", fmt.Errorf("reading its owner: %w", err))
	}
	d.owner = ownerOf(info)
	return d, nil
}

// Close releases the directory. Directories opened from it stay open, but can no
// longer be locked. Closing twice is harmless.
func (d *Dir) Close() { d.root.Close() }

// Path is the path of the directory, starting with the one given to Open.
func (d *Dir) Path() string {
	if d.parent == nil {
		return d.base
	}
	return path.Join(d.base, d.name)
}

// OpenDir opens the directory name and refuses a symlink, even if it is swapped in
// at the last moment. The caller closes the Dir.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	root, err := openRoot(d.root, name)
	if err != nil {
		return nil, d.Wrap(name, err)
	}
	return &Dir{root: root, base: d.base, name: path.Join(d.name, name), parent: d, owner: d.owner}, nil
}

func openRoot(parent *os.Root, name string) (*os.Root, error) {
	want, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !want.IsDir() {
		return nil, fmt.Errorf("%s is in the way: expected a directory, found %s", name, kind(want.Mode()))
	}
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	got, err := root.Stat(".")
	if err == nil && !os.SameFile(want, got) {
		err = fmt.Errorf("%s was replaced while it was being opened", name)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// MakeDir creates the directory name if it is missing, durably and with mode 0700,
// and opens it. The caller closes the Dir.
func (d *Dir) MakeDir(name string) (*Dir, error) {
	if err := d.Mkdir(name); err != nil {
		return nil, err
	}
	made, err := d.OpenDir(name)
	if err != nil {
		return nil, err
	}
	if err := made.settle(); err != nil {
		made.Close()
		return nil, err
	}
	return made, nil
}

// Mkdir creates the directory name with mode 0700 if nothing has that name. Unlike
// MakeDir it may be called without the lock, for a directory that holds the lock
// itself: Lock does the rest.
func (d *Dir) Mkdir(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return d.Wrap(name, err)
	}
	return nil
}

// settle completes what Mkdir began, in this run or in one that was killed.
func (d *Dir) settle() error {
	if err := d.own("."); err != nil {
		return err
	}
	return d.parent.Sync()
}

// own gives a directory or link to the owner of new files.
// Only root can, and only root needs to.
func (d *Dir) own(name string) error {
	if !d.foreign() {
		return nil
	}
	return d.Wrap(name, d.root.Lchown(name, d.owner.UID, d.owner.GID))
}

func (d *Dir) foreign() bool {
	return os.Geteuid() == 0 && d.owner != Owner{}
}
