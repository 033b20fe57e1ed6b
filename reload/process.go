package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is one process of the front container.
type process struct {
	host   int // pid on this host; 0 when the container is not on this host, or hidden from us
	inside int // pid in the container
	parent int // inside
	name   string
	args   []string

	stopped bool // by a signal; unknown by ps
}

// processes lists what runs in the container: from /proc, when its processes
// can be seen there (same host, and root), else by ps in the container.
func (f *Front) processes(ctx context.Context) ([]process, error) {
	if f.isLocal() {
		if procs := localProcesses(f.pid); procs != nil {
			return procs, nil
		}
	}
	out, code, err := f.exec(ctx, nil, "ps", "-A", "-o", "pid,ppid,comm,args")
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("listing the processes of %s: ps: exit status %d", f.Container, code)
	}
	return parsePS(string(out)), nil
}

// isLocal tells whether the pid that the engine gave is that of the container
// on this host: its control group names the container's id. A forwarded socket
// or an engine in a virtual machine would give pids of somewhere else.
func (f *Front) isLocal() bool {
	groups, err := os.ReadFile(proc(f.pid, "cgroup"))
	return err == nil && f.pid > 0 && f.ID != "" && bytes.Contains(groups, []byte(f.ID))
}

// localProcesses returns the processes in the pid namespace of pid 1 of the
// container, nil if they cannot be told from those of the host.
func localProcesses(pid1 int) []process {
	namespace, err := os.Readlink(proc(pid1, "ns/pid"))
	if err != nil {
		return nil
	}
	if own, err := os.Readlink("/proc/self/ns/pid"); err != nil || own == namespace {
		return nil // docker run --pid=host
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var procs []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(proc(pid, "ns/pid")); err != nil || ns != namespace {
			continue
		}
		if p, err := readProcess(pid); err == nil {
			procs = append(procs, p)
		}
	}
	adoptParents(procs)
	return procs
}

func proc(pid int, file string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), file)
}

// readProcess reads one process; parent is its parent's pid on the host.
func readProcess(pid int) (process, error) {
	status, err := os.ReadFile(proc(pid, "status"))
	if err != nil {
		return process{}, err
	}
	cmdline, err := os.ReadFile(proc(pid, "cmdline"))
	if err != nil {
		return process{}, err
	}
	p := process{host: pid, args: strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(value)
		switch {
		case len(fields) == 0:
		case key == "Name":
			p.name = fields[0]
		case key == "State":
			p.stopped = fields[0] == "T"
		case key == "PPid":
			p.parent, _ = strconv.Atoi(fields[0])
		case key == "NSpid":
			p.inside, _ = strconv.Atoi(fields[len(fields)-1])
		}
	}
	if p.inside == 0 {
		return p, errors.New("no NSpid")
	}
	return p, nil
}

// adoptParents turns the parents' pids on the host into those inside.
func adoptParents(procs []process) {
	inside := map[int]int{}
	for _, p := range procs {
		inside[p.host] = p.inside
	}
	for i := range procs {
		procs[i].parent = inside[procs[i].parent]
	}
}

// parsePS reads "pid ppid comm args…" lines, of procps or busybox.
func parsePS(out string) []process {
	var procs []process
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			continue // the heading
		}
		parent, _ := strconv.Atoi(fields[1])
		procs = append(procs, process{inside: pid, parent: parent, name: fields[2], args: fields[3:]})
	}
	return procs
}

// master finds the daemon of that name whose parent is not of that name.
func master(procs []process, name string) (process, bool) {
	i := slices.IndexFunc(procs, func(p process) bool {
		return p.name == name && !slices.ContainsFunc(procs, func(q process) bool { return q.inside == p.parent && q.name == name })
	})
	if i < 0 {
		return process{}, false
	}
	return procs[i], true
}

// runs tells whether a script of that name runs.
func runs(procs []process, script string) bool {
	_, ok := running(procs, script)
	return ok
}

// running finds a script of that name, under an interpreter or alone.
func running(procs []process, script string) (process, bool) {
	i := slices.IndexFunc(procs, func(p process) bool {
		return slices.ContainsFunc(p.args[:min(len(p.args), 3)], func(arg string) bool { return path.Base(arg) == script })
	})
	if i < 0 {
		return process{}, false
	}
	return procs[i], true
}
