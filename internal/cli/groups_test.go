package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/mint"
)

// project is a front of its own, with that main hostname.
func (w *world) project(name, hostname string) container {
	front := w.stopped()
	front.name, front.project, front.certs = name+"-front-1", name, filepath.Join(w.dir, name)
	front.env["HOSTNAMES"] = hostname
	require.NoError(w.t, os.MkdirAll(front.certs, 0o755))
	return front
}

// holds reports whether the certs directory of a front holds the pair.
func (c container) holds(pair *mint.Pair) bool {
	return (&world{certs: c.certs}).installed(pair)
}

// severalFronts are production, a test copy of it, and somebody else's Mailu.
func severalFronts(t *testing.T) (w *world, production, copied, other container) {
	w = newWorld(t)
	delete(w.env, "MAILU_HOOK_CERTS_DIR")
	return w, w.project("mailu", "mail.example.com"), w.project("copy", "mail.example.com"), w.project("other", "mail.example.org")
}

func TestLineageGoesToEveryFrontWhoseMainHostnameItCovers(t *testing.T) {
	w, production, copied, other := severalFronts(t)
	asked := w.engine(production, copied, other)
	r := w.hook()
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.Regexp(t, "^copy-front-1: installed .*\nmailu-front-1: installed .*\n$", r.stdout)
	assert.True(t, production.holds(w.pair) && copied.holds(w.pair))
	assert.Empty(t, entries(t, other.certs))

	doc := w.run("sync", "--output", "json").document(t)
	assert.Equal(t, "unchanged", doc["outcome"])
	also := doc["also"].([]any)
	require.Len(t, also, 2)
	assert.Equal(t, "unchanged", also[0].(map[string]any)["outcome"])
	assert.Equal(t, "skipped", also[1].(map[string]any)["outcome"], "nothing was deployed to this one")

	foreign, live := w.issue("www.example.net", mint.Leaf{Names: []string{"www.example.net"}})
	w.lineage = live
	assert.Contains(t, w.hook().stdout, "skipped "+live+": not Mailu's: it covers none of mail.example.com, mail.example.com, mail.example.org")
	r = w.install()
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, "it does not cover the main hostname of any mail server here: mail.example.com, mail.example.com, mail.example.org (it covers www.example.net)")
	for _, front := range []container{production, copied, other} {
		assert.False(t, front.holds(foreign))
	}

	w.pair, w.lineage = w.issue("mail.example.org", mint.Leaf{Names: []string{"mail.example.org"}})
	require.Equal(t, exitOK, w.hook().status)
	assert.True(t, other.holds(w.pair))
	w.lineage = live
	before := asked.Load()
	assert.Contains(t, w.hook().stdout, "not Mailu's")
	assert.EqualValues(t, 1, asked.Load()-before, "what the fronts said before is still true")
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	return all
}

func TestProjectHostnameOrDirectoryChoosesAmongSeveralFronts(t *testing.T) {
	w, production, copied, other := severalFronts(t)
	w.engine(production, copied, other)
	for _, choice := range [][]string{{"--project", "copy"}, {"--certs-dir", copied.certs}, {"--certs-dir", copied.certs, "--hostname", "mail.example.com"}} {
		w.pair, w.lineage = w.issue("mail.example.com", mint.Leaf{})
		require.Equal(t, exitOK, w.install(choice...).status)
		assert.True(t, copied.holds(w.pair))
		assert.False(t, production.holds(w.pair))
	}
	assert.Equal(t, exitOK, w.run("rollback", "--hostname", "mail.example.com", "--project", "copy").status)
	r := w.run("rollback", "--hostname", "mail.example.net")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, "none is of this certs directory and main hostname")
}

