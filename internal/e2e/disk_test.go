package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// disk is a certs directory as a power loss may leave it. POSIX promises no
// more than this: bytes are safe once their file is fsynced, a directory's
// entry once the directory is. Until then each file holds any of the contents
// it had since, or half of the last; and each name leads to any of the things
// it led to since, whatever became of the others, in whatever order they were
// made. A rename takes effect at once for whoever runs, and for a power loss
// not at all.
type disk struct {
	certs string
	root  *node
}

// node is a file, directory or link.
type node struct {
	isDir    bool
	target   string            // of a link
	contents []string          // of a file: the durable one, and those since; the last is what a reader meets
	entries  map[string]*entry // of a directory
}

// entry is one of a directory: what it durably leads to, and where it led
// since. nil stands for nothing.
type entry struct{ leads []*node }

func (e *entry) now() *node { return e.leads[len(e.leads)-1] }

func loadDisk(t *testing.T, certs string) *disk {
	t.Helper()
	d := &disk{certs: certs, root: &node{isDir: true, entries: map[string]*entry{}}}
	require.NoError(t, filepath.WalkDir(certs, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == certs {
			return err
		}
		n := &node{isDir: e.IsDir(), entries: map[string]*entry{}}
		if e.Type()&fs.ModeSymlink != 0 {
			n.target, err = os.Readlink(path)
		} else if !e.IsDir() {
			var data []byte
			data, err = os.ReadFile(path)
			n.contents = []string{string(data)}
		}
		d.entry(path).leads = []*node{n}
		return err
	}))
	return d
}

// entry is the one that path names, made if need be.
func (d *disk) entry(path string) *entry {
	dir := d.node(filepath.Dir(path))
	base := filepath.Base(path)
	if dir.entries[base] == nil {
		dir.entries[base] = &entry{leads: []*node{nil}}
	}
	return dir.entries[base]
}

func (d *disk) node(path string) *node {
	if path == d.certs {
		return d.root
	}
	return d.entry(path).now()
}

// apply does to the disk what a step did.
func (d *disk) apply(t *testing.T, s step) {
	t.Helper()
	if s.ret < 0 || !s.changes() {
		return
	}
	switch s.call {
	case "mkdirat":
		d.lead(s.path, &node{isDir: true, entries: map[string]*entry{}})
	case "symlinkat":
		d.lead(s.path, &node{target: s.text})
	case "openat":
		if d.node(s.path) == nil {
			d.lead(s.path, &node{contents: []string{""}})
		} else if s.flags&unix.O_TRUNC != 0 {
			d.fill(s.path, "")
		}
	case "write":
		file := d.node(s.path)
		d.fill(s.path, file.contents[len(file.contents)-1]+s.text)
	case "pwrite64", "ftruncate": // the lock: its content serves nobody but people
		d.fill(s.path, s.text)
	case "renameat", "linkat":
		n := d.node(s.path)
		if s.call == "renameat" {
			d.lead(s.path, nil)
		}
		d.lead(s.to, n)
	case "unlinkat":
		d.lead(s.path, nil)
	case "fsync", "fdatasync":
		n := d.node(s.path)
		for _, e := range n.entries {
			e.leads = e.leads[len(e.leads)-1:]
		}
		if n.contents != nil {
			n.contents = n.contents[len(n.contents)-1:]
		}
	case "fchown", "fchownat", "fchmod", "fchmodat":
	default:
		t.Fatalf("the disk knows no %s", s.call)
	}
}

func (d *disk) lead(path string, to *node) {
	e := d.entry(path)
	e.leads = append(e.leads, to)
}

func (d *disk) fill(path, content string) {
	n := d.node(path)
	n.contents = append(n.contents, content)
}

// outcome is one of the ways in which a power loss can turn out: what each
// name and file that is looked at is, or was, all in the order of the looks.
type outcome struct {
	picks, sizes []int
	looks        int
	made         map[any]int
}

func (o *outcome) pick(of any, size int) int {
	if i, ok := o.made[of]; ok {
		return i
	}
	if o.looks == len(o.picks) {
		o.picks, o.sizes = append(o.picks, 0), append(o.sizes, 0)
	}
	o.sizes[o.looks] = size
	o.made[of] = o.picks[o.looks]
	o.looks++
	return o.made[of]
}

// next turns to the next outcome, and says whether there is one.
func (o *outcome) next() bool {
	o.picks = o.picks[:o.looks]
	o.looks, o.made = 0, map[any]int{}
	for i := len(o.picks) - 1; i >= 0; i-- {
		if o.picks[i]++; o.picks[i] < o.sizes[i] {
			return true
		}
		o.picks = o.picks[:i]
	}
	return false
}

