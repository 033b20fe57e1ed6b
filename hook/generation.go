package hook

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
)

// Generation is one installed pair: a directory of its own under .mailu-hook
// that is written once, renamed into place when it is complete, and never
// changed.
type Generation string

var generationName = regexp.MustCompile(`^\d{8}T\d{6}Z-[0-9a-f]{8}$`)

// Pair is what the front's two names lead to. Leaf is nil when no server could
// use it: a half of a pair, a key of another certificate, damaged bytes.
type Pair struct {
	Leaf *x509.Certificate

	cert, key []byte
	found     bool // at least one of the two names leads to a file
	inHome    bool // both names are our links
}

// Holds tells whether the pair is the one that b would install.
func (p Pair) Holds(b *Bundle) bool {
	return p.Leaf != nil && string(p.cert) == string(b.certPEM) && string(p.key) == string(b.keyPEM)
}

// Installed reads the pair that the front would read now. A name that leads
// nowhere, or out of the certs directory as this host sees it, counts as absent.
// The error is of the disk, not of the pair.
func (s *Store) Installed() (Pair, error) {
	cert, certErr := s.certs.Read(s.certName)
	key, keyErr := s.certs.Read(s.keyName)
	if certErr != nil && !s.absent(s.certName, certErr) {
		return Pair{}, certErr
	}
	if keyErr != nil && !s.absent(s.keyName, keyErr) {
		return Pair{}, keyErr
	}
	p := Pair{cert: cert, key: key, found: cert != nil || key != nil}
	p.inHome = s.isLink(s.certName, certFile) && s.isLink(s.keyName, keyFile)
	p.Leaf = leafOf(cert, key)
	return p, nil
}

// leafOf is the leaf of a pair that a TLS server can load, else nil.
func leafOf(cert, key []byte) *x509.Certificate {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil
	}
	return pair.Leaf
}

// absent tells whether a name that could not be read is one that a rename may
// replace: there is nothing, or a link that leads nowhere in this directory.
func (s *Store) absent(name string, err error) bool {
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	info, lerr := s.certs.Lstat(name)
	return lerr == nil && info.Mode()&fs.ModeSymlink != 0
}

func (s *Store) isLink(name, file string) bool {
	target, err := s.certs.Readlink(name)
	return err == nil && target == linkTarget(file)
}

func linkTarget(file string) string { return path.Join(homeName, liveName, file) }

// Live is the generation that is live, "" if none is.
func (s *Store) Live() Generation {
	if s.home == nil {
		return ""
	}
	target, err := s.home.Readlink(liveName)
	if err != nil || !generationName.MatchString(target) {
		return ""
	}
	return Generation(target)
}

// Stage writes b as a new generation, durable and complete, that nothing leads
// to yet. After a crash at any moment the next run finds either the whole
// generation or something that it sweeps. The caller holds the lock.
func (s *Store) Stage(b *Bundle) (Generation, error) {
	return s.stage(b.certPEM, b.keyPEM, b.Fingerprint())
}

func (s *Store) stage(cert, key []byte, id string) (Generation, error) {
	gen, err := s.freeName(id)
	if err != nil {
		return "", err
	}
	var files []disk.File
	if cert != nil {
		files = append(files, disk.File{Name: certFile, Data: cert, Mode: 0o644})
	}
	if key != nil {
		files = append(files, disk.File{Name: keyFile, Data: key, Mode: 0o600})
	}
	if err := s.home.CreateDir(string(gen), files...); err != nil {
		return "", err
	}
	return gen, nil
}

const stamp = "20060102T150405Z"

// freeName names a generation by the time and its leaf. Names sort by age, also
// of those made in one second or before the clock was set back.
func (s *Store) freeName(id string) (Generation, error) {
	gens, err := s.Generations()
	if err != nil {
		return "", err
	}
	at := time.Now().UTC()
	if n := len(gens); n > 0 {
		newest, err := time.Parse(stamp, string(gens[n-1][:len(stamp)]))
		if err == nil && !at.Truncate(time.Second).After(newest) {
			at = newest.Add(time.Second)
		}
	}
	return Generation(fmt.Sprintf("%s-%.8s", at.Format(stamp), id)), nil
}

// Adopt makes a generation of the pair that is installed, and each of the two
// names a link to the same bytes, so that no step shows a mismatch. It returns
// that generation, "" when there is nothing to go back to: no file, or a pair
// that no server can load. Files that are not ours are kept as a generation
// even then. The caller holds the lock.
func (s *Store) Adopt(p Pair) (Generation, error) {
	if err := s.freeLive(); err != nil {
		return "", err
	}
	if p.inHome {
		if p.Leaf == nil {
			return "", nil
		}
		return s.Live(), nil
	}
	if !p.found {
		return "", nil
	}
	if p.Leaf == nil {
		_, err := s.keep(p)
		return "", err
	}
	gen, err := s.stage(p.cert, p.key, pki.Fingerprint(p.Leaf))
	if err != nil {
		return "", err
	}
	return gen, s.Switch(gen)
}

// keep saves what is about to be replaced and is no pair: those files of it
// that are not in a generation already.
func (s *Store) keep(p Pair) (Generation, error) {
	if s.isLink(s.certName, certFile) {
		p.cert = nil
	}
	if s.isLink(s.keyName, keyFile) {
		p.key = nil
	}
	if p.cert == nil && p.key == nil {
		return "", nil
	}
	sum := sha256.Sum256(p.cert)
	return s.stage(p.cert, p.key, hex.EncodeToString(sum[:]))
}

// Find returns the generation that holds exactly b, the live one first and then
// the newest, "" if none does.
func (s *Store) Find(b *Bundle) (Generation, error) {
	gens, err := s.Generations()
	if err != nil {
		return "", err
	}
	slices.Reverse(gens)
	if live := s.Live(); live != "" {
		gens = slices.Insert(gens, 0, live)
	}
	for _, gen := range gens {
		if cert, key, err := s.read(gen); err == nil && string(cert) == string(b.certPEM) && string(key) == string(b.keyPEM) {
			return gen, nil
		}
	}
	return "", nil
}

// read reads the files of a generation, and none that a link leads to. Its error
// names the generation, which is of no use without either file.
func (s *Store) read(gen Generation) (cert, key []byte, err error) {
	dir, err := s.home.OpenDir(string(gen))
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	if cert, err = dir.Read(certFile); err == nil {
		key, err = dir.Read(keyFile)
	}
	return cert, key, dir.Wrap(".", errors.Unwrap(err))
}

// Generations returns the complete generations, oldest first.
func (s *Store) Generations() ([]Generation, error) {
	if s.home == nil {
		return nil, nil
	}
	names, err := s.home.Names()
	var gens []Generation
	for _, name := range names {
		if generationName.MatchString(name) {
			gens = append(gens, Generation(name))
		}
	}
	return gens, err
}

// Prune removes all but the newest keep generations, and never one of spare or
// the live one. A generation that is half removed by a crash is one that
// nothing leads to. The caller holds the lock.
func (s *Store) Prune(keep int, spare ...Generation) error {
	gens, err := s.Generations()
	if err != nil {
		return err
	}
	spared := map[Generation]bool{s.Live(): true}
	for _, gen := range spare {
		spared[gen] = true
	}
	for i, gen := range gens {
		if i >= len(gens)-keep || spared[gen] {
			continue
		}
		if err := s.home.RemoveAll(string(gen)); err != nil {
			return err
		}
	}
	return nil
}
