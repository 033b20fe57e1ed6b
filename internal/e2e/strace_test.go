package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// step is one system call that touches the watched directory, as the tracer
// met it on its way into the kernel. Paths are absolute.
type step struct {
	dir      string // that is watched
	call     string
	path, to string // to: where a rename or hard link leads
	text     string // the target of a symbolic link, or the bytes of a write
	flags    int    // of openat and renameat2
	offset   int64  // of pwrite64
	ret      int64  // from the kernel; a negative errno after failure
}

// changes reports whether the call changes the disk or makes a change durable.
func (s step) changes() bool {
	switch s.call {
	case "openat":
		return s.flags&unix.O_CREAT != 0
	case "newfstatat", "fstat", "readlinkat", "getdents64", "close", "read", "pread64", "flock":
		return false
	}
	return true
}

var (
	randomTmp = regexp.MustCompile(`tmp-[A-Z2-7]{12}`)
	anyGen    = regexp.MustCompile(`\d{8}T\d{6}Z-[0-9a-f]{8}`)
)

// String names the step without what differs from run to run.
func (s step) String() string {
	name := s.short(s.path)
	if s.to != "" {
		name += " -> " + s.short(s.to)
	}
	return s.call + " " + name
}

func (s step) short(path string) string {
	path = strings.TrimPrefix(path, s.dir)
	return anyGen.ReplaceAllString(randomTmp.ReplaceAllString(cmp.Or(strings.TrimPrefix(path, "/"), "."), "tmp"), "GEN")
}

// fault is what the tracer does to the steps that match. The zero value only
// watches.
type fault struct {
	match func(n int, s step) bool // n counts the steps from 0
	// Without errno the process is killed: before the step is executed, or
	// when it has been and the process has not yet learnt of it.
	after  bool
	signal syscall.Signal // or this is sent to it instead, and the step is executed
	errno  syscall.Errno  // or else the step fails so, and is not executed
	// look is called before each step, and again when it was executed, while the
	// process stands still.
	look func(n int, s step, after bool)
}

func at(n int) func(int, step) bool { return func(i int, _ step) bool { return i == n } }

// traced is a run of the binary under the tracer.
type traced struct {
	steps    []step
	hits     []step // that the fault struck
	killed   bool
	code     int
	out      string // stdout and stderr
	reported int    // number of steps before the first byte of out; -1 for none
}

// operands says where the system calls that can touch a file have their paths.
type operands struct {
	call string
	kind byte // 'f': a descriptor; 'p': descriptor and path; 'r': two of those; 's': a symlink
}

var watched = map[uint64]operands{
	unix.SYS_OPENAT: {"openat", 'p'}, unix.SYS_MKDIRAT: {"mkdirat", 'p'}, unix.SYS_UNLINKAT: {"unlinkat", 'p'},
	unix.SYS_READLINKAT: {"readlinkat", 'p'}, unix.SYS_FCHMODAT: {"fchmodat", 'p'}, unix.SYS_FCHOWNAT: {"fchownat", 'p'},
	unix.SYS_SYMLINKAT: {"symlinkat", 's'}, unix.SYS_RENAMEAT: {"renameat", 'r'}, unix.SYS_RENAMEAT2: {"renameat2", 'r'},
	unix.SYS_LINKAT: {"linkat", 'r'}, unix.SYS_FSYNC: {"fsync", 'f'}, unix.SYS_FDATASYNC: {"fdatasync", 'f'},
	unix.SYS_WRITE: {"write", 'f'}, unix.SYS_PWRITE64: {"pwrite64", 'f'}, unix.SYS_READ: {"read", 'f'}, unix.SYS_PREAD64: {"pread64", 'f'},
	unix.SYS_FCHMOD: {"fchmod", 'f'}, unix.SYS_FCHOWN: {"fchown", 'f'}, unix.SYS_FTRUNCATE: {"ftruncate", 'f'},
	unix.SYS_FLOCK: {"flock", 'f'}, unix.SYS_CLOSE: {"close", 'f'}, unix.SYS_FSTAT: {"fstat", 'f'}, unix.SYS_GETDENTS64: {"getdents64", 'f'},
	map[string]uint64{"amd64": 262, "arm64": 79}[runtime.GOARCH]: {"newfstatat", 'p'},
}

// tracer is a strace of one idea. strace counts the calls of its
// inject=…:when=N for each thread apart, and the Go runtime moves a goroutine
// between threads as it likes, so no sequence of N is sure to reach every call.
// This one counts the calls of all threads together, and only those that touch
// dir. TestTheTracerMissesNothingThatStraceSees holds it to strace. It runs on
// amd64 and arm64.
type tracer struct {
	dir, out string
	fault    fault
	pid      int
	open     map[int]*pending // by thread
	r        traced
}

// pending is a call that a thread is inside of.
type pending struct {
	n    int
	fail bool
}

// trace runs the binary to its end, or to that of the fault. It needs no
// privilege: a process may trace its children.
func trace(t *testing.T, dir string, f fault, env []string, args ...string) traced {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	require.NoError(t, err)
	defer out.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	tr := &tracer{dir: dir, out: out.Name(), fault: f, open: map[int]*pending{}}
	tr.r.reported = -1
	done := make(chan error)
	go func() { // ptrace belongs to a thread, not to a process
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		pid, err := syscall.ForkExec(binary, append([]string{binary}, args...), &syscall.ProcAttr{
			Env: append(os.Environ(), env...), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
		})
		if err == nil {
			tr.pid = pid
			err = tr.run()
		}
		done <- err
	}()
	require.NoError(t, <-done)
	data, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	tr.r.out = string(data)
	return tr.r
}

