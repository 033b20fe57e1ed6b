//go:build measure

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rival is one of several ways to reach the same end.
type rival struct {
	name string
	env  []string
	argv []string
	// before makes ready for a run, after looks whether it did its work; neither
	// is measured. Both may be nil.
	before, after func()
}

// figures are what the runs of a rival took: milliseconds, and MiB.
type figures struct {
	name            string
	wall, cpu, peak sample
}

// alternate runs all rivals in each round, so that what befalls the machine
// befalls all of them.
func alternate(t *testing.T, rounds int, rivals ...rival) []figures {
	t.Helper()
	all := make([]figures, len(rivals))
	for range rounds {
		for i, r := range rivals {
			all[i].name = r.name
			all[i].measure(t, r)
		}
	}
	return all
}

// measure runs the rival once. GNU time stands in between because the kernel
// counts the memory of a process's parent, at the time of the fork, as its own (the
// peak outlives execve), and time is the smallest that could start one; it adds
// the same to all of them.
func (f *figures) measure(t *testing.T, r rival) {
	t.Helper()
	if r.before != nil {
		r.before()
	}
	peak := filepath.Join(t.TempDir(), "peak")
	cmd := exec.Command("/usr/bin/time", append([]string{"--quiet", "-f", "%M", "-o", peak}, r.argv...)...)
	cmd.Env = append(os.Environ(), r.env...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	f.wall = append(f.wall, milliseconds(time.Since(began)))
	require.NoError(t, err, "%s: %s", r.name, out)
	if r.after != nil {
		r.after()
	}
	f.cpu = append(f.cpu, milliseconds(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
	data, err := os.ReadFile(peak)
	require.NoError(t, err)
	kib, err := strconv.Atoi(strings.TrimSpace(string(data)))
	require.NoError(t, err)
	f.peak = append(f.peak, float64(kib)/1024)
}

// rival is a run of the binary in this lab.
func (l *lab) rival(name string, env []string, args ...string) rival {
	return rival{name: name, env: slices.Concat(l.env, env), argv: append([]string{binary}, args...)}
}

// requests is how often one run of the rival asks the Docker engine.
func (r rival) requests(t *testing.T, e *engine) int {
	t.Helper()
	e.reset(0, nil)
	r.env = append(slices.Clone(r.env), "DOCKER_HOST=unix://"+e.socket)
	new(figures).measure(t, r)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// said is what a command prints, in one line.
func said(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return "unknown (" + err.Error() + ")"
	}
	return strings.Join(strings.Fields(string(out)), " ")
}
