package source

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"mailu-hook/internal/pki"
)

const (
	certbotCert = "fullchain.pem"
	certbotKey  = "privkey.pem"
)

// certbot keeps the links live/NAME/*.pem into archive/NAME, and switches them
// one at a time, by unlink and symlink (certbot/_internal/storage.py,
// save_successor): a reader can meet a missing link or the halves of two pairs.
// Others keep plain files under the same names (Nginx Proxy Manager, people).
var certbot = kind{
	name: "a lineage of certbot",
	is:   func(Source, look) bool { return true },
	read: func(_ context.Context, src Source) ([]Pair, error) {
		if _, err := os.Stat(src.Lineage); err != nil {
			return nil, failed(src.Lineage, err)
		}
		src.CertFile, src.KeyFile = filepath.Join(src.Lineage, certbotCert), filepath.Join(src.Lineage, certbotKey)
		return both(src, treeOf(src.Lineage).read)
	},
	unfinished: func(src Source, pairs []Pair, err error) bool {
		if err != nil { // in a directory that is not there, nobody has anything to finish
			_, missing := os.Stat(src.Lineage)
			return errors.Is(err, fs.ErrNotExist) && missing == nil
		}
		return pki.Mismatch(pairs[0].Cert, pairs[0].Key)
	},
}

// treeOf is where the links of a directory may lead: to itself, and for live/NAME to
// the archive beside live. Either may be a link of the administrator.
func treeOf(dir string) tree {
	within := tree{dir}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return within
	}
	for _, d := range []string{dir, real} {
		if live := filepath.Dir(d); filepath.Base(live) == "live" {
			within = append(within, filepath.Join(filepath.Dir(live), "archive"))
		}
	}
	return within
}
