package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// What a kill leaves is what the disk shows while the process stands still before
// or after a system call. So the short version stops one run at every call that
// touches the directory, looks, and copies each different tree for a later run to
// finish; a front serves those that are seen by other links. The long version kills
// a run at every such call instead, lets a later run finish after each, and a front
// serve for every scenario.
func TestKilledAtEveryStepThePairStaysWholeAndALaterRunFinishes(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &kills{scenario: scenarioOf(t, name), found: map[string]int{}, states: map[string]string{}, layouts: map[string]string{}}
			if soak {
				k.killAtEach()
			} else {
				k.lookAtEach()
			}
			t.Logf("%d kill points left %d different trees; the names then led to %v", k.points, len(k.states), k.found)
			require.Greater(t, k.points, 100)
			require.Len(t, k.found, 2, "the kills met the old state and the new")
			if name == "fresh install" || name == "adoption of plain files" || soak { // the others have links before and after
				t.Run("served", func(t *testing.T) { servesEach(t, k.scenario, k.layouts) })
			}
		})
	}
}

// kills is what was found at the points where a run may be killed.
type kills struct {
	*scenario
	points  int
	found   map[string]int    // by what the names led to
	states  map[string]string // copies of the different trees
	layouts map[string]string // and of those that a front tells apart
}

// meet judges the tree that a kill leaves, and reports whether it is one that was
// not met before. It fails the test without ending it: it may run in the tracer.
func (k *kills) meet(certs, what string) (state string, isNew bool) {
	k.points++
	installed := k.installed(certs)
	k.found[installed]++
	assert.Contains(k.t, k.allowed(), installed, what)
	assert.Empty(k.t, exposed(k.t, certs), what)
	if layout := k.layout(certs, installed); k.layouts[layout] == "" {
		k.layouts[layout] = filepath.Join(k.dir, fmt.Sprint("layout", len(k.layouts)))
		copyTree(k.t, certs, k.layouts[layout])
	}
	state = k.state(certs)
	return state, k.states[state] == ""
}

// lookAtEach lets one run go to its end.
func (k *kills) lookAtEach() {
	k.t.Helper()
	certs := k.fresh()
	met := map[string]string{} // what led to each state
	r := k.trace(certs, fault{look: func(n int, s step, after bool) {
		what := killedAt(n, s, after)
		if after && !s.changes() {
			return // the tree is as it was before
		}
		if state, isNew := k.meet(certs, what); isNew {
			k.states[state] = filepath.Join(k.dir, fmt.Sprint("state", len(k.states)), "certs")
			require.NoError(k.t, os.Mkdir(filepath.Dir(k.states[state]), 0o755))
			copyTree(k.t, certs, k.states[state])
			met[k.states[state]] = what
		}
	}})
	require.Equal(k.t, 8, r.code, r.out)
	for tree, what := range met {
		require.NoError(k.t, os.RemoveAll(certs))
		copyTree(k.t, tree, certs) // what is remembered of deploys goes by the path
		k.finishes(certs, what)
	}
}

// killAtEach kills a run of its own at each point.
func (k *kills) killAtEach() {
	k.t.Helper()
	whole := k.trace(k.fresh(), fault{})
	require.Equal(k.t, 8, whole.code, whole.out)
	for _, after := range []bool{false, true} {
		for n, s := range whole.steps {
			if after && !s.changes() {
				continue // leaves the disk as the kill before it does
			}
			certs, what := k.scenario.fresh(), killedAt(n, s, after)
			r := k.kill(certs, whole, n, after)
			require.True(k.t, r.killed, "%s: it was not, but ended with exit status %d: %s", what, r.code, r.out)
			state, _ := k.meet(certs, what)
			k.states[state] = what
			k.finishes(certs, what)
		}
	}
}

func killedAt(n int, s step, after bool) string {
	when := map[bool]string{false: "before", true: "after"}[after]
	return fmt.Sprintf("killed at step %d, %s %v", n, when, s)
}

// kill kills a run at step n of the whole one. Now and then the kernel needs
// one call more to list a directory; the step is only the same if the way was,
// so then it is done again.
func (sc *scenario) kill(certs string, whole traced, n int, after bool) traced {
	sc.t.Helper()
	for range 10 {
		r := sc.trace(certs, fault{match: at(n), after: after})
		if slices.EqualFunc(whole.steps[:n+1], r.steps, func(a, b step) bool { return a.String() == b.String() }) {
			return r
		}
		sc.fresh()
	}
	sc.t.Fatalf("killed at step %d: ten runs took another way", n)
	panic("unreachable")
}

// soak asks for the long versions.
var soak = os.Getenv("MAILU_HOOK_SOAK") != ""

func (sc *scenario) allowed() []string {
	if sc.old == nil {
		return []string{"none", "new"}
	}
	return []string{"old", "new"}
}

// servesEach starts a front on each of the trees, and wants nginx and dovecot
// to show on every port what the two names lead to.
func servesEach(t *testing.T, sc *scenario, layouts map[string]string) {
	l := newLab(t)
	for layout, tree := range layouts {
		want := map[string]*mint.Pair{"old": sc.old, "new": sc.new}[sc.installed(tree)]
		if want == nil {
			continue // nothing was installed, and nothing is
		}
		l.putInPlace(tree)
		l.serves(want)
		l.execOK("nginx", "-t")
		t.Logf("served: %s", layout)
	}
}

// putInPlace makes the front, running or not yet, start on a copy of tree.
func (l *lab) putInPlace(tree string) {
	l.t.Helper()
	if l.front != nil {
		require.NoError(l.t, l.front.Stop(l.t.Context()))
	}
	require.NoError(l.t, os.RemoveAll(l.certs()))
	copyTree(l.t, tree, l.certs())
	if l.front == nil {
		l.start(rig.FrontOptions{})
	} else {
		require.NoError(l.t, l.front.Start(l.t.Context()))
	}
	l.waitServing()
}

