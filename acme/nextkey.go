package acme

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/pki"
)

// nextFile, in renewal/NAME, holds a key prepared for a later renewal, so that its
// TLSA record can reach every resolver before the key is used.
const nextFile = "next.pem"

// PrepareKey makes that key unless there is one already.
func (l *Lineage) PrepareKey(kind KeyType) error {
	if spki, _, err := l.PreparedKey(); spki != nil || err != nil {
		return err
	}
	key, err := newKey(kind)
	if err != nil {
		return fmt.Errorf("generating the next key: %w", err)
	}
	data, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	return l.inRenewal(l.state.make, func(dir *disk.Dir) error { return dir.Replace(nextFile, data, 0o600) })
}

// PreparedKey returns the public half of the prepared key as a DER
// SubjectPublicKeyInfo, nil if there is none. A prepared key that is already live
// does not count.
func (l *Lineage) PreparedKey() (spki []byte, kind KeyType, err error) {
	key, err := l.readPrepared()
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && l.Leaf != nil && pki.Owns(key.Public(), l.Leaf):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("reading the prepared key: %w", err)
	}
	spki, err = x509.MarshalPKIXPublicKey(key.Public())
	return spki, keyTypeOf(key.Public()), err
}

func (l *Lineage) readPrepared() (key crypto.Signer, err error) {
	err = l.inRenewal(l.state.open, func(dir *disk.Dir) (err error) {
		key, err = readKey(dir, nextFile)
		return err
	})
	return key, err
}

// Watch records since when the record of the prepared key has been visible beside
// that of the live one, and returns that time; zero if it is not visible.
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
