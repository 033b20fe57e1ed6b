package reload

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const chrootVariable = "RELOAD_TEST_CHROOT"

// TestMain is also the process whose root directory the tests of putLocal write
// through, as a container's first process has one of its own.
func TestMain(m *testing.M) {
	dir := os.Getenv(chrootVariable)
	if dir == "" {
		ossignal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // under nohup a shell that inherits it as ignored could not trap it
		os.Exit(m.Run())
	}
	if err := syscall.Chroot(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
}

// isolated makes cmd start with namespaces of its own, also for those who are
// not root.
func isolated(cmd *exec.Cmd, flags uintptr) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// start starts cmd, waits for its line "ready", and returns what it says after
// that. It is killed when the test ends.
func start(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return lines
}

// rootedAt starts a process whose root directory is dir and returns its pid.
func rootedAt(t *testing.T, dir string) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), chrootVariable+"="+dir)
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	isolated(cmd, 0)
	start(t, cmd)
	return cmd.Process.Pid
}

// fakeTree is a tree of processes in a pid namespace of its own, named as
// those of a front are: start.py, certwatcher.py, nginx with a worker, dovecot.
type fakeTree struct {
	dir    string
	pid1   int
	output *bufio.Reader // a line "HUP" for each that the nginx master got, "bye" on TERM
}

func newTree(t *testing.T) fakeTree {
	t.Helper()
	return newTreeWith(t, "sleep 600 & wait")
}

// newTreeWith is one whose watcher does as the script says. It has a /config.py.
func newTreeWith(t *testing.T, watcher string) fakeTree {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"python3", "nginx", "dovecot"} {
		require.NoError(t, os.Symlink("/bin/sh", filepath.Join(dir, name)))
	}
	for name, script := range map[string]string{
		"start.py":       "./python3 ./certwatcher.py & ./dovecot ./dovecot.sh & ./nginx ./master.sh & wait",
		"certwatcher.py": watcher,
		"busy.sh":        "while :; do sleep 0.02; done",
		"config.py":      "date +%s%N >>runs; sleep 0.2; date +%s%N >>runs",
		"dovecot.sh":     "sleep 600 & wait",
		"master.sh":      "trap 'echo HUP' HUP; trap 'echo bye; exit' TERM; ./nginx ./worker.sh & while :; do wait; done",
		"worker.sh":      "echo ready; sleep 600 & wait",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script+"\n"), 0o600))
	}
	cmd := exec.Command("./python3", "./start.py")
	cmd.Dir = dir
	isolated(cmd, syscall.CLONE_NEWPID)
	output := start(t, cmd)
	tree := fakeTree{dir, cmd.Process.Pid, output}
	require.Eventually(t, func() bool { // the three are started side by side
		procs := localProcesses(tree.pid1)
		_, dovecot := master(procs, "dovecot")
		return dovecot && runs(procs, watcherScript)
	}, 5*time.Second, 5*time.Millisecond)
	return tree
}

// front is one whose processes the tree are, as if they were a container's.
func (tree fakeTree) front(t *testing.T) *Front {
	t.Helper()
	groups, err := os.ReadFile(proc(tree.pid1, "cgroup"))
	require.NoError(t, err)
	in := &interior{id: string(bytes.TrimSpace(groups)), pid: tree.pid1}
	return &Front{in: in, watcher: &watcher{in: in}}
}

// within fails the test if what took longer than limit since began.
func within(t *testing.T, limit time.Duration, began time.Time, what string) {
	t.Helper()
	assert.Less(t, time.Since(began), limit, "%s took too long", what)
}
