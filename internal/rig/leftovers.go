package rig

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	testLabel = "mailu-hook.test"
	pidLabel  = testLabel + ".pid"
)

// ownLabels mark what this process started.
func ownLabels() []string {
	return []string{"--label", testLabel + "=1", "--label", pidLabel + "=" + strconv.Itoa(os.Getpid())}
}

// RemoveLeftovers removes the containers, volumes and engines of test processes that
// ended without doing so: killed, or timed out. What belongs to a process
// that still runs, perhaps another test package, stays.
func RemoveLeftovers(ctx context.Context) error {
	return errors.Join(
		sweepLeftEngines(ctx),
		removeLeftovers(ctx, "container", "ls", "--all", "--filter", "label="+testLabel, "--format", `{{.ID}} {{.Label "`+pidLabel+`"}}`),
		removeLeftovers(ctx, "volume", "ls", "--filter", "label="+testLabel, "--format", `{{.Name}} {{.Label "`+pidLabel+`"}}`),
	)
}

func removeLeftovers(ctx context.Context, kind string, list ...string) error {
	lines, err := docker(ctx, append([]string{kind}, list...)...)
	for line := range strings.Lines(lines) {
		name, owner, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, bad := strconv.Atoi(owner); bad == nil && alive(pid) {
			continue
		}
		err = errors.Join(err, (*Engine)(nil).remove(ctx, kind, name))
	}
	return err
}

// remove removes a container with its anonymous volumes, or a volume. If
// there is none, that is not an error; if somebody else is removing it, the end of
// that is waited for.
func (e *Engine) remove(ctx context.Context, kind, name string) error {
	for {
		_, err := e.call(ctx, http.MethodDelete, "/"+kind+"s/"+url.PathEscape(name)+"?force=1&v=1", nil, nil)
		switch {
		case err == nil, strings.Contains(strings.ToLower(err.Error()), "no such "+kind):
			return nil
		case !strings.Contains(err.Error(), "is already in progress"):
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) != syscall.ESRCH }
