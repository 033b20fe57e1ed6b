package cli

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestJSONIsOneDocumentHoweverItEnds(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		leaf    mint.Leaf
		prepare func(*world)
		run     func(*world) ran
		outcome string
		status  int
	}{
		"installed":   {run: func(w *world) ran { return w.hook("--output", "json") }, outcome: "installed"},
		"by hand":     {run: func(w *world) ran { return w.install("--output", "json") }, outcome: "installed"},
		"by variable": {prepare: func(w *world) { w.env["MAILU_HOOK_OUTPUT"] = "json" }, run: func(w *world) ran { return w.hook() }, outcome: "installed"},
		"unchanged":   {prepare: func(w *world) { w.hook() }, run: func(w *world) ran { return w.hook("--output=json") }, outcome: "unchanged"},
		"skipped":     {run: func(w *world) ran { return w.hook("--output", "json", "--hostname", "other.example.com") }, outcome: "skipped"},
		"not newer":   {prepare: installedLater, run: func(w *world) ran { return w.hook("--output", "json") }, outcome: "skipped"},
		"would":       {run: func(w *world) ran { return w.hook("--output", "json", "--dry-run") }, outcome: "would_install"},
		"rejected":    {leaf: mint.Leaf{NotAfter: time.Now().Add(-48 * time.Hour)}, run: func(w *world) ran { return w.hook("--output", "json") }, outcome: "rejected", status: exitRejected},
		"untrusted":   {prepare: func(w *world) { delete(w.env, "MAILU_HOOK_ROOTS") }, run: func(w *world) ran { return w.install("--output", "json") }, outcome: "rejected", status: exitRejected},
		"other name":  {run: func(w *world) ran { return w.install("--output", "json", "--hostname", "other.example.com") }, outcome: "rejected", status: exitRejected},
		"no such file": {run: func(w *world) ran {
			return w.run("install", "--output", "json", "--cert", "/nonexistent", "--key", "/nonexistent")
		}, outcome: "rejected", status: exitRejected},
		"pending": {
			prepare: func(w *world) {
				w.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
				w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com"
			},
			run: func(w *world) ran { return w.hook("--output", "json") }, outcome: "pending", status: exitPending,
		},
		"no store":            {run: func(w *world) ran { return w.hook("--output", "json", "--certs-dir", filepath.Join(w.dir, "no")) }, outcome: "failed", status: exitError},
		"no hostname":         {prepare: func(w *world) { w.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock" }, run: func(w *world) ran { return w.hook("--output", "json") }, outcome: "failed", status: exitUsage},
		"no time":             {run: func(w *world) ran { return w.hook("--output", "json", "--timeout", "0s") }, outcome: "failed", status: exitUsage},
		"no roots":            {run: func(w *world) ran { return w.hook("--output", "json", "--roots", "/nonexistent") }, outcome: "failed", status: exitUsage},
		"unknown flag after":  {run: func(w *world) ran { return w.install("--output", "json", "--frobnicate") }, outcome: "failed", status: exitUsage},
		"bad log level":       {run: func(w *world) ran { return w.install("--output", "json", "--log-level", "loud") }, outcome: "failed", status: exitUsage},
		"install of nothing":  {run: func(w *world) ran { return w.run("install", "--output", "json") }, outcome: "failed", status: exitUsage},
		"argument too many":   {run: func(w *world) ran { return w.install("--output", "json", "extra") }, outcome: "failed", status: exitUsage},
		"bare, by hand":       {run: func(w *world) ran { return w.run("--output", "json") }, outcome: "failed", status: exitUsage},
		"sync, nothing known": {run: func(w *world) ran { return w.run("sync", "--output", "json") }, outcome: "skipped"},
		"sync, argument":      {run: func(w *world) ran { return w.run("sync", "--output", "json", "extra") }, outcome: "failed", status: exitUsage},
		"rollback, nothing":   {run: func(w *world) ran { return w.run("rollback", "--output", "json") }, outcome: "failed", status: exitUsage},
		"rollback, many":      {run: func(w *world) ran { return w.run("rollback", "--output", "json", "a", "b") }, outcome: "failed", status: exitUsage},
		"list without store": {run: func(w *world) ran {
			return w.run("rollback", "--list", "--output", "json", "--certs-dir", filepath.Join(w.dir, "no"))
		}, outcome: "failed", status: exitError},
		"engine without scheme": {prepare: func(w *world) { w.env["DOCKER_HOST"] = "nonsense" }, run: func(w *world) ran { return w.install("--output", "json") }, outcome: "failed", status: exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, ca, c.leaf)
			w.engine(w.stopped())
			if c.prepare != nil {
				c.prepare(w)
			}
			r := c.run(w)
			assert.Equal(t, c.status, r.status, r.stderr)
			doc := r.document(t)
			assert.Equal(t, c.outcome, doc["outcome"])
			if c.status == exitOK {
				assert.Empty(t, r.stderr)
				assert.NotContains(t, doc, "error")
			} else {
				assert.NotEmpty(t, doc["error"])
				assert.NotEmpty(t, doc["hint"])
				assert.Contains(t, r.stderr, "mailu-hook: error: "+doc["error"].(string)+"\n", "stderr says it as well")
			}
			for _, key := range []string{"outcome", "lineage", "leaf", "generation", "front", "endpoints", "duration_ms"} {
				assert.Contains(t, doc, key)
			}
			assert.IsType(t, []any{}, doc["endpoints"], "a list, also an empty one")
			for _, step := range []string{"validate", "stage", "switch", "test", "reload", "verify", "settle", "total"} {
				assert.Contains(t, doc["duration_ms"], step)
			}
		})
	}
}

// installedLater puts a pair in place that is newer than the lineage.
func installedLater(w *world) {
	_, lineage := w.issue("mail.example.com-0001", mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.Equal(w.t, exitOK, w.run("install", "--lineage", lineage).status)
}

func TestJSONTellsOfLeafAndFront(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	doc := w.hook("--output", "json").document(t)
	assert.Equal(t, map[string]any{"container": "mailu-front-1", "image": "ghcr.io/mailu/nginx:2024.06", "project": "mailu"}, doc["front"])
	assert.Equal(t, w.lineage, doc["lineage"])
	leaf := doc["leaf"].(map[string]any)
	assert.Equal(t, w.pair.SHA256(), leaf["sha256"])
	assert.Equal(t, []any{"mail.example.com"}, leaf["dns_names"])
	assert.Equal(t, "CN=mint intermediate", leaf["issuer"])
	assert.Equal(t, "ECDSA-P-256", leaf["key_type"])
	assert.Equal(t, w.pair.Cert.NotAfter.UTC().Format(time.RFC3339), leaf["not_after"])
	generation, err := os.Readlink(filepath.Join(w.certs, ".mailu-hook", "live"))
	require.NoError(t, err)
	assert.Equal(t, generation, doc["generation"])
}

func TestRejectedBundleTouchesNothing(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	for name, leaf := range map[string]mint.Leaf{
		"expired":  {NotAfter: time.Now().Add(-48 * time.Hour)},
		"too soon": {NotBefore: time.Now().Add(48 * time.Hour)},
		"weak key": {Key: mint.P224},
		"a CA":     {IsCA: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, ca, leaf)
			w.engine(w.stopped())
			before := w.tree()
			for _, r := range []ran{w.hook(), w.install()} {
				assert.Equal(t, exitRejected, r.status)
				assert.Contains(t, r.stderr, w.lineage)
				assert.Contains(t, r.stderr, "mailu-hook: hint: ")
				assert.Empty(t, r.stdout)
			}
			assert.Equal(t, before, w.tree())
		})
	}
}
