package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// failed is a run on a disk that fails.
type failed struct {
	before string // what was installed
	code   int
	out    string
	litter int // files that it may leave because it could not remove them
}

// fails holds a run that met a failing disk to what it owes.
func (sc *scenario) fails(certs string, r failed, what string) {
	sc.t.Helper()
	code, out := r.code, r.out
	installed := sc.installed(certs)
	switch code {
	case 8:
		assert.Equal(sc.t, "new", installed, "%s: %s", what, out)
	case 1:
		assert.Equal(sc.t, r.before, installed, "%s: exit 1 says that nothing was changed: %s", what, out)
		assert.Contains(sc.t, sc.allowed(), installed, "%s: %s", what, out)
	default:
		sc.t.Errorf("%s: exit status %d: %s", what, code, out)
	}
	assert.Contains(sc.t, out, "mailu-hook: error: ", what)
	assert.Contains(sc.t, out, "mailu-hook: hint: ", what)
	assert.NotContains(sc.t, out, "PRIVATE KEY", what)
	assert.LessOrEqual(sc.t, len(leftovers(sc.t, certs)), r.litter, what)
	assert.Empty(sc.t, exposed(sc.t, certs), what)
}

// mountDisk gives the scenario a file system of its own for its runs.
func (sc *scenario) mountDisk(options string) {
	sc.t.Helper()
	if os.Geteuid() != 0 {
		sc.t.Skip("needs root: mounts a tmpfs")
	}
	disk := filepath.Dir(sc.certs())
	require.NoError(sc.t, unix.Mount("tmpfs", disk, "tmpfs", 0, options))
	sc.t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }) // should the test end early
}

func (sc *scenario) unmountDisk() {
	sc.t.Helper()
	require.NoError(sc.t, unix.Unmount(filepath.Dir(sc.certs()), unix.MNT_DETACH))
}

// fillDisk leaves room for so many pages, or so many files, and returns what
// makes room again.
func (sc *scenario) fillDisk(pages, files int) (empty func()) {
	sc.t.Helper()
	filler := filepath.Join(filepath.Dir(sc.certs()), "filler")
	require.NoError(sc.t, os.Mkdir(filler, 0o700))
	var err error
	n := 0
	for ; err == nil; n++ {
		if files < 0 {
			err = os.WriteFile(filepath.Join(filler, fmt.Sprint(n)), make([]byte, 4096), 0o600)
		} else {
			err = os.WriteFile(filepath.Join(filler, fmt.Sprint(n)), nil, 0o600)
		}
	}
	require.ErrorIs(sc.t, err, syscall.ENOSPC)
	_ = os.Remove(filepath.Join(filler, fmt.Sprint(n-1))) // the one that failed
	for i := range max(pages, files) {
		require.NoError(sc.t, os.Remove(filepath.Join(filler, fmt.Sprint(n-2-i))))
	}
	return func() { require.NoError(sc.t, os.RemoveAll(filler)) }
}

func TestDiskThatRunsFullAtAnyStepKeepsTheOldPair(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := scenarioOf(t, name)
			codes := map[string][]int{}
			for _, kind := range []string{"pages", "files"} {
				for room := 0; room <= 16; room++ {
					what := fmt.Sprintf("room for %d %s", room, kind)
					sc.mountDisk("size=512k,nr_inodes=120")
					certs := sc.fresh()
					pages, files := room, -1
					if kind == "files" {
						pages, files = -1, room
					}
					empty := sc.fillDisk(pages, files)
					code, out := 0, ""
					for range 3 { // again and again leaves no more than once
						before := sc.installed(certs)
						code, out = sc.run(certs, sc.env, sc.args...)
						sc.fails(certs, failed{before: before, code: code, out: out}, what)
					}
					if code == 1 {
						assert.Contains(t, out, "no space left on device", what)
						assert.Contains(t, out, "hint: the file system is full: free some space", what)
					}
					codes[kind] = append(codes[kind], code)
					empty()
					sc.finishes(certs, what)
					sc.unmountDisk()
				}
				assert.Contains(t, codes[kind], 1, "it was never too full")
				assert.Contains(t, codes[kind], 8, "it was always too full")
			}
			t.Logf("exit status by room: %v", codes)
		})
	}
}

