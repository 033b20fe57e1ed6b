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
)

// Lineage is a certificate and its predecessors, with what is known of its
// renewal.
type Lineage struct {
	Name string
	Record
	Leaf *x509.Certificate // that is live; nil before the first

	state *State
}

// Record is what is remembered of a lineage, in renewal/NAME/state.json. All but
// the waiting times can be found again.
type Record struct {
	Version   int       `json:"version"`
	Directory string    `json:"directory"` // of the CA that issued the live one
	Names     []string  `json:"names"`     // that were asked for
	Key       KeyType   `json:"key_type"`
	Profile   string    `json:"profile,omitempty"`
	Former    *Former   `json:"former,omitempty"` // the last request that was another one
	Issued    time.Time `json:"issued,omitzero"`  // by this host's clock
	Info      *Info     `json:"renewal_info,omitempty"`
	NextSeen  time.Time `json:"next_key_seen,omitzero"` // since when the prepared key is published

	Failures int       `json:"failures,omitempty"` // in a row
	Failure  string    `json:"failure,omitempty"`  // the last
	Next     time.Time `json:"next,omitzero"`      // before which no try is made unasked
	Limited  time.Time `json:"limited,omitzero"`   // before which the CA takes none
}

// Former is a request whose certificate that of another request has replaced.
type Former struct {
	Directory string   `json:"directory"`
	Names     []string `json:"names"`
	Key       KeyType  `json:"key_type"`
	Profile   string   `json:"profile,omitempty"`
}

func (f *Former) is(want Request) bool {
	return f != nil && f.Directory == want.Directory && want.sameNames(f.Names) && f.Key == want.Key && f.Profile == want.Profile
}

// Lineage reads what is kept under a name. A lineage that is not there has no
// leaf; what is damaged is an error.
func (s *State) Lineage(name string) (*Lineage, error) {
	l := &Lineage{Name: name, state: s}
	dir, err := s.open(renewalName, name)
	if err == nil {
		defer dir.Close()
		err = readJSON(dir, recordFile, &l.Record)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if l.Leaf, err = s.liveLeaf(name); err != nil {
		return nil, err
	}
	return l, nil
}

// Live is the directory of its four files, to be read as certbot's.
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
			"restore it from a backup, or remove %s/%s/%s: the next run obtains another certificate", s.root.Path(), liveName, name)
	}
	return chain[0], nil
}

// openLive opens the generation that live/NAME leads to.
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

// record replaces what is remembered.
func (l *Lineage) record() error {
	dir, err := l.state.make(renewalName, l.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	l.Version = 1
	return writeJSON(dir, recordFile, l.Record)
}

// install makes chain and key the live ones. After a crash live/NAME leads to the
// old generation or to the new one, which is whole.
func (l *Lineage) install(chain []*x509.Certificate, key crypto.Signer) error {
	leaf := chain[0]
	if l.Leaf != nil && l.Leaf.Equal(leaf) {
		return nil // a run before this one got as far
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

// stage writes a generation, unless a run that was killed before it was live has
// done so: it is there whole or not at all.
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

// lead makes live/NAME lead to a generation. The temporary link is one of the
// state directory itself, where Lock sweeps: a host may well be named tmp-1.
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

// prune removes all generations but the live one and the newest.
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

// missing are those of names that the leaf does not hold word for word.
func missing(leaf *x509.Certificate, names []string) []string {
	have := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		have = append(have, ip.String())
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(have, name) })
}
