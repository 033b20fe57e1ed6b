package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Create creates the file name, which must not exist (fs.ErrExist). Its content is
// durable, its name once Sync has been called. After failure there is no such file.
func (d *Dir) Create(name string, data []byte, mode fs.FileMode) error {
	if _, err := d.root.Lstat(name); err == nil {
		return d.Wrap(name, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return d.Wrap(name, err)
	}
	return d.put(name, data, mode)
}

// Replace creates or replaces the file name with data, durably.
func (d *Dir) Replace(name string, data []byte, mode fs.FileMode) error {
	if err := d.put(name, data, mode); err != nil {
		return err
	}
	return d.Sync()
}

// ReplaceVia is Replace with tmp as the path of the temporary file, like LinkVia.
func (d *Dir) ReplaceVia(tmp, name string, data []byte, mode fs.FileMode) error {
	if err := d.putVia(tmp, name, data, mode); err != nil {
		return err
	}
	return d.Sync()
}

func (d *Dir) put(name string, data []byte, mode fs.FileMode) error {
	return d.putVia(TempName(), name, data, mode)
}

func (d *Dir) putVia(tmp, name string, data []byte, mode fs.FileMode) error {
	err := d.write(tmp, data, mode)
	if err == nil {
		err = d.Wrap(name, d.root.Rename(tmp, name))
	}
	if err != nil {
		_ = d.root.Remove(tmp) // if that fails too, the next run removes it
	}
	return err
}

// write creates the file name, which must not exist, with its content durable
// and mode from the first byte.
func (d *Dir) write(name string, data []byte, mode fs.FileMode) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d.Wrap(name, err)
	}
	_, err = f.Write(data)
	if err == nil && d.foreign() {
		err = f.Chown(d.owner.UID, d.owner.GID)
	}
	if err == nil && mode != 0o600 {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return d.Wrap(name, err)
}

// File is a file of a directory to be created.
type File struct {
	Name string
	Data []byte
	Mode fs.FileMode
}

// CreateDir creates the directory name, which must not exist, with mode 0700 and
// these files in it, durably. After a failure or a crash it is there with all its
// files or not at all.
func (d *Dir) CreateDir(name string, files ...File) error {
	tmp := TempName()
	err := d.fill(tmp, files)
	if err == nil {
		err = d.Wrap(".", d.root.Rename(tmp, name))
	}
	if err != nil {
		_ = d.root.RemoveAll(tmp) // if that fails too, the next run removes it
		return err
	}
	return d.Sync()
}

func (d *Dir) fill(tmp string, files []File) error {
	if err := d.root.Mkdir(tmp, 0o700); err != nil {
		return d.Wrap(".", err)
	}
	if err := d.own(tmp); err != nil {
		return err
	}
	for _, f := range files {
		if err := d.write(path.Join(tmp, f.Name), f.Data, f.Mode); err != nil {
			return err
		}
	}
	return d.sync(tmp)
}

// Link makes name a symlink to target by one rename: a reader of name finds what
// was there before or the link, never nothing. It is durable once Sync has been
// called.
func (d *Dir) Link(target, name string) error {
	return d.LinkVia(TempName(), target, name)
}

// LinkVia is Link with tmp as the path of the temporary link, for a directory with
// other people's files in which nothing may be left behind: tmp lies in one below.
func (d *Dir) LinkVia(tmp, target, name string) error {
	if err := d.root.Symlink(target, tmp); err != nil {
		return d.Wrap(name, err)
	}
	err := d.own(tmp)
	if err == nil {
		err = d.root.Rename(tmp, name)
	}
	if err != nil {
		_ = d.root.Remove(tmp) // if that fails too, the next run removes it
		return d.Wrap(name, err)
	}
	return nil
}

// Displace renames the directory name to to, which must be free, and leaves a
// symlink to it in its place, durably. Paths through name never stop working,
// because a link that points at its own name and the directory swap places in one
// step.
func (d *Dir) Displace(name, to string) error {
	if err := d.root.Symlink(to, to); err != nil {
		return d.Wrap(".", err)
	}
	f, err := d.root.Open(".")
	if err != nil {
		return d.Wrap(".", err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Renameat2(fd, name, fd, to, unix.RENAME_EXCHANGE); err != nil {
		_ = d.root.Remove(to)
		return d.Wrap(name, fmt.Errorf("it is a directory where a link belongs, and cannot be moved away: %w", err))
	}
	return d.Wrap(".", f.Sync())
}

// Rename renames from to to and replaces what is there. It is durable once Sync has
// been called.
func (d *Dir) Rename(from, to string) error {
	return d.Wrap(from, d.root.Rename(from, to))
}

// Remove removes a file, a symlink or an empty directory. It is durable once Sync
// has been called.
func (d *Dir) Remove(name string) error {
	return d.Wrap(name, d.root.Remove(name))
}

// RemoveAll removes name, which must exist, and everything below it. No reader
// finds it half removed under that name. It is durable once Sync has been called.
func (d *Dir) RemoveAll(name string) error {
	tmp := TempName()
	if err := d.Rename(name, tmp); err != nil {
		return err
	}
	return d.Wrap(tmp, d.root.RemoveAll(tmp))
}

// Sweep removes the unfinished work of killed runs from the directory. Lock does
// this for its own directory.
func (d *Dir) Sweep() error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, tmpPrefix) {
			if err := d.root.RemoveAll(name); err != nil {
				return d.Wrap(name, err)
			}
		}
	}
	return nil
}

// Sync makes the entries of the directory durable.
func (d *Dir) Sync() error { return d.sync(".") }

func (d *Dir) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return d.Wrap(name, err)
	}
	defer f.Close()
	return d.Wrap(name, f.Sync())
}