func TestReadOnlyDiskKeepsTheOldPair(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	for _, name := range scenarios {
		sc := scenarioOf(t, name)
		certs := sc.fresh()
		require.NoError(t, unix.Mount(certs, certs, "", unix.MS_BIND, ""))
		t.Cleanup(func() { _ = unix.Unmount(certs, unix.MNT_DETACH) }) // should the test end early
		require.NoError(t, unix.Mount("", certs, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		before := snapshot(t, certs)
		code, out := sc.run(certs, sc.env, sc.args...)
		assert.Equal(t, 1, code, "%s: %s", name, out)
		sc.fails(certs, failed{before: sc.allowed()[0], code: code, out: out}, name)
		assert.Contains(t, out, "read-only", name)
		assert.Equal(t, before, snapshot(t, certs), name)
		require.NoError(t, unix.Unmount(certs, unix.MNT_DETACH))
		sc.finishes(certs, name)
	}
}

// The short version fails each step that changes anything, gives the disk up at
// each rename and fsync, and lets a later run finish from each different tree; the
// long one also fails each step that reads, gives the disk up at each change, and
// lets a later run finish every time.
func TestEveryCallThatFailsKeepsTheOldPair(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := scenarioOf(t, name)
			whole := sc.trace(sc.fresh(), fault{})
			points, codes, states := 0, map[int]int{}, map[string]bool{}
			try := func(what string, f fault) {
				certs := sc.fresh()
				f.errno = cmp.Or(f.errno, syscall.EIO)
				r := sc.trace(certs, f)
				require.NotEmpty(t, r.hits, what)
				points++
				codes[r.code]++
				litter := 1
				if last := r.hits[len(r.hits)-1]; len(r.hits) == 1 && last.changes() && last.call != "unlinkat" {
					litter = 0
				}
				sc.fails(certs, failed{sc.allowed()[0], r.code, r.out, litter}, what)
				if state := sc.state(certs); soak || !states[state] {
					states[state] = true
					sc.finishes(certs, what)
				}
			}
			for n, s := range whole.steps {
				if soak || s.changes() {
					try(fmt.Sprintf("step %d fails: %v", n, s), fault{match: at(n)})
				}
				if !s.changes() {
					continue
				}
				if soak || s.call == "renameat" || s.call == "fsync" { // as when the kernel gives the disk up
					try(fmt.Sprintf("every change fails from step %d on: %v", n, s), fault{errno: syscall.EROFS, match: func(i int, s step) bool { return i >= n && s.changes() }})
				}
			}
			t.Logf("%d faults on %d steps left %d different trees; by exit status: %v", points, len(whole.steps), len(states), codes)
		})
	}
}

func TestUserWithoutPermissionChangesNothing(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: becomes another user")
	}
	const nobody = 65534
	for _, name := range scenarios {
		sc := scenarioOf(t, name)
		require.NoError(t, os.Chmod(sc.dir, 0o755))
		program := filepath.Join(sc.dir, "mailu-hook")
		require.NoError(t, exec.CommandContext(t.Context(), "cp", binary, program).Run())
		readable := func() { // the lineage, so that it is the certs directory that is in the way
			out, err := exec.CommandContext(t.Context(), "chmod", "-R", "a+rX", filepath.Join(sc.dir, "letsencrypt")).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
		for lineage, want := range map[string]int{"secret": 3, "readable": 1} {
			if lineage == "readable" {
				readable()
			} else if sc.env == nil {
				continue // a rollback reads no lineage
			}
			certs := sc.fresh()
			before := snapshot(t, certs)
			cmd := exec.CommandContext(t.Context(), program, withDir(sc.args, certs)...)
			cmd.Env = slices.Concat(os.Environ(), sc.bench.env, sc.env)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			data, _ := cmd.CombinedOutput()
			out := string(data)
			assert.Equal(t, want, cmd.ProcessState.ExitCode(), "%s, %s: %s", name, lineage, out)
			assert.Contains(t, out, "permission denied", "%s, %s", name, lineage)
			assert.Contains(t, out, "mailu-hook: hint: run mailu-hook as root", "%s, %s", name, lineage)
			assert.Equal(t, before, snapshot(t, certs), "%s, %s", name, lineage)
			sc.finishes(certs, name)
			require.NoError(t, exec.CommandContext(t.Context(), "chmod", "-R", "go-rwx", filepath.Join(sc.dir, "letsencrypt")).Run())
		}
	}
}
