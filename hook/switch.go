package hook

import (
	"path"

	"mailu-hook/internal/disk"
)

// Switch makes gen live by one rename(2) of the live link, and then replaces each
// of the two names that is not our link yet by one more rename. At any moment a
// reader of either name finds the old file or the new one; after a crash each name
// leads to one of the two. When Switch returns nil, the change is durable. The
// caller holds the lock.
func (s *Store) Switch(gen Generation) error {
	if s.Live() != gen {
		if err := s.home.Link(string(gen), liveName); err != nil {
			return err
		}
		if err := s.home.Sync(); err != nil {
			return err
		}
	}
	return s.linkNames()
}

// freeLive moves away a directory that is in place of the live link, as in a tree
// that was copied with its symlinks followed (rsync -L, cp -rL). The two names stay
// readable.
func (s *Store) freeLive() error {
	if info, err := s.home.Lstat(liveName); err != nil || !info.IsDir() {
		return nil
	}
	gen, err := s.freeName("00000000")
	if err != nil {
		return err
	}
	return s.home.Displace(liveName, string(gen))
}

func (s *Store) linkNames() error {
	changed := false
	for _, n := range [2]struct{ name, file string }{{s.keyName, keyFile}, {s.certName, certFile}} {
		if s.isLink(n.name, n.file) {
			continue
		}
		if err := s.certs.LinkVia(path.Join(homeName, disk.TempName()), linkTarget(n.file), n.name); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return s.certs.Sync()
}
