package reload

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// needRoot skips what only root can show.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// local is a front whose first process has this pid, on this host.
func local(t *testing.T, pid int) *Front {
	t.Helper()
	groups, err := os.ReadFile(proc(pid, "cgroup"))
	require.NoError(t, err)
	in := &interior{id: string(bytes.TrimSpace(groups)), pid: pid}
	f := &Front{in: in, watcher: &watcher{in: in}}
	f.Container, f.CertName, f.KeyName = "mailu-front-1", "cert.pem", "key.pem"
	return f
}

// sleeping starts a process in a way, and returns its pid.
func sleeping(t *testing.T, attr *syscall.SysProcAttr) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = attr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// remapped is a process whose root is user 100000 of this host, as with userns-remap.
func remapped(t *testing.T) int {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	return sleeping(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{}})
}

func TestRootOfAContainerReadsWhatItsCapabilitiesReach(t *testing.T) {
	for name, c := range map[string]struct {
		r     reader
		reads map[int]bool
	}{
		"this host's root":   {reader{0, true, everybody}, map[int]bool{0: true, 1000: true, 4000000000: true}},
		"without override":   {reader{0, false, everybody}, map[int]bool{0: true, 1000: false}},
		"remapped":           {reader{100000, true, []idsMap{{100000, 65536}}}, map[int]bool{0: false, 99999: false, 100000: true, 100033: true, 165536: false}},
		"remapped, confined": {reader{100000, false, []idsMap{{100000, 65536}}}, map[int]bool{100000: true, 100033: false}},
		"rootless":           {reader{1000, true, []idsMap{{1000, 1}, {100000, 65536}}}, map[int]bool{0: false, 1000: true, 100000: true}},
	} {
		for owner, want := range c.reads {
			assert.Equal(t, want, c.r.reads(owner), "%s: user %d", name, owner)
		}
	}
}

func TestReaderIsSeenFromTheFirstProcess(t *testing.T) {
	needRoot(t)
	r, err := localReader(remapped(t))
	require.NoError(t, err)
	assert.Equal(t, reader{100000, true, []idsMap{{100000, 65536}}}, r)
	r, err = localReader(sleeping(t, nil))
	require.NoError(t, err)
	assert.True(t, r.reads(12345))
	_, err = localReader(exited(t))
	assert.Error(t, err)
}

func TestFrontThatCouldNotReadANewKeyIsRefusedWithTheChownLine(t *testing.T) {
	needRoot(t)
	f := local(t, remapped(t))
	f.CertsDir = t.TempDir()
	err := f.readable()
	require.ErrorIs(t, err, mailu.ErrUnsuitable)
	assert.ErrorContains(t, err, "its root is user 100000 of this host")
	assert.Equal(t, "give the directory to the front's root: chown -R 100000 "+f.CertsDir, say.HintOf(err))

	key := filepath.Join(f.CertsDir, "key.pem")
	require.NoError(t, os.WriteFile(key, nil, 0o600))
	require.Error(t, f.readable())
	require.NoError(t, os.Chown(key, 100000, 100000))
	require.NoError(t, f.readable(), "new files follow the key that is there")
	require.NoError(t, os.Remove(key))
	require.NoError(t, os.Chown(f.CertsDir, 100000, 100000))
	require.NoError(t, f.readable())

	confined, _ := frontOf(t, &daemons{})
	confined.CertsDir, confined.confined = f.CertsDir, true
	assert.ErrorContains(t, confined.readable(), "it runs without CAP_DAC_OVERRIDE")
	confined.CertsDir = t.TempDir()
	require.NoError(t, confined.readable())
}

func TestStoppedFrontThatCouldNotReadANewKeyIsRefusedToo(t *testing.T) {
	needRoot(t)
	const remap = "/var/lib/docker/100000.100000/containers/" + frontID + "/hostname"
	for name, c := range map[string]struct {
		socket   int // its owner
		hostname string
		userns   container.UsernsMode
		root     int
	}{
		"root's engine":                  {0, "/var/lib/docker/containers/" + frontID + "/hostname", "", 0},
		"root's engine in /srv/20.10":    {0, "/srv/20.10/containers/" + frontID + "/hostname", "", 0},
		"userns-remap":                   {0, remap, "", 100000},
		"userns-remap, --userns=host":    {0, remap, "host", 0},
		"a user's engine":                {1000, "/home/1.2/containers/x/hostname", "", 1000},
		"a user's engine, --userns=auto": {1000, "", "auto", 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, "/run/docker.sock")
			d := e.(*listedOnce).Engine.(*docker)
			d.owner = func(string) int { return c.socket }
			info := fixture(t, inState("exited"), func(info *container.InspectResponse) {
				info.State.Pid, info.HostnamePath, info.HostConfig.UsernsMode = 0, c.hostname, c.userns
			})
			f := newFront(e, d.inspection(info))
			f.CertsDir = t.TempDir()
			if c.root == 0 {
				require.NoError(t, f.readable())
				return
			}
			err := f.readable()
			require.ErrorIs(t, err, mailu.ErrUnsuitable)
			assert.Equal(t, fmt.Sprintf("give the directory to the front's root: chown -R %d %s", c.root, f.CertsDir), say.HintOf(err))
			for _, owner := range []int{c.root, 100033} { // the latter may be in its user namespace
				require.NoError(t, os.Chown(f.CertsDir, owner, owner))
				require.NoError(t, f.readable())
			}
		})
	}
}

func TestFrontThatMountedAnotherDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	root, outside, pid1 := containerRoot(t)
	f := local(t, pid1)
	require.NoError(t, os.Mkdir(filepath.Join(root, "certs"), 0o755))
	f.CertsDir = filepath.Join(t.TempDir(), "certs") // a link of the administrator's
	require.NoError(t, os.Symlink(filepath.Join(root, "certs"), f.CertsDir))
	require.NoError(t, f.sees())
	require.NoError(t, os.Remove(f.CertsDir))
	require.NoError(t, os.Symlink(outside, f.CertsDir))
	err := f.sees()
	require.ErrorIs(t, err, mailu.ErrUnsuitable)
	assert.ErrorContains(t, err, "a link in its path was changed")
	assert.Contains(t, say.HintOf(err), "docker restart mailu-front-1")

	require.NoError(t, os.Remove(filepath.Join(root, "certs")))
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "certs")))
	require.NoError(t, f.sees(), "a link out of the container is not followed, and says nothing")
}

func TestWhatAContainerShowsIsReadInBounds(t *testing.T) {
	cmd := exec.Command("sh", append([]string{"-c", "echo ready; read x", "sh"}, strings.Split(strings.Repeat("argument ", 20000), " ")...)...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	start(t, cmd)
	defer in.Close()
	p, err := readProcess(cmd.Process.Pid)
	require.NoError(t, err)
	assert.Equal(t, []string{"sh", "-c"}, p.args[:2])
	assert.LessOrEqual(t, len(strings.Join(p.args, " ")), maxArguments)

	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	began := time.Now()
	_, err = readSome(fifo, 10)
	require.ErrorIs(t, err, errNotRegular)
	within(t, time.Second, began, "opening a fifo")
	_, err = readSome("/dev/zero", 10)
	require.ErrorIs(t, err, errNotRegular)
}

func TestContainerIsLocalIfOneOfItsMountsNamesIt(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	first := strings.Fields(string(mounts))[:6]
	in := interior{pid: os.Getpid(), id: strings.Join(first, " ")} // stands for a path with the id in it
	assert.True(t, in.isLocal())
	in.id = strings.Repeat("0123456789abcdef", 4)
	assert.False(t, in.isLocal())
}
