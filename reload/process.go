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
	"syscall"

	"mailu-hook/internal/say"
)

// interior is the way to the processes and files of one container: through this
// host's /proc where they can be seen there, or else by commands run inside.
type interior struct {
	engine Engine
	id     string
	name   string
	pid    int // of its first process, on the engine's host
}

// exec runs a command inside. The error is an ErrEngine, unless the container does not
// run.
func (in *interior) exec(ctx context.Context, command ...string) (output []byte, status int, err error) {
	output, status, err = in.engine.Exec(ctx, in.id, command...)
	if errors.Is(err, errNotRunning) {
		return nil, 0, say.Hint(fmt.Errorf("%s is %w", in.name, err), "start it: it will load what is installed; its log says why it stopped")
	}
	if err != nil {
		return nil, 0, engineError(ctx, fmt.Sprintf("running %s in %s", strings.Join(command, " "), in.name), err)
	}
	return output, status, nil
}

// process is one process of the container.
type process struct {
	host   int // pid on this host; 0 when the container is not on this host, or hidden from us
	inside int // pid in the container
	parent int // inside
	name   string
	args   []string

	stopped bool // by a signal; unknown to ps
}

// processes lists what runs in the container: from /proc if its processes can be
// seen there (same host, and root), else by ps in the container.
func (in *interior) processes(ctx context.Context) ([]process, error) {
	if in.isLocal() {
		if procs := localProcesses(in.pid); procs != nil {
			return procs, nil
		}
	}
	out, code, err := in.exec(ctx, "ps", "-A", "-o", "pid,ppid,comm,args")
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("listing the processes of %s: ps: exit status %d", in.name, code)
	}
	return parsePS(string(out)), nil
}

// isLocal reports whether the engine's pid is that of the container on this host: its
// control group names the container's id, or one of the files that the engine mounts
// into it does (resolv.conf, hosts, hostname; rootless, or with Podman's
// --cgroups=disabled, nothing else does). A forwarded socket or an engine in a virtual
// machine gives pids of another host.
func (in *interior) isLocal() bool {
	return in.pid > 0 && in.id != "" && slices.ContainsFunc([]string{"cgroup", "mountinfo"}, func(file string) bool {
		text, err := readSome(proc(in.pid, file), maxMountInfo)
		return err == nil && bytes.Contains(text, []byte(in.id))
	})
}

// localProcesses returns the processes in the pid namespace of the container's
// first process, nil if they cannot be told from those of the host.
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
	status, err := readSome(proc(pid, "status"), maxStatus)
	if err != nil {
		return process{}, err
	}
	cmdline, err := readSome(proc(pid, "cmdline"), maxArguments)
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

// parsePS reads lines of "pid ppid comm args…", from procps or busybox.
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

// runs reports whether a script of that name runs.
func runs(procs []process, script string) bool {
	_, ok := running(procs, script)
	return ok
}

// running finds a script of that name.
func running(procs []process, script string) (process, bool) {
	i := slices.IndexFunc(procs, func(p process) bool { return p.isScript(script) })
	if i < 0 {
		return process{}, false
	}
	return procs[i], true
}

// isScript reports whether it is a script of that name, under an interpreter or alone.
func (p process) isScript(name string) bool {
	return slices.ContainsFunc(p.args[:min(len(p.args), 3)], func(arg string) bool { return path.Base(arg) == name })
}

// isAwake reports whether one of its threads has something to do now: it runs, waits for
// a processor, or for a disk. Only the processes of this host can be seen to.
func (p process) isAwake() bool {
	threads, _ := filepath.Glob(proc(p.host, "task/*/status"))
	return slices.ContainsFunc(threads, func(thread string) bool {
		status, err := readSome(thread, maxStatus)
		return err == nil && (bytes.Contains(status, []byte("\nState:\tR")) || bytes.Contains(status, []byte("\nState:\tD")))
	})
}

// hangUp sends HUP to a master: by its pid on the host if we may, else by killall
// in the container, as Mailu's own config.py does.
func (in *interior) hangUp(ctx context.Context, p process) error {
	if signal(p, syscall.SIGHUP) == nil {
		return nil
	}
	out, status, err := in.exec(ctx, "killall", "-HUP", p.name)
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d: %s", status, say.Foreign(string(out)))
	}
	if err != nil {
		return fmt.Errorf("reloading %s in %s: %w", p.name, in.name, err)
	}
	return nil
}

// signal holds on to the process before it checks that it is still the one that
// was found, so that it cannot hit a process that was given the same pid since.
func signal(p process, what syscall.Signal) error {
	if p.host <= 0 {
		return errors.New("not a process of this host")
	}
	handle, err := os.FindProcess(p.host) // a pidfd
	if err != nil {
		return err
	}
	defer handle.Release()
	now, err := readProcess(p.host)
	if err != nil || now.name != p.name || now.inside != p.inside {
		return fmt.Errorf("process %d is no longer %s", p.host, p.name)
	}
	return handle.Signal(what)
}
