// Package webroot puts the answers to http-01 challenges (RFC 8555, section 8.3)
// into a directory of files that a web server shows, and takes them away again.
// It follows no link that leads out of the directory.
package webroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"
)

const (
	wellKnown = ".well-known" // RFC 8615
	below     = wellKnown + "/acme-challenge"
)

// Root is the directory that is the root of the server's URLs. Several answers may
// be shown at one time.
type Root struct {
	root *os.Root

	mu   sync.Mutex
	made []string // directories that were not there before, the lowest last
}

// Open opens the directory. The caller closes the Root.
func Open(dir string) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the web server's directory: %w", err)
	}
	return &Root{root: root}, nil
}

// Close removes the directories that were made and are empty. Closing twice is
// harmless.
func (r *Root) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.made) - 1; i >= 0; i-- {
		_ = r.root.Remove(r.made[i]) // fails where somebody else uses it meanwhile
	}
	r.root.Close()
}

// Make makes the directories of the answers, which the server's user may read
// whatever the umask.
func (r *Root) Make() error {
	r.mu.Lock() // so that nobody writes into one that has its mode to come
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
			return fmt.Errorf("making a directory for the answers to challenges: %w", err)
		}
	}
	return nil
}

// Present shows the answer to a token. The file gets its name when it is whole.
func (r *Root) Present(_ context.Context, token, keyAuth string) error {
	if err := r.Make(); err != nil {
		return err
	}
	name := path.Join(below, token)
	tmp := name + ".tmp"
	_ = r.root.Remove(tmp) // of a run that was killed
	err := r.write(tmp, keyAuth)
	if err == nil {
		err = r.root.Rename(tmp, name)
	}
	if err != nil {
		_ = r.root.Remove(tmp)
		return fmt.Errorf("writing the answer to a challenge: %w", err)
	}
	return nil
}

// write makes a new file that the server's user may read, whatever the umask; a
// link that somebody put there is not followed.
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

// CleanUp takes the answer away. That there is none is no error.
func (r *Root) CleanUp(_ context.Context, token string) error {
	err := r.root.Remove(path.Join(below, token))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the answer to a challenge: %w", err)
	}
	return nil
}
