package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"mailu-hook/internal/front"
	"mailu-hook/internal/say"
)

// Names inside the certs directory.
const (
	homeName  = ".mailu-hook" // ours; everything else but the two names belongs to others
	liveName  = "live"        // in home: link to the generation that the front reads
	lockName  = "lock"
	stateName = "state.json"
	certFile  = "cert.pem" // in each generation
	keyFile   = "key.pem"
	tmpPrefix = "tmp-" // in home: unfinished business, swept by the next run
)

// Store is the certs directory of one front: the two names that the front
// reads, and under .mailu-hook the generations they lead to.
//
//	cert.pem -> .mailu-hook/live/cert.pem
//	key.pem  -> .mailu-hook/live/key.pem
//	.mailu-hook/live -> 20261123T150536Z-3076aa61
//
// All access goes through [os.Root], so no link placed in the directory leads
// outside of it. New files belong to the owner of the certs directory.
type Store struct {
	dir               string
	certName, keyName string
	root              *os.Root
	home              *os.Root // nil until .mailu-hook exists
	uid, gid          int
}

// OpenStore opens the certs directory dir, whose links in the path itself are
// followed: they are the administrator's. It writes nothing. The caller closes
// the store.
func OpenStore(dir, certName, keyName string) (*Store, error) {
	for _, name := range []string{certName, keyName} {
		if !front.PlainName(name) || name == homeName {
			return nil, say.Hint(fmt.Errorf("the front reads %q, which is not a file of %s itself", name, dir),
				"set TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME in mailu.env to plain names such as cert.pem and key.pem")
		}
	}
	if certName == keyName {
		return nil, say.Hint(fmt.Errorf("the front reads certificate and key from one file, %q", certName),
			"give TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME different names in mailu.env")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("opening the certs directory: %w", err),
			"name the directory that the front mounts at /certs: --certs-dir DIR (%s by default)", front.DefaultCertsDir)
	}
	s := &Store{dir: dir, certName: certName, keyName: keyName, root: root}
	if err := s.readOwner(); err != nil {
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
	s.root.Close()
	if s.home != nil {
		s.home.Close()
	}
}

// Used tells whether anything was ever deployed here.
func (s *Store) Used() bool { return s.home != nil }

// Dir is the path by which the store was opened.
func (s *Store) Dir() string { return s.dir }

func (s *Store) readOwner() error {
	info, err := s.root.Stat(".")
	if err != nil {
		return s.wrap(".", fmt.Errorf("reading its owner: %w", err))
	}
	owner := info.Sys().(*syscall.Stat_t)
	s.uid, s.gid = int(owner.Uid), int(owner.Gid)
	return nil
}

// openHome opens .mailu-hook if it is a directory and not a link to one.
func (s *Store) openHome() error {
	home, err := openDir(s.root, homeName)
	if err != nil {
		return s.wrap(homeName, err)
	}
	s.home = home
	return nil
}

// makeHome makes sure that .mailu-hook exists and is open. Whoever gets the lock
// makes it durable, and gives it to its owner.
func (s *Store) makeHome() error {
	if s.home != nil {
		return nil
	}
	if err := s.root.Mkdir(homeName, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return s.wrap(homeName, err)
	}
	return s.openHome()
}

// openDir opens the directory name in parent and refuses a link, even one
// that is put in its place at the last moment.
func openDir(parent *os.Root, name string) (*os.Root, error) {
	want, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !want.IsDir() {
		return nil, fmt.Errorf("%s is in the way: not a directory but %s", name, kind(want.Mode()))
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	got, err := dir.Stat(".")
	if err == nil && !os.SameFile(want, got) {
		err = fmt.Errorf("%s was exchanged while it was being opened", name)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// own gives a directory or link to the owner of the certs directory. Only root
// can, and only root needs to.
func (s *Store) own(in *os.Root, name string) error {
	if !s.foreign() {
		return nil
	}
	return s.wrapIn(in, name, in.Lchown(name, s.uid, s.gid))
}

func (s *Store) foreign() bool {
	return os.Geteuid() == 0 && (s.uid != 0 || s.gid != 0)
}

// sync makes the entries of a directory survive a power loss.
func (s *Store) sync(in *os.Root, name string) error {
	dir, err := in.Open(name)
	if err != nil {
		return s.wrapIn(in, name, err)
	}
	defer dir.Close()
	return s.wrapIn(in, name, dir.Sync())
}

// write creates the file name, which must not exist, with its content durable
// and mode from the first byte.
func (s *Store) write(in *os.Root, name string, data []byte, mode fs.FileMode) error {
	f, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return s.wrapIn(in, name, err)
	}
	_, err = f.Write(data)
	if err == nil && s.foreign() {
		err = f.Chown(s.uid, s.gid)
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
	return s.wrapIn(in, name, err)
}

// link makes name a link to target, by one rename: whoever reads name meets
// what was there before or the link, never nothing.
func (s *Store) link(in *os.Root, target, name string) error {
	tmp := tmpPrefix + randomSuffix()
	if in == s.root {
		tmp = path.Join(homeName, tmp) // leave no litter beside the front's files
	}
	if err := in.Symlink(target, tmp); err != nil {
		return s.wrapIn(in, name, err)
	}
	err := s.own(in, tmp)
	if err == nil {
		err = in.Rename(tmp, name)
	}
	if err != nil {
		_ = in.Remove(tmp) // if that fails too, the next run sweeps it
		return s.wrapIn(in, name, err)
	}
	return nil
}

// wrapIn is wrap for a name in one of the store's two directories.
func (s *Store) wrapIn(in *os.Root, name string, err error) error {
	if in == s.home {
		name = path.Join(homeName, name)
	}
	return s.wrap(name, err)
}

func (s *Store) wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	var disk *StoreError
	if errors.As(err, &disk) {
		return err
	}
	return &StoreError{s.dir, name, err}
}

// StoreError is a failure to read or write the certs directory. What the two
// names lead to is as it was before the step that failed.
type StoreError struct {
	Dir, Name string
	Err       error
}

func (e *StoreError) Error() string {
	err := e.Err
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Sprintf("%s: %v", path.Join(e.Dir, e.Name), err)
}

func (e *StoreError) Unwrap() error { return e.Err }

// Hint is the remedy for the commonest causes.
func (e *StoreError) Hint() string {
	switch {
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EDQUOT):
		return "the file system is full: make room; a deploy needs about 64 KiB"
	case errors.Is(e.Err, syscall.EROFS):
		return "the file system is mounted read-only: mount it read-write, and look at dmesg for why"
	case errors.Is(e.Err, fs.ErrPermission):
		return "run mailu-hook as root, or as the owner of " + e.Dir
	}
	return "look at " + path.Join(e.Dir, e.Name) + " (and at dmesg, if the disk is failing)"
}

// sweep removes what a killed run left unfinished. The caller holds the lock.
func (s *Store) sweep() error {
	names, err := s.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, tmpPrefix) {
			if err := s.home.RemoveAll(name); err != nil {
				return s.wrap(path.Join(homeName, name), err)
			}
		}
	}
	return nil
}

// list returns the names in .mailu-hook, sorted.
func (s *Store) list() ([]string, error) {
	if s.home == nil {
		return nil, nil
	}
	dir, err := s.home.Open(".")
	if err != nil {
		return nil, s.wrap(homeName, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, s.wrap(homeName, err)
}
