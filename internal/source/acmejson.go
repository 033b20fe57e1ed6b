package source

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
)

const maxACMEJSON = 16 << 20 // a thousand certificates

// acmeJSON is the acme.json of Traefik (pkg/provider/acme/store.go, local_store.go):
// an account and certificates for each resolver, before version 2 without resolvers.
// It is rewritten in place, so that a reader can meet a part of it.
var acmeJSON = kind{
	name: "an acme.json of Traefik",
	is: func(src Source, at look) bool {
		return at.file && (bytes.HasPrefix(at.start, []byte("{")) || len(at.start) == 0 && filepath.Ext(src.Lineage) == ".json")
	},
	read:       readACMEJSON,
	unfinished: whileIncomplete,
}

type traefikStore struct {
	Certificates []struct {
		Certificate, Key []byte // PEM; base64 in the file
	}
}

func readACMEJSON(_ context.Context, src Source) ([]Pair, error) {
	data, err := readUpTo(src.Lineage, maxACMEJSON)
	if err != nil {
		return nil, err
	}
	var whole traefikStore
	var resolvers map[string]json.RawMessage
	if err := json.Unmarshal(data, &resolvers); err != nil {
		return nil, lacks(src.Lineage, "name the acme.json that Traefik writes, or another source", "it is not the whole of a JSON document: %v", err)
	}
	stores := []traefikStore{}
	if json.Unmarshal(data, &whole) == nil {
		stores = append(stores, whole)
	}
	for _, name := range slices.Sorted(maps.Keys(resolvers)) {
		var store traefikStore
		if json.Unmarshal(resolvers[name], &store) == nil { // what is none has no certificates
			stores = append(stores, store)
		}
	}
	var pairs []Pair
	for _, store := range stores {
		for _, entry := range store.Certificates {
			var c collection
			c.add(src.Lineage, entry.Certificate)
			c.add(src.Lineage, entry.Key)
			pairs = append(pairs, c.pairs(src.Lineage)...)
		}
	}
	if len(pairs) == 0 {
		return nil, lacks(src.Lineage, "let Traefik obtain a certificate for the mail server's names first", "it holds no certificate with its key")
	}
	return pairs, nil
}
