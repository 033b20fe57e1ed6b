package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
)

// State is the state directory of renew:
//
//	accounts/acme-v02.api.letsencrypt.org_directory/{key,account}
//	live/NAME -> ../archive/NAME/20261124T061500Z-3076aa6152cf9d10
//	archive/NAME/20261124T061500Z-3076aa6152cf9d10/{privkey,cert,chain,fullchain}.pem
//	renewal/NAME/state.json               what is known about the lineage
//	renewal/NAME/{order.json,key.pem}     an order in progress, and its key
//	lock
//
// live/NAME can be read like certbot's, but it is a single link, so that its four
// files switch by one rename(2).
type State struct{ root *disk.Dir }

// OpenState opens the directory and creates it, private, if it is missing. The caller
// closes it.
func OpenState(path string) (*State, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, say.Hint(fmt.Errorf("creating the state directory: %w", err), "run mailu-hook as root, or choose another with --state-dir DIR")
	}
	above, err := disk.Open(filepath.Dir(filepath.Clean(path)))
	if err == nil {
		_ = above.Sync() // so that a new one survives a power loss; someone who cannot open the parent did not create one
		above.Close()
	}
	return OpenExisting(path)
}

// OpenExisting opens the directory and creates nothing.
func OpenExisting(path string) (*State, error) {
	root, err := disk.Open(path)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("opening the state directory: %w", err), "run mailu-hook as root, or choose another with --state-dir DIR")
	}
	return &State{root}, nil
}

// Close releases the directory.
func (s *State) Close() { s.root.Close() }

// Lock makes this process the only one that changes the state; it waits until ctx is
// done. The error wraps disk.ErrLocked if another process holds the lock. Temporary
// files of a killed run, which may hold a key, are removed.
func (s *State) Lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = s.root.Lock(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{accountsName, archiveName, renewalName} {
		if err := s.sweepBelow(name); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// sweepBelow sweeps each directory inside the directory name. Its own entries are
// named after hosts, one of which may look like a temporary file.
func (s *State) sweepBelow(name string) error {
	above, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer above.Close()
	names, err := above.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		dir, err := above.OpenDir(name)
		if err != nil {
			continue // not ours
		}
		err = dir.Sweep()
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// open opens a directory below the state directory.
func (s *State) open(names ...string) (*disk.Dir, error) {
	return s.descend(names, (*disk.Dir).OpenDir)
}

// make is like open, but creates what is missing.
func (s *State) make(names ...string) (*disk.Dir, error) {
	return s.descend(names, (*disk.Dir).MakeDir)
}

func (s *State) descend(names []string, step func(*disk.Dir, string) (*disk.Dir, error)) (*disk.Dir, error) {
	dir := s.root
	for _, name := range names {
		next, err := step(dir, name)
		if dir != s.root {
			dir.Close()
		}
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// fileName turns a URL into a file name that is still recognizable.
func fileName(directory string) string {
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		directory = u.Host + u.EscapedPath()
	}
	return strings.Trim(strings.NewReplacer("/", "_", ":", "_", "\x00", "_").Replace(directory), "_.")
}

func readJSON(dir *disk.Dir, name string, into any) error {
	data, err := dir.Read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return say.Hint(fmt.Errorf("%s/%s: damaged: %w", dir.Path(), name, err),
			"restore it from a backup, or remove it: the next run recreates it")
	}
	return nil
}

func writeJSON(dir *disk.Dir, name string, from any) error {
	data, err := json.MarshalIndent(from, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", name, err)
	}
	return dir.Replace(name, append(data, '\n'), 0o600)
}

// removeAll removes files of dir that may be missing.
func removeAll(dir *disk.Dir, names ...string) error {
	for _, name := range names {
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return dir.Sync()
}
