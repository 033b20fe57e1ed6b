package source

import (
	"context"

	"mailu-hook/internal/pki"
)

// files are a certificate and a key that somebody named one by one. Whoever
// names a link means what it leads to, wherever that is.
var files = kind{
	name:       "two files",
	is:         func(src Source, _ look) bool { return src.Lineage == "" },
	read:       func(_ context.Context, src Source) ([]Pair, error) { return both(src, ReadFile) },
	unfinished: never,
}

// Files is the source of the files cert, leaf first, and key.
func Files(cert, key string) Source { return Source{CertFile: cert, KeyFile: key} }

// WithChain is the source of two files with the certificates of a third behind the
// leaf. Its error is an [*Error].
func WithChain(cert, key, chain string) (Source, error) {
	src := Files(cert, key)
	var all []byte
	for _, file := range []string{cert, chain} {
		data, err := ReadFile(file)
		if err != nil {
			return src, err
		}
		if _, err := pki.ParseChain(data); err != nil {
			return src, lacks(file, "name a file of certificates in PEM", "%v", err)
		}
		all = append(append(all, data...), '\n')
	}
	data, err := ReadFile(key)
	if err != nil {
		return src, err
	}
	all = append(all, data...)
	src.shown = &all
	return src, nil
}
