package e2e

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// statusDocument is the JSON of mailu-hook status, as far as tests look at it.
type statusDocument struct {
	Status   string
	Complete bool
	Findings []struct{ Severity, Code, Container, Text, Remedy string }
	Fronts   []struct {
		Container, State, Health string
		Endpoints                []struct {
			Port         int
			Daemon       string
			Shows, Error string
		}
		Pending *struct{ Reason string }
	}
}

// status runs mailu-hook status for its JSON, without what this machine lacks:
// a timer. Its exit status is held to the verdict.
func (l *lab) status(args ...string) statusDocument {
	l.t.Helper()
	r := l.run([]string{"MAILU_HOOK_IGNORE=sync_timer_missing"}, append([]string{"status", "--output", "json"}, args...)...)
	var doc statusDocument
	require.NoError(l.t, json.Unmarshal([]byte(r.stdout), &doc))
	assert.Equal(l.t, map[string]int{"ok": 0, "warning": 1, "critical": 2, "unknown": 3}[doc.Status], r.code)
	return doc
}

// says wants a finding of that code with that sentence in it.
func (d statusDocument) says(t *testing.T, severity, code, sentence string) {
	t.Helper()
	for _, f := range d.Findings {
		if f.Code == code {
			assert.Equal(t, severity, f.Severity)
			assert.Contains(t, f.Text, sentence)
			assert.NotEmpty(t, f.Remedy)
			return
		}
	}
	assert.Fail(t, "not found", "%s among %+v", code, d.Findings)
}

func TestStatusOfAHealthyFrontIsOK(t *testing.T) {
	l, _, _, _ := deployed(t)
	doc := l.status()
	assert.Equal(t, "ok", doc.Status)
	assert.True(t, doc.Complete)
	l.run(nil, "status")
	l.run(nil, "status", "--output", "prometheus")
	l.run(nil, "status", "--output", "nagios")
}

func TestStatusBeforeTheFirstDeploySaysSo(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	doc := l.status()
	doc.says(t, "warning", "not_adopted", "was not installed by mailu-hook")
	_ = mint.Leaf{}
}
