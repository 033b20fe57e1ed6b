package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mailu-hook/internal/disk"
)

const (
	lineageWait = 2 * time.Second // how long certbot may take to switch its four links
	lineagePoll = 20 * time.Millisecond
)

// Source names the two files that a bundle is read from.
type Source struct {
	Lineage  string // certbot's live/NAME directory, "" when the files were named one by one
	CertFile string
	KeyFile  string
}

// LineageSource is the source that certbot's live directory dir holds.
func LineageSource(dir string) Source {
	dir = filepath.Clean(dir)
	return Source{dir, filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
}

// Read reads and parses the bundle at src.
//
// certbot switches the links of a live directory one at a time, by unlink and
// symlink (certbot/_internal/storage.py, save_successor), so a reader can meet
// a missing link or the halves of two generations. For a lineage Read therefore
// tries again, for two seconds at most, until the pair belongs together.
//
// Every failure but the end of ctx is a *Rejection. Nothing is written.
func Read(ctx context.Context, src Source) (*Bundle, error) {
	deadline := time.Now().Add(lineageWait)
	for {
		b, err := readOnce(src)
		if err == nil || !beingSwitched(src, err) || time.Now().After(deadline) {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reading %s: %w", src.Lineage, context.Cause(ctx))
		case <-time.After(lineagePoll):
		}
	}
}

func readOnce(src Source) (*Bundle, error) {
	cert, err := readFile(src.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := readFile(src.KeyFile)
	if err != nil {
		return nil, err
	}
	return Parse(src, cert, key)
}

// beingSwitched tells whether err may be gone once certbot has finished. It has
// nothing to finish in a directory that is not there.
func beingSwitched(src Source, err error) bool {
	if _, missing := os.Stat(src.Lineage); src.Lineage == "" || missing != nil {
		return false
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMismatch)
}

func readFile(name string) ([]byte, error) {
	data, err := disk.ReadFile(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	return data, nil
}

func unreadable(name string, err error) error {
	remedy := "name the files of a certificate: --lineage DIR, or --cert FILE --key FILE"
	switch {
	case errors.Is(err, fs.ErrPermission):
		remedy = "run mailu-hook as root, as certbot does"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "check the path; 'certbot certificates' lists the lineages of this host"
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &Rejection{File: name, Fact: "cannot be read: " + err.Error(), Remedy: remedy, cause: err}
}