// killPoint is a place in a run by what happens there.
type killPoint struct {
	name  string
	call  string // any that changes something, if empty
	path  string // base name of what is changed
	nth   int    // of such steps, from 1
	after bool
}

func (k killPoint) fault() fault {
	seen, struck := 0, -1
	return fault{after: k.after, match: func(n int, s step) bool {
		if n == struck { // asked again on the way out
			return true
		}
		base := filepath.Base(s.path)
		if s.to != "" {
			base = filepath.Base(s.to)
		}
		if s.changes() && (k.call == "" || s.call == k.call && base == k.path) {
			if seen++; seen == k.nth {
				struck = n
			}
		}
		return n == struck
	}}
}

// The short version kills an adoption and renewals, the long one every scenario.
func TestAfterAKillOneSyncBringsEveryPortToTheNewLeaf(t *testing.T) {
	t.Parallel()
	switched := killPoint{name: "after the switch", call: "renameat", path: "live", nth: 1, after: true}
	var underWay, left statusDocument // as status sees a deploy that stands still there, and one that was killed
	inRenewal := []killPoint{
		{name: "at the first change", nth: 1},
		{name: "before the switch", call: "renameat", path: "live", nth: 1},
		switched,
	}
	t.Run("adoption, then renewals", func(t *testing.T) {
		l, _ := startServing(t, rig.FrontOptions{})
		adopted := killPoint{name: "after the adoption", call: "renameat", path: "cert.pem", nth: 1, after: true}
		for i, point := range append([]killPoint{adopted}, inRenewal...) {
			pair := l.issue(mint.Leaf{NotBefore: time.Now().Add(time.Duration(i-10) * time.Minute)})
			f := point.fault()
			if point == switched {
				f.look = func(_ int, s step, after bool) {
					if after && s.call == switched.call && filepath.Base(s.to) == switched.path {
						underWay = l.status(nil)
					}
				}
			}
			l.killedBy(f, point.name, []string{"RENEWED_LINEAGE=" + l.lineage(pair, "mail.example.com")})
			if point == switched {
				left = l.status(nil)
			}
			require.Equal(t, 0, l.sync("--now").code, point.name)
			l.serves(pair)
			assert.Empty(t, leftovers(t, l.certs()), point.name)
		}
		for _, code := range []string{"deploy_pending", "watcher_stopped", "pid_file_lost"} {
			assert.False(t, underWay.says(code), "%v: it is under way", underWay.codes())
		}
		require.NotNil(t, underWay.Fronts[0].Pending)
		assert.True(t, underWay.Fronts[0].Pending.UnderWay)
		assert.True(t, left.says("deploy_pending"), "%v", left.codes())
		l.healthyAndReloadable()
	})
	if !soak {
		return
	}
	t.Run("fresh install", func(t *testing.T) {
		l := newLab(t)
		l.start(rig.FrontOptions{})
		require.Eventually(t, func() bool { return l.listens(25) }, 30*time.Second, 100*time.Millisecond)
		pair := l.issue(mint.Leaf{})
		l.killed(killPoint{call: "renameat", path: "key.pem", nth: 1, after: true}, []string{"RENEWED_LINEAGE=" + l.lineage(pair, "mail.example.com")})
		require.Equal(t, 0, l.sync("--now").code)
		l.serves(pair)
		l.healthyAndReloadable()
	})
	for _, point := range inRenewal {
		t.Run("rollback, "+point.name, func(t *testing.T) {
			l, _, first, _ := deployed(t)
			gens, err := filepath.Glob(filepath.Join(l.certs(), ".mailu-hook", "2*Z-*"))
			require.NoError(t, err)
			require.Len(t, gens, 3) // adopted, first, second
			l.killed(point, nil, "rollback")
			require.Equal(t, 0, l.run(nil, "rollback", filepath.Base(gens[1])).code)
			l.serves(first)
		})
	}
	t.Run("pruning", func(t *testing.T) {
		l, _, _, _ := deployed(t)
		pair := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
		l.killed(killPoint{call: "unlinkat", path: "key.pem", nth: 1}, []string{"RENEWED_LINEAGE=" + l.lineage(pair, "mail.example.com")}, "--keep", "1")
		require.Equal(t, 0, l.sync("--now").code)
		l.serves(pair)
	})
}

// killed runs the binary against the front, and kills it at point.
func (l *lab) killed(point killPoint, env []string, args ...string) {
	l.t.Helper()
	l.killedBy(point.fault(), point.name, env, args...)
}

func (l *lab) killedBy(f fault, where string, env []string, args ...string) {
	l.t.Helper()
	r := trace(l.t, l.certs(), f, append(append([]string{}, l.env...), env...), args...)
	require.True(l.t, r.killed, "%s: exit status %d: %s", where, r.code, r.out)
	l.t.Logf("killed %s, at %v", where, r.steps[len(r.steps)-1])
}

func TestSyncFinishesARollbackThatWasKilledAfterTheSwitch(t *testing.T) {
	t.Parallel()
	sc := scenarioOf(t, "rollback")
	certs := sc.fresh()
	r := sc.trace(certs, killPoint{call: "renameat", path: "live", nth: 1, after: true}.fault())
	require.True(t, r.killed)
	require.Equal(t, "new", sc.installed(certs))
	code, out := sc.run(certs, nil, "sync", "--now")
	require.Equal(t, 8, code, out)
	assert.Equal(t, "new", sc.installed(certs), "sync undid the rollback")
}
