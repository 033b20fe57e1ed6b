package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
			if e.now() != nil && len(e.leads) > 1 && !strings.HasSuffix(base, ".lock") {
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
		require.NoError(t, filepath.WalkDir(certs, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Name() == stateIn {
				return fs.SkipDir // root's
			}
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
