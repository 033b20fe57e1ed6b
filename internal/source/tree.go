package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"mailu-hook/internal/disk"
)

// tree is the directories within which the links of a source are followed.
type tree []string

// read reads a file that lies in the tree once its links are resolved. It is
// opened by way of the directory that it lies in, so that a link which is put in
// its place meanwhile leads no further.
func (t tree) read(name string) ([]byte, error) {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, failed(name, dangling(name, err))
	}
	for _, dir := range t {
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			continue
		}
		if rel, err := filepath.Rel(dir, target); err == nil && filepath.IsLocal(rel) {
			data, err := readIn(dir, rel)
			if err != nil {
				return nil, failed(name, err)
			}
			return data, nil
		}
	}
	return nil, failed(name, &OutsideError{target})
}

func readIn(dir, name string) ([]byte, error) {
	d, err := disk.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Read(name)
}

// OutsideError means that a link of a source leads out of its tree.
type OutsideError struct{ Target string }

func (e *OutsideError) Error() string {
	return fmt.Sprintf("a link that leads out of its directory, to %s", e.Target)
}

// DanglingError means that a link of a source leads to nothing: in a container, to what
// was not mounted.
type DanglingError struct{ Target string }

func (e *DanglingError) Error() string {
	return fmt.Sprintf("a link to %s, which does not exist here", e.Target)
}

// Is makes it an fs.ErrNotExist: a client that is replacing its files may bring it back.
func (e *DanglingError) Is(target error) bool { return target == fs.ErrNotExist }

// dangling tells a link that leads to nothing from a file that is not there.
func dangling(name string, err error) error {
	if target, lerr := os.Readlink(name); lerr == nil && errors.Is(err, fs.ErrNotExist) {
		return &DanglingError{target}
	}
	return err
}
