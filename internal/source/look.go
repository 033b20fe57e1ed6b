package source

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// look is what can be told of a path without reading all of it.
type look struct {
	file  bool   // a regular file
	dir   bool   // a directory
	start []byte // of the file, without white space and byte order mark
	names bool   // a directory with certbot's two names in it
	live  bool   // or in a directory that is called live
}

// lookAt looks at a path, without error: what cannot be seen is not there.
func lookAt(path string) (at look) {
	if path == "" {
		return at
	}
	if info, err := os.Stat(path); err == nil {
		if info.Mode().IsRegular() {
			return look{file: true, start: startOf(path)}
		}
		at.dir = info.IsDir()
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		real = path
	}
	at.live = filepath.Base(filepath.Dir(path)) == "live" || filepath.Base(filepath.Dir(real)) == "live"
	_, certErr := os.Lstat(filepath.Join(path, certbotCert))
	_, keyErr := os.Lstat(filepath.Join(path, certbotKey))
	at.names = certErr == nil && keyErr == nil
	return at
}

const startLength = 4 << 10

func startOf(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	start, _ := io.ReadAll(io.LimitReader(f, startLength)) // a part of it will do
	return bytes.TrimSpace(bytes.TrimPrefix(start, []byte("\xef\xbb\xbf")))
}
