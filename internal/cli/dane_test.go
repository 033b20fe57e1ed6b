package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/say"
)

func TestWhatIsHeldBackWaitsForTheTTLOfTheRecordsThatMatch(t *testing.T) {
	w := newWorld(t)
	stale := "_25._tcp.mail 1 IN TLSA " + dane.OfLeaf(w.pair.Cert).String()
	zone := w.resolves(stale)
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.install().status)
	w.env["MAILU_HOOK_DANE"] = "auto"
	renewed, live := w.issue("mail.example.com", mint.Leaf{})
	w.lineage = live

	r := w.hook()
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, "held back: the TLSA records of mail.example.com do not match it")
	assert.True(t, w.installed(w.pair))
	record := dane.OfLeaf(renewed.Cert).String()
	assert.Contains(t, r.stderr, "mailu-hook: hint: publish this in addition to what is there: _25._tcp.mail.example.com. IN TLSA "+record+"; mailu-hook sync installs it")

	require.NoError(t, zone.Replace(t.Context(), stale, "_25._tcp.mail 600 IN TLSA "+record))
	var doc map[string]any
	require.Eventually(t, func() bool {
		r := w.run("sync", "--output", "json")
		doc = r.document(t)
		return r.status == exitRejected && doc["next_attempt"] != nil
	}, 10*time.Second, 100*time.Millisecond)
	next, err := time.Parse(time.RFC3339, doc["next_attempt"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), next, 15*time.Second)
	assert.Contains(t, doc["error"], "resolvers may cache the old ones until "+say.Time(next))

	w.env["MAILU_HOOK_DANE"] = "off"
	require.Equal(t, exitOK, w.run("sync").status, "someone who asks decides")
	assert.True(t, w.installed(renewed))
}
