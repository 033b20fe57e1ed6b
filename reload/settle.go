package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
	"time"

	"mailu-hook/internal/say"
)

// pidFiles are those of the front's two daemons, which its health check and the
// daemons' own reload commands need.
var pidFiles = []struct {
	name, file string
	mode       fs.FileMode
}{
	{"nginx", "/run/nginx.pid", 0o644},
	{"dovecot", "/run/dovecot/master.pid", 0o600},
}

// Settle waits, 20 seconds at most, until the front's watcher has reacted to a switch
// at that time, and then repairs the daemons' pid files. A watcher that was paused
// is resumed.
//
// The watcher (core/nginx/certwatcher.py) responds to a switched link with up to
// four runs of config.py, each of which deletes every pid file under /run and sends
// HUP, which does not bring them back. From then on nginx -s reload, doveadm reload
// and the health check fail (Mailu #3287, #4080). The files written here are
// regular ones, which the front deletes when it starts; links would survive that
// and keep dovecot from starting.
//
// After an error the front serves anyway; a later Settle finishes.
func (f *Front) Settle(ctx context.Context, switched time.Time) error {
	f.watcher.expect(switched.Add(watcherDelay))
	ctx, cancel := context.WithTimeoutCause(ctx, settleLimit, errors.New("its watcher is still busy"))
	defer cancel()
	for try := 1; ; try++ {
		procs, err := f.watcher.quiesce(ctx)
		if err != nil {
			return fmt.Errorf("waiting for %s to settle: %w", f.Container, err)
		}
		if err = f.putPids(ctx, procs); err == nil || try == putTries {
			return err
		}
	}
}

// putTries is how often the pid files are put back where that fails: by commands in the
// container it takes so long that the watcher can begin to react meanwhile.
const putTries = 3

func (f *Front) putPids(ctx context.Context, procs []process) error {
	for _, daemon := range pidFiles {
		p, ok := master(procs, daemon.name)
		if !ok {
			continue
		}
		if err := f.in.putPid(ctx, daemon.file, p.inside, daemon.mode); err != nil {
			return fmt.Errorf("putting %s back in %s: %w", daemon.file, f.Container, err)
		}
	}
	return nil
}

// putPid makes file a regular file that holds pid, unless it is one already.
func (in *interior) putPid(ctx context.Context, file string, pid int, mode fs.FileMode) error {
	content := []byte(strconv.Itoa(pid) + "\n")
	if in.isLocal() {
		err := putLocal(in.pid, file, content, mode)
		// EOVERFLOW: the file system was mounted in a user namespace, as rootless engines
		// do, in which the root of this host has no number (path_resolution(7)).
		if err == nil || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EOVERFLOW) {
			return err
		}
	}
	return in.putByExec(ctx, file, content, mode)
}

// putLocal writes through the container's root directory as this host sees it;
// [os.Root] keeps links of the container from leading out of it. The temporary file
// has a name that the front deletes at its next start.
func putLocal(pid1 int, file string, content []byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(proc(pid1, "root"))
	if err != nil {
		return err
	}
	defer root.Close()
	name := file[1:]
	if old, err := readPidFile(root, name); err == nil && bytes.Equal(bytes.TrimSpace(old), bytes.TrimSpace(content)) {
		return nil
	}
	tmp := path.Join(path.Dir(name), "mailu-hook."+path.Base(name))
	_ = root.Remove(tmp) // of a run that was killed
	w, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	if err == nil {
		err = w.Chmod(mode)
	}
	if dir, derr := root.Stat(path.Dir(name)); err == nil && derr == nil { // a remapped root of the container's own
		owner := dir.Sys().(*syscall.Stat_t)
		err = w.Chown(int(owner.Uid), -1)
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}

// putByExec does the same from inside, where the container's files are out of
// reach.
func (in *interior) putByExec(ctx context.Context, file string, content []byte, mode fs.FileMode) error {
	old, status, err := in.exec(ctx, "cat", file)
	if err != nil || status == 0 && bytes.Equal(bytes.TrimSpace(old), bytes.TrimSpace(content)) {
		return err
	}
	for _, command := range [][]string{
		{"rm", "-f", file},
		{"awk", "BEGIN { print ARGV[1] > ARGV[2] }", string(bytes.TrimSpace(content)), file},
		{"chmod", strconv.FormatUint(uint64(mode), 8), file},
	} {
		out, status, err := in.exec(ctx, command...)
		if err != nil {
			return err
		}
		if status != 0 {
			return fmt.Errorf("%s: exit status %d: %s", command[0], status, say.Foreign(string(out)))
		}
	}
	return nil
}
