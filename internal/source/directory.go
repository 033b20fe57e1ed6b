package source

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	deepest   = 2 // directories below the one that was named: Caddy's certificates/CA/NAME
	mostFiles = 1000
	mostBytes = 32 << 20
)

// directory is any directory of PEM files: as acme.sh, lego, Caddy, dehydrated,
// getssl, acme-companion or a secret of Kubernetes have it. What is a key, a leaf or
// a chain is told by what the files hold. Names that begin with a dot are left out:
// those of Kubernetes are what the visible links lead to.
var directory = kind{
	name: "a directory of PEM files",
	is:   func(_ Source, at look) bool { return at.dir && !at.names && !at.live },
	read: func(_ context.Context, src Source) ([]Pair, error) {
		s := search{within: treeOf(src.Lineage)}
		if err := s.dir(src.Lineage, 0); err != nil {
			return nil, err
		}
		all := s.found.pairs(src.Lineage)
		if len(all) > 0 {
			return all, nil
		}
		if s.unreadable != nil {
			return nil, s.unreadable
		}
		return nil, s.found.lack(src.Lineage)
	},
	unfinished: whileIncomplete,
}

// search looks through a directory.
type search struct {
	within       tree
	found        collection
	files, bytes int
	unreadable   error // the first file that could not be read
}

func (s *search) dir(dir string, depth int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return failed(dir, err)
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		switch {
		case strings.HasPrefix(entry.Name(), "."):
		case entry.IsDir() && depth < deepest:
			if err := s.dir(name, depth+1); err != nil {
				return err
			}
		case entry.Type().IsRegular(), entry.Type()&fs.ModeSymlink != 0:
			if err := s.file(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *search) file(name string) error {
	if s.files++; s.files > mostFiles || s.bytes > mostBytes {
		return lacks(s.within[0], "name the directory of the one certificate", "it holds more files than that of an ACME client (over %d, or %d MiB)", mostFiles, mostBytes>>20)
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() { // a link to a directory
		return nil
	}
	data, err := s.within.read(name)
	if err != nil {
		if s.unreadable == nil && !errors.Is(err, fs.ErrNotExist) {
			s.unreadable = err
		}
		return nil
	}
	s.bytes += len(data)
	s.found.add(name, data)
	return nil
}
