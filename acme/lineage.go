package acme

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

const (
	liveName    = "live"
	archiveName = "archive"
	renewalName = "renewal"
	recordFile  = "state.json"
	stamp       = "20060102T150405Z"

	recordVersion = 1
)

// Lineage is a certificate with its predecessors and what is recorded about its
// renewal.
type Lineage struct {
	Name string
	Record
	Leaf *x509.Certificate // the live one; nil before the first issuance

	state *State
}

// Record is what is stored about a lineage in renewal/NAME/state.json. Everything
// but the waiting times can be found out again.
type Record struct {
	Version   int       `json:"version"`
	Directory string    `json:"directory"` // of the CA that issued the live certificate
	Names     []string  `json:"names"`     // that were requested
	Key       KeyType   `json:"key_type"`
	Profile   string    `json:"profile,omitempty"`
	Former    *Former   `json:"former,omitempty"` // the previous, different request
	Issued    time.Time `json:"issued,omitzero"`  // by this host's clock
	Info      *Info     `json:"renewal_info,omitempty"`
	NextSeen  time.Time `json:"next_key_seen,omitzero"` // since when the prepared key has been published

	Ran time.Time `json:"ran,omitzero"` // the last time that the lineage was looked at

	Tried    *Former   `json:"tried,omitempty"`    // the request that failed last
	Failures int       `json:"failures,omitempty"` // of it, in a row
	Failure  string    `json:"failure,omitempty"`  // of the last try
	Next     time.Time `json:"next,omitzero"`      // before which it is not tried automatically

	Limits map[string]Limited `json:"limits,omitempty"` // by directory of the CA
	Missed *Missed            `json:"missed,omitempty"` // names that the live certificate lacks
}

// Limited says that a CA accepts no request for some time.
type Limited struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// Missed says why names were left out of a certificate and when to try them again.
type Missed struct {
	Times  int       `json:"times"` // in a row
	Reason string    `json:"reason"`
	Next   time.Time `json:"next"`
}

// Former is an earlier request, as far as it is recorded.
type Former struct {
	Directory string   `json:"directory"`
	Names     []string `json:"names"`
	Key       KeyType  `json:"key_type"`
	Profile   string   `json:"profile,omitempty"`
}

// recorded is what a record keeps of a request.
func recorded(want Request) *Former {
	return &Former{want.Directory, want.Names, want.Key, want.Profile}
}

func (f *Former) is(want Request) bool {
	return f != nil && f.Directory == want.Directory && want.sameNames(f.Names) && f.Key == want.Key && f.Profile == want.Profile
}

// Lineage reads what is stored under a name. A lineage that does not exist has no
// leaf; damaged files are an error, and so is the record of a newer mailu-hook, which
// this one would write without what it does not know.
func (s *State) Lineage(name string) (*Lineage, error) {
	l := &Lineage{Name: name, state: s}
	err := l.inRenewal(s.open, l.readRecord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if l.Leaf, err = s.liveLeaf(name); err != nil {
		return nil, err
	}
	return l, nil
}

// Live is the directory with its four files, laid out like certbot's.
func (l *Lineage) Live() string { return filepath.Join(l.state.root.Path(), liveName, l.Name) }

func (s *State) liveLeaf(name string) (*x509.Certificate, error) {
	dir, err := s.openLive(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	data, err := dir.Read("cert.pem")
	if err != nil {
		return nil, err
	}
	chain, err := pki.ParseChain(data)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("%s/cert.pem: damaged: %w", dir.Path(), err),
			"restore it from a backup, or remove %s/%s/%s: the next run then obtains a new certificate", s.root.Path(), liveName, name)
	}
	return chain[0], nil
}

// openLive opens the generation that live/NAME points to.
func (s *State) openLive(name string) (*disk.Dir, error) {
	live, err := s.open(liveName)
	if err != nil {
		return nil, err
	}
	defer live.Close()
	target, err := live.Readlink(name)
	if err != nil {
		return nil, err
	}
	return s.open(archiveName, name, path.Base(target))
}

