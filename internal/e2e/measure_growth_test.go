//go:build measure

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// growing measures one cost at rising sizes, and has a row for each.
type growing struct {
	*lab
	rounds int
	tab    *table
}

// measureGrowth measures how the cost of a run grows with what is around it.
func measureGrowth(t *testing.T, r *report) {
	l, _ := startServing(t, rig.FrontOptions{})
	g := &growing{l, r.rounds, newTable(5, "Growth", `Each size is measured after the smaller ones, not by turns with them. The slope is
the steepest between the minima of two neighbouring sizes with both logarithmic: 1
is linear. What the engine itself needs for its list is for docker ps to show,
which asks for the same by turns: --all, and the labels that tell the front.`,
		"", "size", "wall, ms", "CPU, ms", "slope of the wall time", "`docker ps`, wall, ms", "slope")}
	g.sans()
	g.lineages()
	g.others("fronts, one of which --project chooses (not ours)", []int{1, 4, 16}, 1, func(i int) []string {
		return []string{"--label", "com.docker.compose.service=front", "--label", "com.docker.compose.project=crowd" + strconv.Itoa(i),
			"--env", "TLS_FLAVOR=cert", "--env", "HOSTNAMES=mail.example.com", "--volume", l.certs() + ":/certs"}
	})
	g.others("other containers on the engine (not ours)", []int{1, 10, 100, 1000}, 0, func(i int) []string {
		return []string{"--label", "com.docker.compose.service=web", "--label", "com.docker.compose.project=crowd" + strconv.Itoa(i)}
	})
	require.NoError(t, l.front.Stop(t.Context()))
	g.generations()
	r.add(g.tab)
}

// at measures what at returns for each size: ours, and what there is to compare.
func (g *growing) at(what string, sizes []int, at func(size int) []figures) {
	g.t.Helper()
	var ours, theirs []sample
	for i, size := range sizes {
		f := append(at(size), figures{})
		ours, theirs = append(ours, f[0].wall), append(theirs, f[1].wall)
		slopes := [2]string{}
		if i == len(sizes)-1 {
			slopes[0] = growth(sizes, ours)
			if f[1].wall != nil {
				slopes[1] = growth(sizes, theirs)
			}
		}
		g.tab.row(what, size, f[0].wall, f[0].cpu, slopes[0], f[1].wall, slopes[1])
	}
}

// sans: the names of the installed certificate.
func (g *growing) sans() {
	g.at("names in the certificate (nothing to do)", []int{1, 10, 100}, func(size int) []figures {
		names := []string{mint.DefaultName}
		for i := 1; i < size; i++ {
			names = append(names, fmt.Sprintf("mail%d.example.com", i))
		}
		live := g.lineage(g.issue(mint.Leaf{Names: names, NotBefore: time.Now()}), mint.DefaultName)
		require.Equal(g.t, "installed", g.hook(live).doc.Outcome)
		f := alternate(g.t, g.rounds, g.rival("", []string{"RENEWED_LINEAGE=" + live}))
		require.Equal(g.t, "unchanged", g.hook(live).doc.Outcome)
		return f
	})
}

// lineages: the hook is called for each lineage that certbot renews, and none of
// them is ours. A figure is the sum over all calls.
func (g *growing) lineages() {
	var calls []rival
	g.at("lineages renewed in one certbot run (the hook alone, summed; not ours)", []int{1, 50, 500}, func(size int) []figures {
		for i := len(calls); i < size; i++ {
			name := fmt.Sprintf("www%d.example.com", i)
			live := g.lineage(g.issue(mint.Leaf{Names: []string{name}}), name)
			calls = append(calls, g.rival(name, []string{"RENEWED_LINEAGE=" + live}))
		}
		rounds := g.rounds
		if size > 100 {
			rounds = max(1, rounds/5)
		}
		var sum figures
		for range rounds {
			var wall, cpu float64
			for _, f := range alternate(g.t, 1, calls...) {
				wall, cpu = wall+f.wall[0], cpu+f.cpu[0]
			}
			sum.wall, sum.cpu = append(sum.wall, wall), append(sum.cpu, cpu)
		}
		return []figures{sum}
	})
}

// others measures beside a growing crowd of containers, own of which the lab has
// itself.
func (g *growing) others(what string, sizes []int, own int, args func(i int) []string) {
	call := g.notOurs()
	list := rival{argv: []string{"docker", "ps", "--all", "--filter", "label=com.docker.compose.service=front", "--filter", "label=com.docker.compose.project=" + g.front.Project}}
	g.at(what, sizes, func(size int) []figures {
		remove, err := rig.Crowd(g.t.Context(), size-own, args)
		own = size
		g.t.Cleanup(func() { assert.NoError(g.t, remove()) })
		require.NoError(g.t, err)
		return alternate(g.t, g.rounds, call, list)
	})
}

// generations: a deploy beside so many earlier ones, all of them kept, into a
// front that is stopped. The fewest are two, as none deletes the one before it.
func (g *growing) generations() {
	version := 1
	renew := func() {
		version++
		_, err := g.issue(mint.Leaf{}).WriteLineage(filepath.Join(g.root, "letsencrypt"), "kept", version)
		require.NoError(g.t, err)
	}
	live := filepath.Join(g.root, "letsencrypt", "live", "kept")
	g.at("generations kept (a deploy into a stopped front)", []int{2, 10, 100}, func(size int) []figures {
		call := g.rival("", []string{"MAILU_HOOK_KEEP=" + strconv.Itoa(size)}, "install", "--lineage", live)
		call.before = renew
		alternate(g.t, size, call) // until there are so many
		f := alternate(g.t, g.rounds, call)
		kept, err := filepath.Glob(filepath.Join(g.certs(), ".mailu-hook", "2*Z-*"))
		require.NoError(g.t, err)
		require.Len(g.t, kept, size)
		return f
	})
}
