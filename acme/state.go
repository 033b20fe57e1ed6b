package acme

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
)

// DefaultStateDir is where a State is kept unless told otherwise.
const DefaultStateDir = "/var/lib/mailu-hook"

// State is the renewer's directory:
//
//	accounts/acme-v02.api.letsencrypt.org_directory/{key,account}
//	live/NAME -> ../archive/NAME/20261124T061500Z-3076aa61
//	archive/NAME/20261124T061500Z-3076aa61/{privkey,cert,chain,fullchain}.pem
//	renewal/NAME/state.json               what is known of the lineage
//	renewal/NAME/{order.json,key.pem}     an order under way, and its key
//	lock
//
// live/NAME reads as certbot's, but it is one link, so that its four files
// switch by one rename(2).
type State struct{ root *disk.Dir }

// OpenState opens the directory, and makes it, private, where it is missing. The
// caller closes it.
func OpenState(path string) (*State, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, say.Hint(fmt.Errorf("making the state directory: %w", err), "run mailu-hook as root, or choose another with --state-dir DIR")
	}
	root, err := disk.Open(path)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("opening the state directory: %w", err), "run mailu-hook as root, or choose another with --state-dir DIR")
	}
	return &State{root}, nil
}

// Close releases the directory.
func (s *State) Close() { s.root.Close() }

// open opens a directory below, named part by part.
func (s *State) open(names ...string) (*disk.Dir, error) {
	return s.descend(names, (*disk.Dir).OpenDir)
}

// make is open, and makes what is missing.
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

// fileName makes a file name of a URL: one that a person recognises.
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
			"restore it from a backup, or remove it: the next run finds out anew what is in it")
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
