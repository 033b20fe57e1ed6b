// Package disk changes directories whose content has to survive. A change is
// there whole or not at all: for whoever reads meanwhile, after kill -9 at any
// instruction, and after a power loss.
//
// A file, a directory of files or a link gets its name by one rename(2), once
// its content is complete and durable. Files are private from their first byte,
// and what root creates belongs to the owner of the directory. All access goes
// through [os.Root], so no link placed in the directory leads outside of it; in
// the place of a directory or of the lock, a link is refused, even one that is
// put there at the last moment. What a killed run leaves unfinished bears a name
// of its own, and the next holder of the lock sweeps it.
//
// Its limits: a change survives a power loss once Sync was called, or the method
// says that it is durable; a disk that lies about fsync(2) voids that. Two
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

const tmpPrefix = "tmp-" // unfinished business, swept by the next run

// TempName is a new name of the kind that Sweep removes.
func TempName() string { return tmpPrefix + rand.Text()[:12] }

// Dir is an open directory. The names that its methods take are those of its
// own entries, where nothing else is said; their errors are of type [*Error].
// Who changes anything holds the lock of the Dir, or of one above it.
type Dir struct {
	root     *os.Root
	base     string // path by which the topmost directory was opened
	name     string // of this one below base
	parent   *Dir   // nil for the topmost
	uid, gid int    // owner of the topmost
}

// Open opens the directory path, whose links are followed: they are the
// administrator's. It writes nothing. What a missing directory means is the
// caller's to say: the error is then that of [os.OpenRoot]. The caller closes
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
	owner := info.Sys().(*syscall.Stat_t)
	d.uid, d.gid = int(owner.Uid), int(owner.Gid)
	return d, nil
}

// Close releases the directory. One that was opened in it stays open, but cannot
// be locked any more. Closing twice is harmless.
func (d *Dir) Close() { d.root.Close() }

// Path is the path of the directory, beginning as it was given to Open.
func (d *Dir) Path() string {
	if d.parent == nil {
		return d.base
	}
	return path.Join(d.base, d.name)
}

// OpenDir opens the directory name and refuses a link, even one that is put in
// its place at the last moment. The caller closes the Dir.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	root, err := openRoot(d.root, name)
	if err != nil {
		return nil, d.Wrap(name, err)
	}
	return &Dir{root: root, base: d.base, name: path.Join(d.name, name), parent: d, uid: d.uid, gid: d.gid}, nil
}

func openRoot(parent *os.Root, name string) (*os.Root, error) {
	want, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !want.IsDir() {
		return nil, fmt.Errorf("%s is in the way: not a directory but %s", name, kind(want.Mode()))
	}
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	got, err := root.Stat(".")
	if err == nil && !os.SameFile(want, got) {
		err = fmt.Errorf("%s was exchanged while it was being opened", name)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// MakeDir makes sure that the directory name exists, durably, and opens it. A
// new one has mode 0700. The caller closes the Dir.
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

// Mkdir makes the directory name with mode 0700 if nothing has that name. It is
// all of MakeDir that may be done without the lock, for a directory that holds
// the lock itself: Lock does the rest.
func (d *Dir) Mkdir(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return d.Wrap(name, err)
	}
	return nil
}

// settle completes what Mkdir, now or in a run that was killed, has begun.
func (d *Dir) settle() error {
	if err := d.own("."); err != nil {
		return err
	}
	return d.parent.Sync()
}

// own gives a directory or link to the owner of the topmost directory. Only
// root can, and only root needs to.
func (d *Dir) own(name string) error {
	if !d.foreign() {
		return nil
	}
	return d.Wrap(name, d.root.Lchown(name, d.uid, d.gid))
}

func (d *Dir) foreign() bool {
	return os.Geteuid() == 0 && (d.uid != 0 || d.gid != 0)
}
