// Package source reads a key and its certificates from where an ACME client or
// an administrator keeps them, as PEM. It knows the ways in which pairs are
// kept, one file and one row of kinds each; whether a pair is any good is for
// package hook to say.
//
// Everything that is read is a regular file of bounded size, opened without
// blocking. The links of a directory are followed only within its own tree, so
// that nobody who can write into one can have another certificate's key read
// from elsewhere. Nothing is written.
package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"mailu-hook/internal/disk"
)

// Source names the place that a pair is read from.
type Source struct {
	Lineage  string // the directory by which it is remembered, certbot's live/NAME; "" for two files named one by one
	CertFile string // leaf first
	KeyFile  string
}

// Pair is what a source holds: PEM, as it was found, and the files it was in.
type Pair struct {
	Source
	Cert, Key []byte
}

// kind is a way in which pairs are kept. is goes by what is there, so that
// nobody has to name the kind of a source.
type kind struct {
	is   func(src Source) bool
	read func(src Source) (Pair, error)

	// unfinished reports whether what was read may be halfway through being
	// replaced, and is to be read again.
	unfinished func(src Source, pair Pair, err error) bool
}

// kinds are tried in this order; the last takes whatever is left, and its errors
// say what is missing.
var kinds = []kind{files, certbot}

// Error is a failure to read a file of a source.
type Error struct {
	File string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.File, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

func failed(file string, err error) *Error { return &Error{file, cause(err)} }

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

// Read reads the pair at src. Where its two halves are replaced one after the
// other, it waits for both, for two seconds at most, and then returns what it
// found last. Every error but the end of ctx is an [*Error].
func Read(ctx context.Context, src Source) (Pair, error) {
	k := kindOf(src)
	deadline := time.Now().Add(switchWait)
	for {
		pair, err := k.read(src)
		if !k.unfinished(src, pair, err) || time.Now().After(deadline) {
			return pair, err
		}
		select {
		case <-ctx.Done():
			return Pair{}, fmt.Errorf("reading %s: %w", src.Lineage, context.Cause(ctx))
		case <-time.After(switchPoll):
		}
	}
}

func kindOf(src Source) kind {
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.is(src) })]
}

// ReadFile reads one file that somebody named. Its error is an [*Error].
func ReadFile(name string) ([]byte, error) {
	data, err := disk.ReadFile(name)
	if err != nil {
		return nil, failed(name, err)
	}
	return data, nil
}

// both reads the two files of src by read.
func both(src Source, read func(name string) ([]byte, error)) (Pair, error) {
	cert, err := read(src.CertFile)
	if err != nil {
		return Pair{}, err
	}
	key, err := read(src.KeyFile)
	if err != nil {
		return Pair{}, err
	}
	return Pair{src, cert, key}, nil
}

// never is for sources that are replaced as a whole, or by hand.
func never(Source, Pair, error) bool { return false }
