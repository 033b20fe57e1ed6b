package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
)

// Error is a failure to read or write a directory. Its content is as it was before
// the step that failed.
type Error struct {
	Dir, Name string // the path given to Open, and the entry below it
	Err       error
}

func (e *Error) Error() string {
	err := e.Err
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Sprintf("%s: %v", path.Join(e.Dir, e.Name), err)
}

func (e *Error) Unwrap() error { return e.Err }

// Hint is the remedy for the most common causes.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EDQUOT):
		return "the file system is full: free some space; a deploy needs about 64 KiB"
	case errors.Is(e.Err, syscall.EROFS):
		return "the file system is mounted read-only: check dmesg for the reason and remount it read-write"
	case errors.Is(e.Err, fs.ErrPermission):
		return "run mailu-hook as root, or as the owner of " + e.Dir + "; root in a container needs CHOWN, DAC_OVERRIDE and FOWNER for it (in compose, cap_add)"
	}
	return "check " + path.Join(e.Dir, e.Name) + " (and dmesg, in case the disk is failing)"
}

// Wrap makes err, for example one about the content of the file name, an [*Error]
// of this directory. It returns an err that is an [*Error] already, or nil, as it
// is.
func (d *Dir) Wrap(name string, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &Error{d.base, path.Join(d.name, name), err}
}
