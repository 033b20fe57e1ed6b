package hook

import (
	"errors"
	"fmt"
	"path"
	"syscall"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
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
	id := "00000000"
	if cert, key, err := s.read(liveName); err == nil {
		if leaf := leafOf(cert, key); leaf != nil {
			id = pki.Fingerprint(leaf)
		}
	}
	gen, err := s.freeName(id)
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

// TryLink finds out whether the file system of the certs directory has symbolic
// links, without which no deploy is possible. It leaves nothing behind.
func (s *Store) TryLink() error {
	if s.certs.HasLinks() { // without touching it
		return nil
	}
	dir := s.certs
	name := ".mailu-hook-" + disk.TempName()
	if s.home != nil {
		dir, name = s.home, disk.TempName()
	}
	err := dir.Link("nowhere", name)
	if err == nil {
		return dir.Remove(name)
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP) {
		return say.Hint(fmt.Errorf("%s is on a file system without symbolic links (%s), which mailu-hook needs to switch both files at once: %w", s.Dir(), s.certs.FileSystem(), err),
			"move ROOT/certs to a file system such as ext4, xfs or btrfs, and mount it at /certs")
	}
	return err
}
