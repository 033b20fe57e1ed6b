package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestSyncFinishesWhatAHookLeftPending(t *testing.T) {
	w := newWorld(t)
	w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com"
	require.Equal(t, exitPending, w.hook().status)
	r := w.run("sync")
	assert.Equal(t, exitPending, r.status)
	assert.Contains(t, r.stderr, "/nonexistent/docker.sock", "it asks again: that costs nothing")
	w.engine(w.stopped())
	r = w.run("sync")
	assert.Equal(t, exitOK, r.status, r.stderr)
	assert.Equal(t, 1, strings.Count(r.stdout, "\n"), r.stdout)
	assert.Equal(t, exitOK, w.run("sync").status)
}

func TestSyncLeavesAMarkHoweverItEnds(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	mark := func() any {
		return w.run("status", "--output", "json").document(t)["fronts"].([]any)[0].(map[string]any)["last_sync"]
	}
	require.Equal(t, exitOK, w.run("sync").status)
	assert.Nil(t, mark(), "nothing was ever deployed")
	require.Equal(t, exitOK, w.install().status)
	assert.Nil(t, mark(), "no sync")
	require.Equal(t, exitOK, w.run("sync", "--dry-run").status)
	assert.Nil(t, mark(), "nor now")
	require.Equal(t, exitOK, w.run("sync").status)
	first := mark()
	require.NotNil(t, first)
	require.NoError(t, os.WriteFile(filepath.Join(w.lineage, "privkey.pem"), []byte("?"), 0o600))
	w.env["MAILU_HOOK_ROOTS"] = filepath.Join(w.dir, "none")
	assert.Equal(t, exitUsage, w.run("sync").status)
	delete(w.env, "MAILU_HOOK_ROOTS")
	assert.Equal(t, first, mark(), "a run that never began is none")
	w.run("sync")
	assert.NotEqual(t, first, mark())
}

func TestSyncWithDamagedLineagesStillSaysOneLine(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.hook().status)
	args := []string{"sync"}
	for _, name := range []string{"one", "two"} {
		_, lineage := w.issue(name, mint.Leaf{})
		require.NoError(t, os.WriteFile(filepath.Join(lineage, "privkey.pem"), []byte("?"), 0o600))
		args = append(args, "--lineage", lineage)
	}
	r := w.run(args...)
	assert.Equal(t, exitOK, r.status, r.stderr)
	assert.Equal(t, 1, strings.Count(r.stdout, "\n"), r.stdout)
	assert.Contains(t, r.stdout, "no PEM block")
}

func TestSyncOfDamagedLineagesAloneIsAnErrorOnOneLine(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	args := []string{"sync"}
	for _, name := range []string{"one", "two"} {
		_, lineage := w.issue(name, mint.Leaf{})
		require.NoError(t, os.WriteFile(filepath.Join(lineage, "privkey.pem"), []byte("?"), 0o600))
		args = append(args, "--lineage", lineage)
	}
	assert.Equal(t, exitRejected, w.run(args...).status)
}

func TestSyncThatWasNeverUsedTouchesNothing(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	before := w.tree()
	r := w.run("sync")
	assert.Equal(t, exitOK, r.status)
	assert.Equal(t, "nothing to do: nothing was deployed here yet", strings.Split(strings.TrimSpace(r.stdout), "; note")[0])
	assert.Equal(t, before, w.tree())
}

func TestRollbackPutsTheEarlierCertificateBackAndSyncLeavesIt(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	first := w.pair
	require.Equal(t, exitOK, w.hook().status)
	assert.Equal(t, exitUsage, w.run("rollback").status, "there is no earlier one yet")
	w.pair, w.lineage = w.issue("mail.example.com", mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.Equal(t, exitOK, w.hook().status)

	r := w.run("rollback")
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, w.installed(first))
	assert.Equal(t, exitOK, w.run("sync").status)
	assert.True(t, w.installed(first), "sync does not undo it")
}

func TestRollbackListsTheGenerations(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	assert.Equal(t, ran{}, w.run("rollback", "--list"))
	require.Equal(t, exitOK, w.hook().status)
	_, w.lineage = w.issue("mail.example.com", mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.Equal(t, exitOK, w.hook().status)
	live, err := os.Readlink(filepath.Join(w.certs, ".mailu-hook", "live"))
	require.NoError(t, err)

	before := w.tree()
	r := w.run("rollback", "--list")
	assert.Equal(t, exitOK, r.status)
	assert.Equal(t, 2, strings.Count(r.stdout, "mail.example.com\n"))
	assert.True(t, strings.HasPrefix(r.stdout, "* "+live), r.stdout)
	var docs []map[string]any
	require.NoError(t, json.Unmarshal([]byte(w.run("rollback", "--list", "--output", "json").stdout), &docs))
	require.Len(t, docs, 2)
	assert.Equal(t, true, docs[0]["live"])
	assert.Equal(t, false, docs[1]["live"])
	assert.Equal(t, before, w.tree())
}

func TestRollbackToAnUnknownGenerationExits2(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.hook().status)
	for _, name := range []string{"2000", "../../x", "\x1b"} {
		r := w.run("rollback", name)
		assert.Equal(t, exitUsage, r.status)
		assert.Contains(t, r.stderr, "rollback --list")
	}
}

func TestSyncRemembersALineageWhereverItIsCalledFrom(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	t.Chdir(filepath.Dir(w.lineage))
	r := w.run("sync", "--lineage", filepath.Base(w.lineage), "--output", "json")
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.Equal(t, w.lineage, r.document(t)["lineage"])
}
