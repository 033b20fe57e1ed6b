package source

import (
	"errors"
	"io/fs"
	"mailu-hook/internal/pki"
	"os"
	"path/filepath"
)

// certbot keeps the links live/NAME/*.pem into archive/NAME, and switches them
// one at a time, by unlink and symlink (certbot/_internal/storage.py,
// save_successor): a reader can meet a missing link or the halves of two pairs.
// Others keep plain files under the same names (Nginx Proxy Manager, people).
var certbot = kind{
	is:   func(src Source) bool { return src.Lineage != "" },
	read: func(src Source) (Pair, error) { return both(src, tree(certbotTree(src.Lineage)).read) },

	unfinished: func(src Source, pair Pair, err error) bool {
		if err != nil { // in a directory that is not there, nobody has anything to finish
			_, missing := os.Stat(src.Lineage)
			return errors.Is(err, fs.ErrNotExist) && missing == nil
		}
		return pki.Mismatch(pair.Cert, pair.Key)
	},
}

// Lineage is the source that certbot's live directory dir holds.
func Lineage(dir string) Source {
	dir = filepath.Clean(dir)
	return Source{dir, filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
}

// certbotTree is where the links of live/NAME may lead: to the directory itself
// and to the archive beside live. Either may be a link of the administrator.
func certbotTree(dir string) []string {
	within := []string{dir}
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
