package source

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"

	"mailu-hook/internal/pki"
)

// pkcs12File is a PKCS#12 file (RFC 7292), as Windows and appliances export it: DER,
// which begins with a SEQUENCE, and in it the version 3.
var pkcs12File = kind{
	name:       "a PKCS#12 file",
	is:         func(_ Source, at look) bool { return at.file && isPKCS12(at.start) },
	read:       readPKCS12,
	unfinished: never,
}

func isPKCS12(start []byte) bool {
	version := bytes.Index(start[:min(len(start), 16)], []byte{0x02, 0x01, 0x03})
	return len(start) > 0 && start[0] == 0x30 && version > 0
}

func readPKCS12(ctx context.Context, src Source) ([]Pair, error) {
	data, err := ReadFile(src.Lineage)
	if err != nil {
		return nil, err
	}
	passwords, err := src.passwords(ctx)
	if err != nil {
		return nil, err
	}
	// Whoever wrote the file chose how long this takes.
	type decoded struct {
		pairs []Pair
		err   error
	}
	done := make(chan decoded, 1)
	go func() {
		pairs, err := decodePKCS12(src, data, passwords)
		done <- decoded{pairs, err}
	}()
	select {
	case d := <-done:
		return d.pairs, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("decrypting %s: %w", src.Lineage, context.Cause(ctx))
	}
}

// PasswordVariable holds the password of a PKCS#12 file whose source names no file
// for it. There is no flag for the same: arguments can be seen by every user.
const PasswordVariable = "MAILU_HOOK_PASSWORD"

type passwordKey struct{}

// WithPassword is ctx for reading sources with the password in PasswordVariable. It
// goes along with ctx because it is no part of any source: nothing that is remembered
// or printed holds it.
func WithPassword(ctx context.Context, password string) context.Context {
	return context.WithValue(ctx, passwordKey{}, password)
}

// passwords are those to try. The variable may be meant for another source, so that
// one without a password is read too.
func (src Source) passwords(ctx context.Context) ([]string, error) {
	if src.Password != "" {
		data, err := ReadFile(src.Password)
		return []string{string(bytes.TrimRight(data, "\r\n"))}, err
	}
	if password, _ := ctx.Value(passwordKey{}).(string); password != "" {
		return []string{password, ""}, nil
	}
	return []string{""}, nil
}

func decodePKCS12(src Source, data []byte, passwords []string) ([]Pair, error) {
	var key any
	var leaf *x509.Certificate
	var others []*x509.Certificate
	var err error
	for _, password := range passwords {
		if key, leaf, others, err = pkcs12.DecodeChain(data, password); !errors.Is(err, pkcs12.ErrIncorrectPassword) {
			break
		}
	}
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, src.locked(len(passwords) > 1)
	case err != nil:
		return nil, lacks(src.Lineage, "export the certificate with its key and chain again, or convert it: openssl pkcs12 -in FILE -nodes -out FILE.pem", "%v", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, lacks(src.Lineage, "issue again with an ECDSA or RSA key", "its private key is of a kind that no server uses (%T)", key)
	}
	plain, err := pki.EncodeKey(signer)
	if err != nil {
		return nil, lacks(src.Lineage, "issue again with an ECDSA or RSA key", "%v", err)
	}
	c := collection{certs: []foundCert{{leaf, src.Lineage}}}
	for _, other := range others {
		c.certs = append(c.certs, foundCert{other, src.Lineage})
	}
	block, _ := pem.Decode(plain)
	c.keys = []foundKey{{signer.Public(), block, src.Lineage}}
	pairs := c.pairs(src.Lineage)
	if len(pairs) == 0 {
		return nil, c.lack(src.Lineage)
	}
	for i := range pairs {
		pairs[i].Password = src.Password
	}
	return pairs, nil
}

// locked says which password was missing or wrong.
func (src Source) locked(given bool) error {
	switch {
	case src.Password != "":
		return lacks(src.Lineage, "the password is all of that file but the line break at its end", "the password in %s is not the right one", src.Password)
	case given:
		return lacks(src.Lineage, "correct it in the environment and in /etc/mailu-hook.conf, or name the file that holds the password: mailu-hook install SOURCE --password-file FILE",
			"the password in %s is not the right one", PasswordVariable)
	}
	return lacks(src.Lineage, "name the file that holds the password: mailu-hook install SOURCE --password-file FILE; or set "+PasswordVariable+", for sync and watch in /etc/mailu-hook.conf",
		"it is protected by a password")
}
