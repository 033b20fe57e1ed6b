package reload

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const procps = `    PID    PPID COMMAND         COMMAND
      1       0 python3         python3 /start.py
      8       1 certwatcher.py  /usr/bin/python3 /certwatcher.py
     14       1 dovecot         dovecot -c /etc/dovecot/proxy.conf
     16      14 anvil           dovecot/anvil
     23       1 nginx           nginx: master process /usr/sbin/nginx -g daemon off;
     24      23 nginx           nginx: worker process
     61       0 ps              ps -A -o pid,ppid,comm,args
`

const busybox = `PID   PPID  COMMAND          COMMAND
    1     0 python3          {start.py} /usr/bin/python3 /start.py
    8     1 python3          python3 /certwatcher.py
   14     1 dovecot          dovecot -c /etc/dovecot/proxy.conf
   16    14 anvil            dovecot/anvil
   23     1 nginx            nginx: master process /usr/sbin/nginx -g daemon off;
   24    23 nginx            nginx: worker process
   61     0 ps               ps -A -o pid,ppid,comm,args
`

func TestMastersAreFoundInTheOutputOfEitherPS(t *testing.T) {
	for name, out := range map[string]string{"procps": procps, "busybox": busybox} {
		t.Run(name, func(t *testing.T) {
			procs := parsePS(out)
			assert.Len(t, procs, 7)
			nginx, ok := master(procs, "nginx")
			require.True(t, ok)
			assert.Equal(t, 23, nginx.inside)
			assert.Equal(t, 1, nginx.parent)
			assert.Zero(t, nginx.host, "pids of ps are those inside")
			dovecot, ok := master(procs, "dovecot")
			require.True(t, ok)
			assert.Equal(t, []string{"dovecot", "-c", "/etc/dovecot/proxy.conf"}, dovecot.args)
			assert.True(t, runs(procs, "certwatcher.py"))
			assert.True(t, runs(procs, "start.py"))
			assert.False(t, runs(procs, "config.py"))
		})
	}
}

func TestOutputThatIsNotOfPSYieldsNoProcess(t *testing.T) {
	for _, out := range []string{"", "\n\n", "ps: unrecognized option: A\n", "1 2\n", "x y z w\n", "\x00\xff\n", strings.Repeat("9", 100) + " 1 nginx nginx\n"} {
		assert.Empty(t, parsePS(out), "%q", out)
	}
}

func TestMasterIsTheOneWithoutAParentOfItsName(t *testing.T) {
	for name, c := range map[string]struct {
		procs []process
		want  int // 0: none
	}{
		"none":               {nil, 0},
		"others only":        {[]process{{inside: 1, name: "python3"}}, 0},
		"name is not prefix": {[]process{{inside: 5, parent: 1, name: "nginx-debug"}}, 0},
		"PID 1 itself":       {[]process{{inside: 1, name: "nginx"}, {inside: 7, parent: 1, name: "nginx"}}, 1},
		"worker listed first": {[]process{
			{inside: 7, parent: 30, name: "nginx"}, {inside: 30, parent: 1, name: "nginx"}, {inside: 1, name: "python3"},
		}, 30},
	} {
		t.Run(name, func(t *testing.T) {
			p, ok := master(c.procs, "nginx")
			assert.Equal(t, c.want != 0, ok)
			assert.Equal(t, c.want, p.inside)
		})
	}
}

func TestScriptRunsUnderAnInterpreterOrAlone(t *testing.T) {
	for args, want := range map[string]bool{
		"python3 /config.py":              true,
		"/usr/bin/python3 /config.py":     true,
		"/config.py":                      true,
		"/usr/bin/env python3 /config.py": true,
		"python3 /start.py":               false,
		"grep -r secret / config.py":      false,
		"python3 /config.py.orig":         false,
		"":                                false,
	} {
		assert.Equal(t, want, runs([]process{{args: strings.Split(args, " ")}}, "config.py"), args)
	}
}

func TestLocalProcessesAreThoseOfTheNamespace(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	procs := localProcesses(tree.pid1)
	inside := map[int]process{}
	for _, p := range procs {
		assert.Positive(t, p.host)
		inside[p.inside] = p
	}
	require.Contains(t, inside, 1)
	assert.Equal(t, tree.pid1, inside[1].host)
	assert.Zero(t, inside[1].parent)
	assert.Equal(t, []string{"./python3", "./start.py"}, inside[1].args)
	assert.NotContains(t, names(procs), "unshare")

	nginx, ok := master(procs, "nginx")
	require.True(t, ok)
	assert.Equal(t, []string{"./nginx", "./master.sh"}, nginx.args)
	assert.Equal(t, 1, nginx.parent, "parents are pids inside")
	assert.True(t, runs(procs, "start.py"))
	assert.True(t, runs(procs, watcherScript))
	assert.False(t, runs(procs, configScript))
}

func TestProcessesOfTheHostsOwnNamespaceAreNotListed(t *testing.T) {
	assert.Nil(t, localProcesses(os.Getpid()), "docker run --pid=host")
	assert.Nil(t, localProcesses(exited(t)))
}

func TestContainerIsLocalOnlyIfItsControlGroupNamesIt(t *testing.T) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	ours := string(bytes.TrimSpace(groups)) // stands for the container's id, which is a part of it
	other := strings.Repeat("0123456789abcdef", 4)
	for name, c := range map[string]struct {
		pid   int
		id    string
		local bool
	}{
		"its own id":   {os.Getpid(), ours, true},
		"another's id": {os.Getpid(), other, false},
		"no id":        {os.Getpid(), "", false},
		"stopped":      {0, ours, false},
		"negative":     {-1, ours, false},
		"gone":         {exited(t), ours, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := interior{pid: c.pid, id: c.id}
			assert.Equal(t, c.local, in.isLocal())
		})
	}
}

func TestProcessesOfALocalContainerNeedNoEngine(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	f := tree.front(t)
	procs, err := f.in.processes(t.Context())
	require.NoError(t, err)
	nginx, _ := master(procs, "nginx")
	require.NoError(t, f.in.hangUp(t.Context(), nginx))
	line, err := tree.output.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HUP\n", line)
}

func TestSignalReachesTheMaster(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	nginx, ok := master(localProcesses(tree.pid1), "nginx")
	require.True(t, ok)
	require.NoError(t, signal(nginx, syscall.SIGHUP))
	line, err := tree.output.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HUP\n", line)
}

func TestSignalSparesAProcessThatIsNotTheOneFound(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	nginx, ok := master(localProcesses(tree.pid1), "nginx")
	require.True(t, ok)
	assert.Error(t, signal(process{host: nginx.host, inside: nginx.inside, name: "dovecot"}, syscall.SIGHUP), "pid used anew by another daemon")
	assert.Error(t, signal(process{host: nginx.host, inside: nginx.inside + 1, name: "nginx"}, syscall.SIGHUP), "pid used anew in another container")
	assert.Error(t, signal(process{host: exited(t), inside: nginx.inside, name: "nginx"}, syscall.SIGHUP))

	require.NoError(t, syscall.Kill(nginx.host, syscall.SIGTERM))
	rest, err := tree.output.ReadString('\n') // HUP would be handled first
	require.NoError(t, err)
	assert.Equal(t, "bye\n", rest)
}

// exited is the pid of a process that is no more.
func exited(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	cmd.Stdout = io.Discard
	require.NoError(t, cmd.Run())
	return cmd.Process.Pid
}

func names(procs []process) (list []string) {
	for _, p := range procs {
		list = append(list, p.name)
	}
	return list
}
