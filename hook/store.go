package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// Names inside the certs directory.
const (
	homeName  = ".mailu-hook" // ours; everything else but the two names belongs to others
	liveName  = "live"        // in home: link to the generation that the front reads
	stateName = "state.json"
	certFile  = "cert.pem" // in each generation
	keyFile   = "key.pem"
)

// Store is the certs directory of one front: the two names that the front
// reads, and under .mailu-hook the generations they lead to.
//
//	cert.pem -> .mailu-hook/live/cert.pem
//	key.pem  -> .mailu-hook/live/key.pem
//	.mailu-hook/live -> 20261123T150536Z-3076aa61
//
// How it is changed is what package disk promises: no link placed in the
// directory leads outside of it, and new files belong to its owner. Where the
// disk fails, the error is a [*disk.Error], and what the two names lead to is as
// it was before the step that failed.
type Store struct {
	certs             *disk.Dir
	home              *disk.Dir // nil until .mailu-hook exists
	certName, keyName string
}

// OpenStore opens the certs directory dir, whose links in the path itself are
// followed: they are the administrator's. It writes nothing. The caller closes
// the store.
func OpenStore(dir, certName, keyName string) (*Store, error) {
	for _, name := range []string{certName, keyName} {
		if !mailu.PlainName(name) || name == homeName {
			return nil, say.Hint(fmt.Errorf("the front reads %q, which is not a file of %s itself", name, dir),
				"set TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME in mailu.env to plain names such as cert.pem and key.pem")
		}
	}
	if certName == keyName {
		return nil, say.Hint(fmt.Errorf("the front reads certificate and key from one file, %q", certName),
			"give TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME different names in mailu.env")
	}
	certs, err := disk.Open(dir)
	var failed *disk.Error
	if errors.As(err, &failed) {
		return nil, err
	}
	if err != nil {
		return nil, say.Hint(fmt.Errorf("opening the certs directory: %w", err),
			"name the directory that the front mounts at /certs: --certs-dir DIR (%s by default)", mailu.DefaultCertsDir)
	}
	s := &Store{certs: certs, certName: certName, keyName: keyName}
	if err := s.openHome(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close releases the store. Closing twice is harmless.
func (s *Store) Close() {
	s.certs.Close()
	if s.home != nil {
		s.home.Close()
	}
}

// Used tells whether anything was ever deployed here.
func (s *Store) Used() bool { return s.home != nil }

// Dir is the path by which the store was opened.
func (s *Store) Dir() string { return s.certs.Path() }

// openHome opens .mailu-hook if it is a directory and not a link to one.
func (s *Store) openHome() (err error) {
	s.home, err = s.certs.OpenDir(homeName)
	return err
}

// Lock makes this process the only one that changes the store, and waits for
// that as long as ctx lasts; then the error is a [disk.ErrLocked]. It creates
// .mailu-hook where it is missing. The kernel releases the lock when the process
// ends, however it ends. After success the caller unlocks; after failure the
// store is as it was.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) {
	if s.home == nil {
		if err := s.certs.Mkdir(homeName); err != nil {
			return nil, err
		}
		if err := s.openHome(); err != nil {
			return nil, err
		}
	}
	return s.home.Lock(ctx)
}
