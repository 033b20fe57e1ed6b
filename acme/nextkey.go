package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"mailu-hook/internal/pki"
	"time"
)

// nextFile holds a key that is prepared for a later renewal, in renewal/NAME, so
// that what is published of it can be seen by everybody before it is used.
const nextFile = "next.pem"

// PrepareKey makes that key, and keeps one that is there already.
func (l *Lineage) PrepareKey(kind KeyType) error {
	if spki, _, err := l.PreparedKey(); spki != nil || err != nil {
		return err
	}
	key, err := newKey(kind)
	if err != nil {
		return fmt.Errorf("making the next key: %w", err)
	}
	data, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	dir, err := l.state.make(renewalName, l.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Replace(nextFile, data, 0o600)
}

// PreparedKey is the public half of the prepared key, as SubjectPublicKeyInfo in
// DER, nil if none is prepared. One that is live already is none.
func (l *Lineage) PreparedKey() (spki []byte, kind KeyType, err error) {
	dir, err := l.state.open(renewalName, l.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	defer dir.Close()
	key, err := readKey(dir, nextFile)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && l.Leaf != nil && pki.Owns(key.Public(), l.Leaf):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("reading the prepared key %s/%s: %w", dir.Path(), nextFile, err)
	}
	spki, err = x509.MarshalPKIXPublicKey(key.Public())
	return spki, keyTypeOf(key.Public()), err
}

// Watch remembers since when the prepared key can be seen beside the live one,
// and returns that time; zero if it cannot.
func (l *Lineage) Watch(seen bool, now time.Time) (since time.Time, err error) {
	switch {
	case !seen && l.NextSeen.IsZero(), seen && !l.NextSeen.IsZero() && !l.NextSeen.After(now):
		return l.NextSeen, nil
	case seen:
		l.NextSeen = now.UTC()
	default:
		l.NextSeen = time.Time{}
	}
	return l.NextSeen, l.record()
}
