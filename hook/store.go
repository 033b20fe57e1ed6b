package hook

import (
	"cmp"
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
	homeName = ".mailu-hook" // ours; everything else but the two names belongs to others
	liveName = "live"        // in home: link to the generation that the front reads
	certFile = "cert.pem"    // in each generation
	keyFile  = "key.pem"
)

// Store is the certs directory of a front: the two names that the front reads, and
// under .mailu-hook the generations that they lead to.
//
//	cert.pem -> .mailu-hook/live/cert.pem
//	key.pem  -> .mailu-hook/live/key.pem
//	.mailu-hook/live -> 20261123T150536Z-3076aa61
//
// It is changed as package disk promises: no symlink placed in the directory is
// followed out of it, and new files belong to its owner, or where that is root, to the
// owner of the key that is there. If the disk fails, the
// error is a [*disk.Error], and the two names lead to what they led to before the
// step that failed.
//
// What is remembered of the deploys lies elsewhere, in the state directory: what
// root acts on must not be where the front can write.
type Store struct {
	certs             *disk.Dir
	home              *disk.Dir // nil until .mailu-hook exists
	certName, keyName string
	ledger            *ledger
	certbotDir        string
	node              string // of this host
}

// Place says where a store is.
type Place struct {
	CertsDir          string
	CertName, KeyName string // both "": Mailu's defaults
	StateDir          string // "": mailu.DefaultStateDir
	CertbotDir        string // "": /etc/letsencrypt; lineages that older versions remembered are believed if they are below it
	Node              string // what other hosts that share the directory know this one by; "": what the host calls itself
}

// OpenStore opens a certs directory, whose links in the path itself are followed:
// they are the administrator's. It writes nothing. The caller closes the store.
func OpenStore(p Place) (*Store, error) {
	dir := p.CertsDir
	certName, keyName := p.CertName, p.KeyName
	if certName == "" && keyName == "" {
		certName, keyName = mailu.DefaultCertName, mailu.DefaultKeyName
	}
	for _, name := range []string{certName, keyName} {
		if !mailu.PlainName(name) || name == homeName {
			return nil, say.Hint(fmt.Errorf("the front reads %q, which is not a file directly in %s", name, dir),
				"set TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME in mailu.env to plain file names such as cert.pem and key.pem")
		}
	}
	if certName == keyName {
		return nil, say.Hint(fmt.Errorf("the front reads the certificate and the key from the same file, %q", certName),
			"set TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME to different names in mailu.env")
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
	certs.Follow(keyName)
	s := &Store{certs: certs, certName: certName, keyName: keyName, certbotDir: cmp.Or(p.CertbotDir, mailu.DefaultCertbotDir), node: nodeNamed(p.Node)}
	if s.ledger, err = openLedger(cmp.Or(p.StateDir, mailu.DefaultStateDir), dir); err != nil {
		s.Close()
		return nil, err
	}
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
	if s.ledger != nil {
		s.ledger.close()
	}
}

// Used reports whether anything was ever deployed here.
// That includes a certs directory of which only the two links are left, as in a
// backup without dot files.
func (s *Store) Used() bool {
	return s.home != nil || s.isLink(s.certName, certFile) || s.isLink(s.keyName, keyFile)
}

// Dir is the path that the store was opened with.
func (s *Store) Dir() string { return s.certs.Path() }

// openHome opens .mailu-hook if it is a directory, and not if it is a link to one.
func (s *Store) openHome() (err error) {
	s.home, err = s.certs.OpenDir(homeName)
	return err
}

// Lock makes this process the only one that changes the store, on this host and, as
// [Store.lockNodes] says, on all that share it. It waits until ctx ends; the error is
// then a [disk.ErrLocked]. It creates .mailu-hook if that is missing. The kernel
// releases the lock when the process ends, however it ends. After success the caller
// unlocks; after failure the store is unchanged.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) {
	unlockHost, err := s.ledger.lock(ctx)
	if err != nil {
		return nil, err
	}
	unlockNodes, err := s.lockHome(ctx)
	if err != nil {
		unlockHost()
		return nil, err
	}
	return func() { unlockNodes(); unlockHost() }, nil
}

// Locked reports whether a run that lives holds the lock.
func (s *Store) Locked() bool {
	return s.ledger.dir != nil && s.ledger.dir.Locked(s.ledger.lockFile())
}

// lockHome makes .mailu-hook where it is missing, locks it, and completes what a run
// that was killed left in it: a generation, or the live link, that a power loss could
// still take away.
func (s *Store) lockHome(ctx context.Context) (unlock func(), err error) {
	if s.home != nil { // another run may have removed it since it was opened
		s.home.Close()
	}
	if err := s.certs.Mkdir(homeName); err != nil {
		return nil, err
	}
	if err := s.openHome(); err != nil {
		return nil, err
	}
	unlock, err = s.lockNodes(ctx)
	if err != nil {
		return nil, err
	}
	if err = s.home.TakeOver(); err == nil {
		err = s.home.Sync()
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}
