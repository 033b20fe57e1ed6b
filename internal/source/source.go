// Package source reads a key and its certificates from where an ACME client or
// an administrator keeps them. It knows the ways in which pairs are kept, one file
// and one row of kinds each, and tells them by what is there; whether a pair is any
// good is for package hook to say.
//
// Everything that is read is a regular file of bounded size, opened without
// blocking. The links of a directory are followed only within its own tree, so
// that nobody who can write into one can have another certificate's key read
// from elsewhere. Nothing is written.
package source

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/wait"
)

// Source names the place that a pair is read from.
type Source struct {
	Lineage  string // the directory or file by which it is remembered and read again; "" for what was only shown once
	CertFile string // leaf first; these two are not known before a Lineage was read
	KeyFile  string
	// IssuersFile holds what is above the leaf, if that is not in CertFile.
	IssuersFile string
	Password    string // file with the password of a PKCS#12 file

	shown *[]byte // what was read already
}

// At is the source that a directory or a file holds.
func At(path string) Source { return Source{Lineage: filepath.Clean(path)} }

// Pair is what a source holds: PEM, and the files it was in.
type Pair struct {
	Source
	Cert, Key []byte
	Leaf      *x509.Certificate // as far as it can be told; nil if no certificate can be read
}

// Content is all pairs of a source, at least one.
type Content struct {
	Kind  string // what the source was taken for
	Pairs []Pair
}

// Best is the pair whose leaf covers most of the names by covers, and of several
// such the newest.
func (c Content) Best(covers func(*x509.Certificate) int) Pair {
	return slices.MaxFunc(c.Pairs, func(a, b Pair) int {
		if a.Leaf == nil || b.Leaf == nil {
			return cmp.Compare(known(a), known(b))
		}
		return cmp.Or(cmp.Compare(covers(a.Leaf), covers(b.Leaf)), a.Leaf.NotBefore.Compare(b.Leaf.NotBefore), a.Leaf.NotAfter.Compare(b.Leaf.NotAfter))
	})
}

func known(p Pair) int {
	if p.Leaf == nil {
		return 0
	}
	return 1
}

// Leaves are those of all pairs.
func (c Content) Leaves() (all []*x509.Certificate) {
	for _, p := range c.Pairs {
		if p.Leaf != nil {
			all = append(all, p.Leaf)
		}
	}
	return all
}

// kind is a way in which pairs are kept. is goes by what is there, so that
// nobody has to name the kind of a source.
type kind struct {
	name string
	is   func(src Source, at look) bool
	read func(ctx context.Context, src Source) ([]Pair, error)

	// unfinished reports whether what was read may be halfway through being
	// replaced, and is to be read again.
	unfinished func(src Source, pairs []Pair, err error) bool
}

// kinds are tried in this order; the last takes whatever is left, and its errors
// say what is missing.
var kinds = []kind{shown, files, pkcs12File, acmeJSON, pemFile, directory, certbot}

// Error is a failure to read a file of a source.
type Error struct {
	File string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.File, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

func failed(file string, err error) *Error { return &Error{file, cause(err)} }

// LackError means that a source could be read and does not hold a pair.
type LackError struct{ Fact, Remedy string }

func (e *LackError) Error() string { return e.Fact }

func lacks(file, remedy, fact string, args ...any) *Error {
	return &Error{file, &LackError{fmt.Sprintf(fact, args...), remedy}}
}

// cause is err without the path, which Error names already.
func cause(err error) error {
	var failed *disk.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

const (
	switchWait = 2 * time.Second // how long a client may take to replace a pair
	switchPoll = 20 * time.Millisecond
)

// Read reads what src holds. Where a client may be replacing it, it waits for that
// to end, for two seconds at most, and then returns what it found last. Every error
// but the end of ctx is an [*Error].
func Read(ctx context.Context, src Source) (Content, error) {
	deadline := time.Now().Add(switchWait)
	for {
		k := kindOf(src)
		pairs, err := k.read(ctx, src)
		if !k.unfinished(src, pairs, err) || time.Now().After(deadline) {
			return Content{k.name, withLeaves(pairs)}, err
		}
		if err := wait.For(ctx, switchPoll); err != nil {
			return Content{}, fmt.Errorf("reading %s: %w", src.Lineage, err)
		}
	}
}

func kindOf(src Source) kind {
	at := lookAt(src.Lineage)
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.is(src, at) })]
}

// withLeaves fills in the leaf of a pair whose kind did not look for it.
func withLeaves(pairs []Pair) []Pair {
	for i, p := range pairs {
		if p.Leaf == nil {
			if chain, err := pki.ParseChain(p.Cert); err == nil && len(chain) > 0 {
				pairs[i].Leaf = pki.LeafOf(chain)
			}
		}
	}
	return pairs
}

// ChainFile is the file in which src keeps a chain without the key, for those who may
// not read the key; "" if there is none.
func ChainFile(src Source) string {
	switch kindOf(src).name {
	case certbot.name:
		return filepath.Join(src.Lineage, certbotCert)
	case files.name:
		return src.CertFile
	}
	return ""
}

// ReadFile reads one file that somebody named. Its error is an [*Error].
func ReadFile(name string) ([]byte, error) { return readUpTo(name, disk.MaxFile) }

func readUpTo(name string, limit int64) ([]byte, error) {
	data, err := disk.ReadUpTo(name, limit)
	if err != nil {
		return nil, failed(name, err)
	}
	return data, nil
}

// both reads the two files of src by read.
func both(src Source, read func(name string) ([]byte, error)) ([]Pair, error) {
	cert, err := read(src.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := read(src.KeyFile)
	if err != nil {
		return nil, err
	}
	return []Pair{{Source: src, Cert: cert, Key: key}}, nil
}

// never is for sources that are replaced as a whole, or by hand.
func never(Source, []Pair, error) bool { return false }

// whileIncomplete is for sources that are rewritten in place.
func whileIncomplete(_ Source, _ []Pair, err error) bool {
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)
}
