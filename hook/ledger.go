package hook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
)

const ledgerDir = "deployed" // in the state directory

// ledger is what root remembers of the deploys into one certs directory: which
// lineages to read, what is unfinished, what the front said of itself. It lies in
// the state directory, out of the front's reach: root acts on it, and a front
// that has been taken over can write to its certs directory.
//
//	/var/lib/mailu-hook/deployed/1a2b3c4d-mailu-certs.json
//	/var/lib/mailu-hook/deployed/1a2b3c4d-mailu-certs.lock
type ledger struct {
	stateDir string
	certsDir string
	name     string
	dir      *disk.Dir // nil until it exists
}

// openLedger opens the ledger of a certs directory. It writes nothing; that there
// is none yet is not an error. One that others than this user and root can write
// to is refused: they could name the keys that are installed.
func openLedger(stateDir, certsDir string) (*ledger, error) {
	if resolved, err := filepath.EvalSymlinks(certsDir); err == nil {
		certsDir = resolved
	}
	if absolute, err := filepath.Abs(certsDir); err == nil {
		certsDir = absolute
	}
	sum := sha256.Sum256([]byte(certsDir))
	plain := strings.ReplaceAll(strings.Trim(certsDir, "/"), "/", "-")
	if len(plain) > 100 {
		plain = plain[len(plain)-100:]
	}
	l := &ledger{stateDir: stateDir, certsDir: certsDir, name: hex.EncodeToString(sum[:4]) + "-" + plain}
	if err := l.open(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return l, nil
}

func (l *ledger) path() string { return filepath.Join(l.stateDir, ledgerDir) }

func (l *ledger) open() error {
	info, err := os.Stat(l.path())
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return say.Hint(fmt.Errorf("opening the state directory: %w", err), "run mailu-hook as root, or name a directory of your own: --state-dir DIR")
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return say.Hint(fmt.Errorf("%s can be written to by others than root (owner %d, mode %#o)", l.path(), owner, info.Mode().Perm()),
			"chown root %s && chmod 700 %[1]s", l.path())
	}
	l.dir, err = disk.Open(l.path())
	return err
}

func (l *ledger) close() {
	if l.dir != nil {
		l.dir.Close()
	}
}

// lock makes this process the only one that deploys into the certs directory, and
// waits for that as long as ctx lasts; then the error is a disk.ErrLocked.
func (l *ledger) lock(ctx context.Context) (unlock func(), err error) {
	if l.dir == nil {
		if err := l.make(); err != nil {
			hint := "run mailu-hook as root, or name a directory of your own: --state-dir DIR"
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) {
				hint = (&disk.Error{Dir: l.path(), Err: err}).Hint()
			}
			return nil, say.Hint(fmt.Errorf("making the state directory: %w", err), "%s", hint)
		}
		if err := l.open(); err != nil {
			return nil, err
		}
	}
	unlock, err = l.dir.LockFile(ctx, l.lockFile(), l.certsDir)
	if err != nil {
		return nil, err
	}
	if err := l.dir.Remove(l.tmp()); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		unlock()
		return nil, err
	}
	return unlock, nil
}

func (l *ledger) lockFile() string { return l.name + ".lock" }

// tmp is the name of the unfinished ledger. It is not swept, because others that
// are being written may lie beside it.
func (l *ledger) tmp() string { return l.name + ".tmp" }

// make makes the directory of the ledger, durably.
func (l *ledger) make() error {
	if err := os.MkdirAll(l.stateDir, 0o700); err != nil {
		return err
	}
	state, err := disk.Open(l.stateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	made, err := state.MakeDir(ledgerDir)
	if err != nil {
		return err
	}
	made.Close()
	return nil
}

// read returns what is remembered. Nothing remembered is an fs.ErrNotExist.
func (l *ledger) read() (State, error) {
	empty := State{Version: stateVersion}
	if l.dir == nil {
		return empty, fs.ErrNotExist
	}
	data, err := l.dir.Read(l.name + ".json")
	if err != nil {
		return empty, err
	}
	return parseState(data, func(err error) error { return l.dir.Wrap(l.name+".json", err) })
}

// Ledgers reads what is remembered of all certs directories. What cannot be read is
// left out: a deploy into that directory will say why.
func Ledgers(stateDir string) (all []State) {
	l := &ledger{stateDir: stateDir}
	if l.open() != nil {
		return nil
	}
	defer l.close()
	names, _ := l.dir.Names()
	for _, name := range names {
		var found bool
		if l.name, found = strings.CutSuffix(name, ".json"); !found {
			continue
		}
		if state, err := l.read(); err == nil {
			all = append(all, state)
		}
	}
	return all
}

func parseState(data []byte, wrap func(error) error) (State, error) {
	empty := State{Version: stateVersion}
	var by struct{ Version int } // first: the rest of a newer one may have another shape
	if err := json.Unmarshal(data, &by); err == nil && by.Version > stateVersion {
		return empty, wrap(fmt.Errorf("written by a newer mailu-hook (version %d)", by.Version))
	}
	var state State
	if err := json.Unmarshal(data, &state); err != nil {
		return empty, wrap(fmt.Errorf("damaged: %w", err))
	}
	state.Version = stateVersion
	return state, nil
}

// record replaces what is remembered, durably and by one rename. The caller holds
// the lock.
func (l *ledger) record(state State) error {
	state.Version, state.CertsDir = stateVersion, l.certsDir
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	return l.dir.ReplaceVia(l.tmp(), l.name+".json", append(data, '\n'), 0o600)
}

// forget removes the ledger. The lock file stays until its holder has ended: a run
// that waits for it must not meet another one.
func (l *ledger) forget() error {
	if err := l.dir.Remove(l.name + ".json"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.dir.Sync()
}
