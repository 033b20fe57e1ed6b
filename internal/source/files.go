package source

import (
	"context"
	"slices"

	"mailu-hook/internal/pki"
)

// files are a certificate and a key that somebody named one by one, and perhaps the
// chain in a third file. Whoever names a link means what it leads to, wherever that is.
var files = kind{
	name: "two files",
	is:   func(src Source, _ look) bool { return src.Lineage == "" },
	read: func(_ context.Context, src Source) ([]Pair, error) {
		pairs, err := both(src, ReadFile)
		if err != nil || src.IssuersFile == "" {
			return pairs, err
		}
		issuers, err := ReadFile(src.IssuersFile)
		if err != nil {
			return nil, err
		}
		if _, err := pki.ParseChain(issuers); err != nil {
			return nil, lacks(src.IssuersFile, "name a file of certificates in PEM", "%v", err)
		}
		pairs[0].Cert = slices.Concat(pairs[0].Cert, []byte{'\n'}, issuers)
		return pairs, nil
	},
	unfinished: never,
}

// Files is the source of the files cert, leaf first, and key.
func Files(cert, key string) Source { return Source{CertFile: cert, KeyFile: key} }
