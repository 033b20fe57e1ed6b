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

// The short version lets a later run finish from each different tree that a
// kill left, and a front serve what is seen by other links; the long one does
// so after every kill, and for every scenario.
func TestKilledAtEveryStepThePairStaysWholeAndALaterRunFinishes(t *testing.T) {
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := scenarioOf(t, name)
			whole := sc.trace(sc.fresh(), fault{})
			require.Equal(t, 8, whole.code, whole.out)
			points, found, states, layouts := 0, map[string]int{}, map[string]bool{}, map[string]string{}
			for _, after := range []bool{false, true} {
				for n, s := range whole.steps {
					if after && !s.changes() {
						continue // leaves the disk as the kill before it does
					}
					certs := sc.fresh()
					r := sc.kill(certs, whole, n, after)
					what := fmt.Sprintf("killed at step %d, before %v", n, s)
					if after {
						what = fmt.Sprintf("killed at step %d, after %v", n, s)
					}
					require.True(t, r.killed, "%s: it was not, but ended with exit status %d: %s", what, r.code, r.out)
					points++
					installed := sc.installed(certs)
					found[installed]++
					require.Contains(t, sc.allowed(), installed, what)
					require.Empty(t, exposed(t, certs), what)
					if layout := sc.layout(certs, installed); layouts[layout] == "" {
						layouts[layout] = filepath.Join(sc.dir, fmt.Sprint("layout", len(layouts)))
						copyTree(t, certs, layouts[layout])
					}
					if state := sc.state(certs); soak || !states[state] {
						states[state] = true
						sc.finishes(certs, what)
					}
				}
			}
			t.Logf("%d kill points on %d steps left %d different trees; the names then led to %v", points, len(whole.steps), len(states), found)
			require.Greater(t, points, 100)
			require.Len(t, found, 2, "the kills met the old state and the new")
			if name == "fresh install" || name == "adoption of plain files" || soak { // the others have links before and after
				t.Run("served", func(t *testing.T) { servesEach(t, sc, layouts) })
			}
		})
	}
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
	switched := killPoint{name: "after the switch", call: "renameat", path: "live", nth: 1, after: true}
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
			l.killed(point, []string{"RENEWED_LINEAGE=" + l.lineage(pair, "mail.example.com")})
			require.Equal(t, 0, l.sync("--now").code, point.name)
			l.serves(pair)
			assert.Empty(t, leftovers(t, l.certs()), point.name)
		}
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
	r := trace(l.t, l.certs(), point.fault(), append(append([]string{}, l.env...), env...), args...)
	require.True(l.t, r.killed, "%s: exit status %d: %s", point.name, r.code, r.out)
	l.t.Logf("killed %s, at %v", point.name, r.steps[len(r.steps)-1])
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
