package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// enginePrefix begins the names of the directories of engines, followed by the pid of
// the process that started them.
const enginePrefix = "mailu-hook-engine-"

// sweepLeftEngines ends the engines of processes that did not do so themselves.
func sweepLeftEngines(ctx context.Context) (err error) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), enginePrefix+"*"))
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), enginePrefix), "-")
		if pid, bad := strconv.Atoi(owner); bad != nil || !alive(pid) {
			err = errors.Join(err, sweep(ctx, dir))
		}
	}
	return err
}

// sweep kills what belongs to the engine that lives in dir, unmounts what it mounted
// there, and removes dir. What belongs to it has the directory's name in its command
// line or its environment, or is a container with files of the engine's over its own.
func sweep(ctx context.Context, dir string) error {
	err := poll(ctx, 50*time.Millisecond, func() error {
		found := belonging(dir)
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL) // one that is gone need not be killed
		}
		if len(found) > 0 {
			return fmt.Errorf("%d processes of %s still run", len(found), dir)
		}
		return nil
	})
	if err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // the last first
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			err = errors.Join(err, syscall.Unmount(fields[4], syscall.MNT_DETACH))
		}
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// belonging are the processes of the engine that lives in dir, those not counted that
// have ended already.
func belonging(dir string) (pids []int) {
	mounted := regexp.MustCompile(`(?m)^\S+ \S+ \S+ ` + regexp.QuoteMeta(dir) + `/\S* /etc/(?:hostname|hosts|resolv\.conf) `)
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, file := range []string{"cmdline", "environ", "mountinfo"} {
			text, _ := os.ReadFile(filepath.Join(name, file)) // one that is gone has nothing
			if file != "mountinfo" && bytes.Contains(text, []byte(dir+"/")) || file == "mountinfo" && mounted.Match(text) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}
