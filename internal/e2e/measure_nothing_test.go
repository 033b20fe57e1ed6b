//go:build measure

package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// measureNothing measures the runs that change nothing: most of all runs.
func measureNothing(t *testing.T, r *report) {
	l, _ := startServing(t, rig.FrontOptions{})
	ours := l.lineage(l.issue(mint.Leaf{}), "mail.example.com")
	require.Equal(t, "installed", l.hook(ours).doc.Outcome)
	rivals := []rival{
		{name: "`sh -c true`", argv: []string{"sh", "-c", "true"}},
		{name: "`docker ps`", argv: []string{"docker", "ps"}},
		l.notOurs(),
		l.rival("the hook, nothing to do", []string{"RENEWED_LINEAGE=" + ours}),
		l.rival("`mailu-hook sync`, nothing to do", nil, "sync"),
	}
	require.Equal(t, "skipped", l.run(l.notOurs().env, "--output", "json").doc.Outcome)
	require.Equal(t, "unchanged", l.hook(ours).doc.Outcome)
	require.Equal(t, "unchanged", l.sync().doc.Outcome)

	all := alternate(t, r.rounds, rivals...)
	e := newEngine(t)
	tab := newTable(3, "Not ours, and nothing to do", `Whole processes, started by GNU time, which is part of each figure. Not ours is the
hook for a lineage of another site. Nothing to do means installed already, and
seen to be served on all six ports. Requests are to the Docker engine.`,
		"", "wall, ms", "over `docker ps`", "CPU, ms", "peak memory, MiB", "requests")
	for i, f := range all {
		tab.row(f.name, f.wall, f.wall.over(all[1].wall), f.cpu, f.peak, rivals[i].requests(t, e))
	}
	r.add(tab)
}

// notOurs is the hook for a lineage of another site.
func (l *lab) notOurs() rival {
	l.t.Helper()
	live := l.lineage(l.issue(mint.Leaf{Names: []string{"www.example.com"}}), "www.example.com")
	return l.rival("the hook, not ours", []string{"RENEWED_LINEAGE=" + live})
}
