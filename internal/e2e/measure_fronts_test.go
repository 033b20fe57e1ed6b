//go:build measure

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// measureFronts measures what several fronts cost: ten Mailus on a host with fifty
// lineages, and a pair of fronts that share a directory.
func measureFronts(t *testing.T, r *report) {
	l := newLab(t)
	crowd := newTable(5, "Ten Mailus, fifty lineages", `Ten fronts that do not run, each with a directory and a main hostname of its own, and the
hook for each of fifty lineages, of which ten are for one of them. Everything was installed before.`,
		"", "wall, ms", "CPU, ms", "requests to the engine")
	l.crowd(t, r.rounds, crowd)
	r.add(crowd)

	tab := newTable(2, "One front, and two that share a directory", "The whole command, from a renewed lineage to its end; the pair after the one, not by turns.",
		"", "wall, ms", "CPU, ms")
	l.writePlain(l.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)}), "cert.pem", "key.pem")
	l.start(rig.FrontOptions{})
	l.waitServing()
	for _, what := range []string{"one front", "two fronts"} {
		if what == "two fronts" {
			l.withOther()
		}
		hook := l.rival(what, []string{"RENEWED_LINEAGE=" + l.lineage(l.next(), mint.DefaultName)})
		hook.before = func() { l.lineage(l.next(), mint.DefaultName) }
		f := alternate(t, r.rounds, hook)
		tab.row(what, f[0].wall, f[0].cpu)
	}
	r.add(tab)
}

// crowd has a row for each kind of lineage, and one for all of them.
func (l *lab) crowd(t *testing.T, rounds int, tab *table) {
	const fronts, lineages = 10, 50
	name := func(i int) string { return fmt.Sprintf("mail%d.example.com", i) }
	remove, err := rig.Crowd(t.Context(), fronts, func(i int) []string {
		certs := filepath.Join(l.root, fmt.Sprint("certs", i))
		require.NoError(t, os.MkdirAll(certs, 0o755))
		return []string{"--label", "com.docker.compose.service=front", "--label", fmt.Sprint("com.docker.compose.project=mailu", i),
			"--env", "TLS_FLAVOR=cert", "--env", "HOSTNAMES=" + name(i), "--volume", certs + ":/certs"}
	})
	defer func() { require.NoError(t, remove()) }()
	require.NoError(t, err)
	var ours, others, all []rival
	for i := range lineages {
		hook := l.rival("", []string{"RENEWED_LINEAGE=" + l.lineage(l.issue(mint.Leaf{Names: []string{name(i)}}), name(i))})
		if i < fronts {
			require.Zero(t, l.run(hook.env).code)
			ours = append(ours, hook)
		} else {
			others = append(others, hook)
		}
		all = append(all, hook)
	}
	e := newEngine(t)
	for _, kind := range []struct {
		name string
		hook rival
	}{{"one for one of the ten, nothing to do", ours[0]}, {"one of another site", others[0]}} {
		f := alternate(t, rounds, kind.hook)
		tab.row(kind.name, f[0].wall, f[0].cpu, kind.hook.requests(t, e))
	}
	var wall, cpu sample
	for range rounds {
		sum := figures{}
		for _, f := range alternate(t, 1, all...) {
			sum.wall, sum.cpu = append(sum.wall, f.wall...), append(sum.cpu, f.cpu...)
		}
		wall, cpu = append(wall, total(sum.wall)), append(cpu, total(sum.cpu))
	}
	requests := 0
	for _, hook := range all {
		requests += hook.requests(t, e)
	}
	tab.row("all fifty, one after the other", wall, cpu, requests)
}

func total(s sample) (sum float64) {
	for _, f := range s {
		sum += f
	}
	return sum
}
