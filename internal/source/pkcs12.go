package source

import (
	"bytes"
	"context"
	"crypto"
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
	password, err := src.password()
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
		pairs, err := decodePKCS12(src, data, password)
		done <- decoded{pairs, err}
	}()
	select {
	case d := <-done:
		return d.pairs, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("decrypting %s: %w", src.Lineage, context.Cause(ctx))
	}
}

func (src Source) password() (string, error) {
	if src.Password == "" {
		return "", nil
	}
	data, err := ReadFile(src.Password)
	return string(bytes.TrimRight(data, "\r\n")), err
}

func decodePKCS12(src Source, data []byte, password string) ([]Pair, error) {
	key, leaf, others, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && src.Password == "":
		return nil, lacks(src.Lineage, "name the file that holds its password: --password-file FILE", "it is protected by a password")
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, lacks(src.Lineage, "the password is all of that file but the line break at its end", "the password in %s is not the right one", src.Password)
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