// walk follows a path below the directory, and the links on the way, as which
// says that each entry leads.
func (d *disk) walk(path string, which func(path string, e *entry) *node) (*node, error) {
	at, dir, parts := d.root, "", strings.Split(path, "/")
	for links := 0; len(parts) > 0; {
		e := at.entries[parts[0]]
		if e == nil {
			return nil, fs.ErrNotExist
		}
		here := filepath.Join(dir, parts[0])
		n := which(here, e)
		parts = parts[1:]
		switch {
		case n == nil:
			return nil, fs.ErrNotExist
		case n.target != "":
			if links++; links > 8 {
				return nil, syscall.ELOOP
			}
			parts = append(strings.Split(n.target, "/"), parts...)
		case n.isDir || len(parts) == 0:
			at, dir = n, here
		default:
			return nil, syscall.ENOTDIR
		}
	}
	return at, nil
}

// read reads a file as the front would after the power loss.
func (d *disk) read(o *outcome, path string) ([]byte, error) {
	n, err := d.walk(path, func(_ string, e *entry) *node { return e.leads[o.pick(e, len(e.leads))] })
	if err != nil {
		return nil, err
	}
	if n.isDir {
		return nil, syscall.EISDIR
	}
	possible := n.contents
	if last := possible[len(possible)-1]; len(possible) > 1 {
		possible = append(slices.Clone(possible), last[:len(last)/2])
	}
	return []byte(possible[o.pick(n, len(possible))]), nil
}

// afterPowerLoss counts the outcomes by which pair the two names lead to.
func (sc *scenario) afterPowerLoss(d *disk) map[string]int {
	ways := map[string]int{}
	for o := (&outcome{made: map[any]int{}}); ; {
		cert, certErr := d.read(o, "cert.pem")
		key, keyErr := d.read(o, "key.pem")
		ways[sc.judge(cert, key, certErr, keyErr)]++
		if !o.next() {
			return ways
		}
	}
}

// hasty says what is wrong with doing s now, "" if nothing is: what a name is
// about to lead to has to be durable before the name is.
func (d *disk) hasty(s step) string {
	if s.ret < 0 || s.call != "renameat" || strings.HasPrefix(filepath.Base(s.to), "tmp-") {
		return ""
	}
	moved := d.node(s.path)
	if moved.target == "" {
		if loose := d.loose(moved, s.path); loose != "" {
			return fmt.Sprintf("%v: before %s is fsynced", s, loose)
		}
		return ""
	}
	loose := ""
	where, _ := filepath.Rel(d.certs, filepath.Join(filepath.Dir(s.to), moved.target))
	_, err := d.walk(where, func(path string, e *entry) *node {
		if len(e.leads) > 1 {
			loose = path
		}
		return e.now()
	})
	switch {
	case err != nil:
		return fmt.Sprintf("%v: it leads nowhere: %v", s, err)
	case loose != "":
		return fmt.Sprintf("%v: before the directory of %s is fsynced", s, loose)
	}
	return ""
}

// loose names something in n that is not durable.
func (d *disk) loose(n *node, path string) string {
	if len(n.contents) > 1 {
		return path
	}
	for base, e := range n.entries {
		if len(e.leads) > 1 {
			return path + " (entry " + base + ")"
		}
		if e.now() != nil {
			if loose := d.loose(e.now(), filepath.Join(path, base)); loose != "" {
				return loose
			}
		}
	}
	return ""
}

// untold lists what is there and may not be after a power loss.
func (d *disk) untold() (list []string) {
	for dir, n := range map[string]*node{"": d.root, ".mailu-hook/": d.node(filepath.Join(d.certs, ".mailu-hook"))} {
		for base, e := range n.entries {
			if e.now() != nil && len(e.leads) > 1 && base != "lock" {
				list = append(list, dir+base)
			}
		}
	}
	return list
}

// survives plays r on d, and wants every power loss on the way to leave the old
// pair or the new one, and every one after the report the new one.
func (sc *scenario) survives(d *disk, r traced, what string) (losses int) {
	sc.t.Helper()
	met := map[string]bool{}
	for n := 0; n <= len(r.steps); n++ {
		if n == r.reported {
			assert.Empty(sc.t, d.untold(), "%s: the end is reported before this is durable", what)
		}
		for got, ways := range sc.afterPowerLoss(d) {
			losses += ways
			allowed := sc.allowed()
			if r.reported >= 0 && n >= r.reported {
				allowed = []string{"new"}
			}
			if !slices.Contains(allowed, got) && !met[got] {
				met[got] = true
				sc.t.Errorf("%s, then a power loss before step %d of %d (%v): the names lead to %s", what, n, len(r.steps), append(r.steps, step{call: "the end"})[n], got)
			}
		}
		if n < len(r.steps) {
			assert.Empty(sc.t, d.hasty(r.steps[n]), what)
			d.apply(sc.t, r.steps[n])
		}
	}
	return losses
}

