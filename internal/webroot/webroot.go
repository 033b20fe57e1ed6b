// Package webroot writes the responses to http-01 challenges (RFC 8555, section 8.3)
// into a directory that a web server serves, and removes them again. It follows no
// link that leads out of the directory.
package webroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
)

const (
	wellKnown = ".well-known" // RFC 8615
	below     = wellKnown + "/acme-challenge"
	temporary = ".tmp"
)

// Root is the web server's document root. It may hold several responses at once.
type Root struct {
	root *os.Root

	mu    sync.Mutex
	made  []string // directories that we created, the deepest last
	swept bool
}

// Open opens the directory. The caller closes the Root.
func Open(dir string) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the web server's document root: %w", err)
	}
	return &Root{root: root}, nil
}

// Close removes the directories that it created and that are empty. Closing twice is
// harmless.
func (r *Root) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.made) - 1; i >= 0; i-- {
		_ = r.root.Remove(r.made[i]) // fails if someone else is using it by now
	}
	r.root.Close()
}

// Make creates the directories for the responses, readable by the server's user
// whatever the umask.
func (r *Root) Make() error {
	r.mu.Lock() // so that nobody writes into a directory whose mode is not set yet
	defer r.mu.Unlock()
	for _, dir := range []string{wellKnown, below} {
		err := r.root.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			r.made = append(r.made, dir)
			err = r.root.Chmod(dir, 0o755)
		}
		if err != nil {
			return fmt.Errorf("creating a directory for challenge responses: %w", err)
		}
	}
	return nil
}

// Present publishes the response to a token. The file appears complete. The first
// call removes what a killed run of the same account left.
func (r *Root) Present(_ context.Context, token, keyAuth string) error {
	if err := r.Make(); err != nil {
		return err
	}
	r.sweep(keyAuth)
	name := path.Join(below, token)
	tmp := name + temporary
	_ = r.root.Remove(tmp) // left by a killed run
	err := r.write(tmp, keyAuth)
	if err == nil {
		err = r.root.Rename(tmp, name)
	}
	if err != nil {
		_ = r.root.Remove(tmp)
		return fmt.Errorf("writing a challenge response: %w", err)
	}
	return nil
}

// sweep removes the responses that were computed with the same account key, which is
// named after the dot (RFC 8555, section 8.1). Another client's differ in that.
func (r *Root) sweep(keyAuth string) {
	r.mu.Lock() // so that nobody publishes one meanwhile
	defer r.mu.Unlock()
	_, thumbprint, _ := strings.Cut(keyAuth, ".")
	if r.swept || thumbprint == "" {
		return
	}
	r.swept = true
	entries, _ := fs.ReadDir(r.root.FS(), below) // sweeping is not what the run is for
	for _, entry := range entries {
		token, name := strings.TrimSuffix(entry.Name(), temporary), path.Join(below, entry.Name())
		info, err := r.root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(token)+1+len(thumbprint)) {
			continue
		}
		if data, err := r.root.ReadFile(name); err == nil && string(data) == token+"."+thumbprint {
			_ = r.root.Remove(name)
		}
	}
}

// write creates a new file, readable by the server's user whatever the umask. It does
// not follow a link that someone put there.
func (r *Root) write(name, content string) error {
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// CleanUp removes the response. It is no error if there is none.
func (r *Root) CleanUp(_ context.Context, token string) error {
	err := r.root.Remove(path.Join(below, token))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a challenge response: %w", err)
	}
	return nil
}