// readRecord reads the Record. Its version is read alone first: the rest of a newer one
// may have another shape.
func (l *Lineage) readRecord(dir *disk.Dir) error {
	var by struct {
		Version int `json:"version"`
	}
	if err := readJSON(dir, recordFile, &by); err != nil {
		return err
	}
	if by.Version > recordVersion {
		return say.Hint(fmt.Errorf("%s/%s: written by a newer mailu-hook (version %d)", dir.Path(), recordFile, by.Version),
			"install the newer mailu-hook again, or remove the file: the next run recreates it")
	}
	return readJSON(dir, recordFile, &l.Record)
}

// record writes the Record.
func (l *Lineage) record() error {
	l.Version = recordVersion
	return l.inRenewal(l.state.make, func(dir *disk.Dir) error { return writeJSON(dir, recordFile, l.Record) })
}

// inRenewal runs work on renewal/NAME. open is State.open, with which the error wraps
// fs.ErrNotExist if the directory is missing, or State.make.
func (l *Lineage) inRenewal(open func(...string) (*disk.Dir, error), work func(*disk.Dir) error) error {
	dir, err := open(renewalName, l.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return work(dir)
}

// install makes chain and key live. After a crash live/NAME points to the old
// generation or to the complete new one.
func (l *Lineage) install(chain []*x509.Certificate, key crypto.Signer) error {
	leaf := chain[0]
	if l.Leaf != nil && l.Leaf.Equal(leaf) {
		return nil // an earlier run got this far
	}
	archive, err := l.state.make(archiveName, l.Name)
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := archive.Sweep(); err != nil {
		return err
	}
	gen, err := stage(archive, chain, key)
	if err == nil {
		err = l.lead(gen)
	}
	if err == nil {
		l.Leaf = leaf
	}
	return err
}

// stage writes a generation, unless a run that was killed before making it live
// already did: a generation is complete or absent.
func stage(archive *disk.Dir, chain []*x509.Certificate, key crypto.Signer) (gen string, err error) {
	names, err := archive.Names()
	if err != nil {
		return "", err
	}
	suffix := "-" + pki.Fingerprint(chain[0])[:16]
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasSuffix(name, suffix) }); i >= 0 {
		return names[i], archive.Sync()
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return "", err
	}
	gen = time.Now().UTC().Format(stamp) + suffix
	return gen, archive.CreateDir(gen,
		disk.File{Name: "privkey.pem", Data: keyPEM, Mode: 0o600},
		disk.File{Name: "cert.pem", Data: pki.EncodeChain(chain[0]), Mode: 0o644},
		disk.File{Name: "chain.pem", Data: pki.EncodeChain(chain[1:]...), Mode: 0o644},
		disk.File{Name: "fullchain.pem", Data: pki.EncodeChain(chain...), Mode: 0o644},
	)
}

// lead points live/NAME to a generation. The temporary link lies in the state
// directory itself, where Lock sweeps: in live/ a host may be named tmp-1.
func (l *Lineage) lead(gen string) error {
	live, err := l.state.make(liveName)
	if err != nil {
		return err
	}
	defer live.Close()
	if err := l.state.root.LinkVia(disk.TempName(), path.Join("..", archiveName, l.Name, gen), path.Join(liveName, l.Name)); err != nil {
		return err
	}
	return live.Sync()
}

const keptGenerations = 5

// prune removes all generations except the live one and the newest five.
func (l *Lineage) prune() error {
	live, err := l.state.open(liveName)
	if err != nil {
		return err
	}
	defer live.Close()
	target, err := live.Readlink(l.Name)
	if err != nil {
		return err
	}
	archive, err := l.state.open(archiveName, l.Name)
	if err != nil {
		return err
	}
	defer archive.Close()
	names, err := archive.Names()
	if err != nil {
		return err
	}
	for _, name := range names[:max(0, len(names)-keptGenerations)] {
		if name == path.Base(target) {
			continue
		}
		if err := archive.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// key is the private key of the live generation.
func (l *Lineage) key() (crypto.Signer, error) {
	dir, err := l.state.openLive(l.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readKey(dir, "privkey.pem")
}

// missing returns the names that the leaf does not list literally.
func missing(leaf *x509.Certificate, names []string) []string {
	have := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		have = append(have, ip.String())
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(have, name) })
}
