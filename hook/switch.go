package hook

import (
	"path"

	"mailu-hook/internal/disk"
)

// Switch makes gen live: by the one rename(2) of the live link if the two names
// are already ours, and then by one for each name that is not yet. A reader of
// either name meets the old file or the new one at every moment; after a crash
// the names lead to one of the two. When Switch returns nil the change is
// durable. The caller holds the lock.
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

// freeLive makes way for the live link where a directory stands in its place,
// as in a tree that was copied with its links followed (rsync -L, cp -rL). What
// the two names lead to stays readable.
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