func (tr *tracer) run() error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(tr.pid, &ws, unix.WALL, nil); err != nil {
		return fmt.Errorf("waiting for the exec: %w", err)
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return fmt.Errorf("setting ptrace options: %w", err)
	}
	started := map[int]bool{tr.pid: true}
	for tid, signal := tr.pid, 0; ; {
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("continuing thread %d: %w", tid, err)
		}
		var err error
		for tid, err = 0, nil; tid == 0 || ws.Exited() || ws.Signaled(); {
			tid, err = unix.Wait4(-tr.pid, &ws, unix.WALL, nil) // its group: no child of another test
			if errors.Is(err, unix.EINTR) {
				tid = 0
				continue
			}
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("waiting: %w", err)
			}
			if tid == tr.pid && (ws.Exited() || ws.Signaled()) {
				tr.r.killed = ws.Signaled() && ws.Signal() == syscall.SIGKILL
				tr.r.code = ws.ExitStatus()
			}
		}
		signal = int(ws.StopSignal())
		switch {
		case ws.StopSignal() == unix.SIGTRAP|0x80:
			signal = 0
			if err := tr.stop(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		case ws.StopSignal() == unix.SIGTRAP, ws.StopSignal() == unix.SIGSTOP && !started[tid]:
			signal = 0
		}
		started[tid] = true
	}
}

// callInfo is the kernel's struct ptrace_syscall_info.
type callInfo struct {
	op   uint8 // 1: entry, 2: exit
	_    [7]byte
	_, _ uint64    // instruction and stack pointer
	nr   uint64    // at entry; at exit the returned value
	args [6]uint64 // at entry
}

func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func (tr *tracer) stop(tid int) error {
	var info callInfo
	if err := ptrace(unix.PTRACE_GET_SYSCALL_INFO, tid, unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info))); err != nil {
		return err
	}
	if info.op == 2 {
		return tr.leave(tid, int64(info.nr))
	}
	return tr.enter(tid, info)
}

func (tr *tracer) enter(tid int, info callInfo) error {
	delete(tr.open, tid)
	ops, ok := watched[info.nr]
	if !ok {
		return nil
	}
	s := tr.decode(tid, ops, info.args)
	if s.call == "write" && s.path == tr.out && tr.r.reported < 0 {
		tr.r.reported = len(tr.r.steps)
	}
	if !tr.inside(s.path) && !tr.inside(s.to) {
		return nil
	}
	s.ret = -int64(unix.EINTR) // should it never return
	p := &pending{n: len(tr.r.steps)}
	tr.open[tid] = p
	tr.r.steps = append(tr.r.steps, s)
	if tr.fault.look != nil {
		tr.fault.look(p.n, s, false)
	}
	if tr.fault.match == nil || !tr.fault.match(p.n, s) {
		return nil
	}
	tr.r.hits = append(tr.r.hits, s)
	switch {
	case tr.fault.errno != 0:
		p.fail = true
		return skipCall(tid)
	case !tr.fault.after: // the kernel does not begin a call of a thread that is to die
		return unix.Kill(tr.pid, cmp.Or(tr.fault.signal, unix.SIGKILL))
	}
	return nil
}

func (tr *tracer) leave(tid int, ret int64) error {
	p := tr.open[tid]
	if p == nil {
		return nil
	}
	delete(tr.open, tid)
	s := &tr.r.steps[p.n]
	s.ret = ret
	if tr.fault.look != nil {
		tr.fault.look(p.n, *s, true)
	}
	if p.fail {
		s.ret = -int64(tr.fault.errno)
		return setReturn(tid, s.ret)
	}
	if tr.fault.after && tr.fault.errno == 0 && tr.fault.match != nil && tr.fault.match(p.n, *s) {
		return unix.Kill(tr.pid, cmp.Or(tr.fault.signal, unix.SIGKILL))
	}
	return nil
}

func (tr *tracer) inside(path string) bool {
	return path == tr.dir || strings.HasPrefix(path, tr.dir+"/")
}

func (tr *tracer) decode(tid int, ops operands, args [6]uint64) step {
	s := step{dir: tr.dir, call: ops.call}
	switch ops.kind {
	case 'f':
		s.path = tr.fd(tid, args[0])
		if ops.call == "write" || ops.call == "pwrite64" {
			s.text, s.offset = memory(tid, args[1], int(args[2])), int64(args[3])
		}
	case 'p':
		s.path = tr.join(tid, args[0], args[1])
		s.flags = int(args[2])
	case 'r':
		s.path, s.to = tr.join(tid, args[0], args[1]), tr.join(tid, args[2], args[3])
		if ops.call == "renameat2" {
			s.flags = int(args[4])
		}
	case 's':
		s.text, s.path = text(tid, args[0]), tr.join(tid, args[1], args[2])
	}
	return s
}

func (tr *tracer) fd(tid int, fd uint64) string {
	link := fmt.Sprintf("/proc/%d/fd/%d", tid, int32(fd))
	if int32(fd) == unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/cwd", tid)
	}
	path, _ := os.Readlink(link) // of a closed descriptor: ""
	return path
}

func (tr *tracer) join(tid int, fd, name uint64) string {
	path := text(tid, name)
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(tr.fd(tid, fd), path)
}