func TestAPowerLossAtAnyStepLeavesTheOldPairOrTheNew(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios {
		sc := scenarioOf(t, name)
		certs := sc.fresh()
		d := loadDisk(t, certs)
		r := sc.trace(certs, fault{})
		require.Equal(t, 8, r.code, r.out)
		require.GreaterOrEqual(t, r.reported, 0)
		losses := sc.survives(d, r, name)
		assert.Equal(t, sc.state(certs), sc.stateOf(d), "%s: the model strayed from the disk", name)

		// The worst that can happen is that all is lost that was not fsynced.
		// From there too the next run has to find its way.
		d = loadDisk(t, sc.fresh())
		trees := map[string]bool{}
		for _, s := range r.steps {
			d.apply(t, s)
			d.materialise(t, certs, func(e *entry) *node { return e.leads[0] }, func(n *node) string { return n.contents[0] })
			if state := sc.state(certs); !trees[state] {
				trees[state] = true
				require.Contains(t, sc.allowed(), sc.installed(certs))
				sc.finishes(certs, fmt.Sprintf("%s, power loss after %v", name, s))
			}
		}
		t.Logf("%s: %d steps, %d outcomes of a power loss; %d trees finished by a later run", name, len(r.steps), losses, len(trees))
	}
}

// stateOf is state for the modelled disk.
func (sc *scenario) stateOf(d *disk) string {
	certs := filepath.Join(sc.dir, "modelled")
	d.materialise(sc.t, certs, (*entry).now, func(n *node) string { return n.contents[len(n.contents)-1] })
	return sc.state(certs)
}

// materialise writes one outcome to a real directory.
func (d *disk) materialise(t *testing.T, certs string, which func(*entry) *node, content func(*node) string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(certs))
	var put func(n *node, path string) error
	put = func(n *node, path string) error {
		mode, err := os.FileMode(0o600), error(nil)
		switch {
		case n.target != "":
			return os.Symlink(n.target, path)
		case !n.isDir:
			if filepath.Base(path) == "cert.pem" {
				mode = 0o644
			}
			return os.WriteFile(path, []byte(content(n)), mode)
		}
		err = os.Mkdir(path, 0o700)
		for _, base := range slices.Sorted(maps.Keys(n.entries)) {
			if child := which(n.entries[base]); child != nil {
				err = errors.Join(err, put(child, filepath.Join(path, base)))
			}
		}
		return err
	}
	require.NoError(t, put(d.root, certs))
	require.NoError(t, os.Chmod(certs, 0o755))
	if os.Geteuid() == 0 {
		require.NoError(t, filepath.WalkDir(certs, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, owner, owner))
		}))
	}
}

// A kill loses nothing that was written, but what the next run finds is not
// durable yet, and it has to make it so. The short version kills after each
// step that the others build on, the long one after each that changes anything.
func TestAPowerLossAfterAKillAndTheNextRunLeavesAWholePair(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios {
		sc := scenarioOf(t, name)
		whole := sc.trace(sc.fresh(), fault{})
		points, losses := 0, 0
		for n, s := range whole.steps {
			if !s.changes() || !soak && s.call != "renameat" && s.call != "mkdirat" {
				continue
			}
			certs := sc.fresh()
			d := loadDisk(t, certs)
			killed := sc.trace(certs, fault{match: at(n), after: true})
			require.True(t, killed.killed)
			for _, s := range killed.steps {
				d.apply(t, s)
			}
			env, args := sc.next(certs)
			r := trace(t, certs, fault{}, slices.Concat(sc.bench.env, env), withDir(args, certs)...)
			require.Equal(t, 8, r.code, r.out)
			points++
			losses += sc.survives(d, r, fmt.Sprintf("%s, killed after %v, and the next run", name, s))
		}
		t.Logf("%s: %d kill points, %d outcomes of a power loss", name, points, losses)
	}
}

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
	sc.mount = "disk"
	disk := filepath.Join(sc.dir, sc.mount)
	require.NoError(sc.t, os.MkdirAll(disk, 0o755))
	require.NoError(sc.t, unix.Mount("tmpfs", disk, "tmpfs", 0, options))
	sc.t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }) // should the test end early
}

func (sc *scenario) unmountDisk() {
	sc.t.Helper()
	require.NoError(sc.t, unix.Unmount(filepath.Join(sc.dir, sc.mount), unix.MNT_DETACH))
	sc.mount = ""
}

// fillDisk leaves room for so many pages, or so many files, and returns what
// makes room again.
func (sc *scenario) fillDisk(pages, files int) (empty func()) {
	sc.t.Helper()
	filler := filepath.Join(sc.dir, sc.mount, "filler")
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
						assert.Contains(t, out, "hint: the file system is full: make room", what)
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

// The short version fails each step that changes anything, and gives the disk
// up at each rename and fsync; the long one fails each that reads, too, and gives
// the disk up at each change.
func TestEveryCallThatFailsKeepsTheOldPair(t *testing.T) {
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := scenarioOf(t, name)
			whole := sc.trace(sc.fresh(), fault{})
			points, codes := 0, map[int]int{}
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
				sc.finishes(certs, what)
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
			t.Logf("%d faults on %d steps; by exit status: %v", points, len(whole.steps), codes)
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
