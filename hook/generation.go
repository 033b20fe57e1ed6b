package hook

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
)

// Generation is one installed pair: a directory under .mailu-hook that is written
// once, renamed into place when it is complete, and never changed.
type Generation string

// LeafID is the beginning of the SHA-256 of the leaf that g was written with.
func (g Generation) LeafID() string { return string(g[strings.LastIndexByte(string(g), '-')+1:]) }

var generationName = regexp.MustCompile(`^\d{8}T\d{6}Z-[0-9a-f]{8}$`)

// Pair is what the front's two names lead to. Leaf is nil if no server could load
// it: half of a pair, a key of another certificate, damaged bytes.
type Pair struct {
	Leaf *x509.Certificate

	cert, key []byte
	found     bool // at least one of the two names leads to a file
	inHome    bool // both names are our links, to a generation that is as we wrote it
}

// Holds reports whether the pair is the one that b would install.
func (p Pair) Holds(b *Bundle) bool {
	return p.Leaf != nil && string(p.cert) == string(b.certPEM) && string(p.key) == string(b.keyPEM)
}

// Installed reads the pair that the front would read now. A name that leads
// nowhere, or out of the certs directory as seen from this host, counts as absent.
// An error is about the disk, not about the pair.
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
	p.Leaf = leafOf(cert, key)
	p.inHome = s.isLink(s.certName, certFile) && s.isLink(s.keyName, keyFile) && (p.Leaf == nil || s.Live().names(p.Leaf))
	return p, nil
}

// names reports whether the generation is named after the leaf. A cp onto one of
// our links writes through it, into the live generation: then what is in it is
// another certificate than its name says, and becomes a generation of its own.
func (g Generation) names(leaf *x509.Certificate) bool {
	return strings.HasSuffix(string(g), "-"+pki.Fingerprint(leaf)[:8])
}

// same reports whether nothing has changed between two looks.
func (p Pair) same(q Pair) bool {
	return string(p.cert) == string(q.cert) && string(p.key) == string(q.key) && p.inHome == q.inHome
}

// leafOf returns the leaf of a pair that a TLS server can load, and nil otherwise. Of
// one that only crypto/x509 cannot parse it is an outline: the pair can be put back.
func leafOf(cert, key []byte) *x509.Certificate {
	if pair, err := tls.X509KeyPair(cert, key); err == nil {
		return pair.Leaf
	}
	leaf := pki.Outline(cert)
	block, _ := pem.Decode(key)
	if leaf == nil || block == nil {
		return nil
	}
	private, err := pki.ParseKey(block)
	if err != nil || !pki.Owns(private.Public(), leaf) {
		return nil
	}
	return leaf
}

// absent reports whether a name that could not be read may be replaced by a
// rename: there is nothing, or a link that does not lead anywhere in this
// directory.
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

// Live returns the generation that is live, "" if there is none.
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

// Switched returns when one of the links that lead to the live generation was last
// replaced: the time of a file, so one that the front may have set, but never in the
// future.
func (s *Store) Switched() (at time.Time) {
	note := func(dir *disk.Dir, name string) {
		if info, err := dir.Lstat(name); err == nil && info.ModTime().After(at) {
			at = info.ModTime()
		}
	}
	if s.home != nil {
		note(s.home, liveName)
	}
	note(s.certs, s.certName)
	note(s.certs, s.keyName)
	if now := time.Now(); at.After(now) {
		return now
	}
	return at
}

// Stage writes b as a new generation, complete and durable, that nothing leads to
// yet. After a crash at any moment the next run finds either the whole generation
// or leftovers that it removes. The caller holds the lock.
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

// freeName names a generation after the time and its leaf. Names sort by age, even
// if two are made in one second or the clock is set back.
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

// Adopt copies the installed pair into a generation and makes each of the two
// names a link to the same bytes, so that no step shows a mismatch. It returns that
// generation, or "" if there is nothing to roll back to: no file, or a pair that no
// server can load. Even then, files that are not ours are kept as a generation. The
// caller holds the lock.
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

// keep saves files that are about to be replaced and are not a pair, as far as they
// are not in a generation already.
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

// Find returns a generation that holds exactly b: the live one if it does, else the
// newest, "" if none does.
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
		if cert, key, err := s.read(gen); err == nil && gen.names(b.Leaf()) && string(cert) == string(b.certPEM) && string(key) == string(b.keyPEM) {
			return gen, nil
		}
	}
	return "", nil
}

// read reads the two files of a generation and refuses a link in its place. Its
// error names the generation, because one file is of no use without the other.
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

// Prune removes all generations but the newest keep, those in spare and the live
// one. If a crash leaves one half removed, nothing leads to it. The caller holds the
// lock.
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