func TestTheWorstOfSeveralResultsDecides(t *testing.T) {
	w, production, copied, other := severalFronts(t)
	production.state = "paused"
	w.engine(production, copied, other)
	r := w.hook()
	assert.Equal(t, exitPending, r.status)
	assert.Contains(t, r.stderr, "mailu-hook: error: mailu-front-1: installed, but not yet verified on all ports: the front mailu-front-1 is paused")
	assert.Regexp(t, "^copy-front-1: installed .*\n$", r.stdout)

	production.certs = filepath.Join(w.dir, "nowhere")
	w.pair, w.lineage = w.issue("mail.example.com", mint.Leaf{})
	w.engine(production, copied, other)
	r = w.hook("--output", "json")
	doc := r.document(t)
	assert.Equal(t, exitError, r.status)
	assert.Equal(t, "failed", doc["outcome"])
	assert.Contains(t, doc["error"], "mailu-front-1: ")
	also := doc["also"].([]any)
	require.Len(t, also, 1)
	assert.Equal(t, "installed", also[0].(map[string]any)["outcome"])
	assert.EqualValues(t, exitOK, also[0].(map[string]any)["exit_status"])
	assert.True(t, copied.holds(w.pair))
}

func TestFrontsThatFailAreAllTold(t *testing.T) {
	w, production, copied, _ := severalFronts(t)
	copied.state, production.state = "paused", "paused"
	w.engine(production, copied)
	r := w.hook()
	assert.Equal(t, exitPending, r.status)
	assert.Equal(t, 2, strings.Count(r.stderr, "mailu-hook: error: "))
	assert.Contains(t, r.stderr, "docker unpause mailu-front-1")
	assert.Contains(t, r.stderr, "docker unpause copy-front-1")
	assert.Empty(t, r.stdout)
}

func TestFrontWithLetsEncryptOfItsOwnIsNoBusinessOfSync(t *testing.T) {
	w, production, copied, other := severalFronts(t)
	w.engine(production, copied)
	require.Equal(t, exitOK, w.hook().status)
	other.env["TLS_FLAVOR"] = "letsencrypt"
	w.engine(production, copied, other)
	doc := w.run("sync", "--output", "json").document(t)
	assert.EqualValues(t, exitOK, doc["exit_status"])
	assert.Len(t, doc["also"], 1)

	copied.env["TLS_FLAVOR"] = "letsencrypt"
	w.engine(production, copied, other)
	assert.Equal(t, exitUsage, w.run("sync").status, "a deploy went there before")

	production.env["TLS_FLAVOR"], w.env["MAILU_HOOK_STATE_DIR"] = "letsencrypt", t.TempDir()
	w.engine(production, copied, other)
	r := w.run("sync")
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.stdout, "no front here takes its certificates from a directory")
	assert.Equal(t, exitUsage, w.run("renew", "--agree-tos").status)
}

func TestEveryOutcomeHasAPlaceAmongSeveral(t *testing.T) {
	w, production, copied, _ := severalFronts(t)
	w.engine(production, copied)
	r := w.hook("--dry-run", "--output", "json")
	doc := r.document(t)
	assert.Equal(t, string(hook.OutcomeWouldInstall), doc["outcome"])
	text, err := json.Marshal(doc["also"])
	require.NoError(t, err)
	assert.Contains(t, string(text), `"would_install"`)
}

func TestFrontThatIsAnotherThanLastTimeIsSaidOnce(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.hook().status)
	other := w.stopped()
	other.name, other.project = "other-front-1", "other"
	w.engine(other)
	r := w.run("sync")
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.stdout, "the front is another than last time: other-front-1 (project other), and not mailu-front-1 (project mailu)")
	assert.NotContains(t, w.run("sync").stdout, "last time")
}

func TestAnAgentLooksAgainAfterASwitchOfAnyFront(t *testing.T) {
	ending := func(o hook.Outcome, also ...hook.Outcome) *deployed {
		r := deploy.Result{Result: hook.Result{Outcome: o}}
		for _, other := range also {
			r.Also = append(r.Also, deploy.Ended[deploy.Result]{Result: deploy.Result{Result: hook.Result{Outcome: other}}})
		}
		return newDeployed(r, deployed{})
	}
	for _, o := range []hook.Outcome{hook.OutcomeInstalled, hook.OutcomeRolledBack, hook.OutcomeRollbackFailed} {
		assert.True(t, ending(o).hasSwitched(), o)
		assert.True(t, ending(hook.OutcomeUnchanged, hook.OutcomeSkipped, o).hasSwitched(), o)
	}
	for _, o := range []hook.Outcome{hook.OutcomeUnchanged, hook.OutcomeSkipped, hook.OutcomeWouldInstall, hook.OutcomeRejected} {
		assert.False(t, ending(o, o).hasSwitched(), o)
	}
}
