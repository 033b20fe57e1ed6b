package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// disk is a certs directory as a power loss may leave it. POSIX promises no
// more than this: bytes are safe once their file is fsynced, a directory's
// entry once the directory is. Until then each file holds any of the contents
// it had since, or half of the last; and each name leads to any of the things
// it led to since, whatever became of the others, in whatever order they were
// made. A rename takes effect at once for a running program, and for a power loss
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
