package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// limited is a CA's answer that it takes no more requests.
func limited(status int, retryAfter string) func(*rig.Exchange) {
	a := problem(status, "rateLimited", "too many certificates (5) already issued")
	if retryAfter != "" {
		a.Header.Set("Retry-After", retryAfter)
	}
	return always(a)
}

func inAWhile(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }

func TestRateLimitIsRecordedAndKept(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	for name, c := range map[string]struct {
		kind, args string
		meddle     func(*rig.Exchange)
		wait       time.Duration // that the CA names
	}{
		"503, seconds, at newOrder":  {kind: "newOrder", meddle: limited(503, "7200"), wait: 2 * time.Hour},
		"429, date, at newOrder":     {kind: "newOrder", meddle: limited(429, inAWhile(3*time.Hour)), wait: 3 * time.Hour},
		"429, seconds, at newAccout": {kind: "newAccount", meddle: limited(429, "3600"), wait: time.Hour},
		"429, date, at finalize":     {kind: "finalize", meddle: limited(429, inAWhile(3*time.Hour)), wait: 3 * time.Hour},
		"503, seconds, at challenge": {kind: "challenge", meddle: limited(503, "1800"), wait: 30 * time.Minute},
		"429, seconds, at directory": {kind: "directory", meddle: limited(429, "3600"), wait: time.Hour},
		"429, nothing":               {kind: "newOrder", meddle: limited(429, "")},
		"503, nonsense":              {kind: "newOrder", meddle: limited(503, "soon")},
	} {
		s.afresh()
		s.relay.Meddle(on(c.kind, c.meddle))
		r := s.renew()
		s.failed(r, 6, "rateLimited", "too many certificates (5) already issued", "the CA limits requests")
		assert.Less(t, s.relay.Count(c.kind), 3, "%s: the CA was pressed", name)

		s.relay.Meddle(nil)
		r = s.renew()
		s.failed(r, 6, "not yet time to try", "too many certificates (5) already issued")
		next := renewalOf(t, r).Next
		assert.WithinDuration(t, time.Now().Add(max(c.wait, 15*time.Minute)), next, time.Minute, name)
		s.failed(s.renew("--force"), 6, "not yet time to try")
		assert.Zero(t, s.relay.Count(), "%s: the CA was asked too early", name)

		r = s.renew("--now")
		require.Equal(t, 0, r.code, "%s: someone insists", name)
		if c.wait > 0 {
			assert.Contains(t, strings.Join(r.doc.Warnings, "\n"), "although the CA's rate limit is in force", name)
		}
		s.settled(name)
	}
}

func TestRateLimitOfARenewalLeavesTheInstalledCertificate(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.obtained()
	old := s.live()
	s.relay.Meddle(on("newOrder", limited(429, "3600")))
	s.failed(s.renew("--force", "--min-interval", "1ns"), 6, "rateLimited")
	s.relay.Meddle(nil)
	s.failed(s.renew("--force", "--min-interval", "1ns"), 6, "not yet time to try", "--server URL")
	assert.Zero(t, s.relay.Count())
	assert.Equal(t, old, s.live())
	r := s.renew()
	assert.Equal(t, 0, r.code, "it is not due, so there is nothing to wait for")
}

func TestEachFailureDoublesTheBackOffUntilNowIsGiven(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.relay.Meddle(on("newOrder", always(problem(403, "rejectedIdentifier", "policy forbids it"))))
	wait := 15 * time.Minute
	for n := 1; n < 9; n++ {
		s.failed(s.renew("--now"), 6, "rejectedIdentifier", "policy forbids it")
		asked := s.relay.Count()
		r := s.renew()
		s.failed(r, 6, fmt.Sprintf("attempt %d failed", n))
		assert.Equal(t, asked, s.relay.Count(), "the CA was asked too early")
		doc := renewalOf(t, r)
		assert.Equal(t, n, doc.Renewal.Failures)
		assert.WithinDuration(t, time.Now().Add(min(wait, 8*time.Hour)), doc.Next, time.Minute)
		wait *= 2
	}
	asked := s.relay.Count()
	keyboard := exec.CommandContext(t.Context(), "script", "--quiet", "--return", "--command", binary+" renew --agree-tos", os.DevNull)
	keyboard.Env = append(os.Environ(), s.env...)
	out, _ := keyboard.CombinedOutput()
	assert.Equal(t, 6, keyboard.ProcessState.ExitCode(), "%s", out)
	assert.Greater(t, s.relay.Count(), asked, "somebody at a terminal does not wait")

	s.relay.Meddle(nil)
	s.remember(func(record map[string]any) { record["next"] = time.Now().Add(-time.Second) })
	require.Equal(t, 0, s.renew().code, "the time has come")
	s.remember(func(record map[string]any) {
		assert.NotContains(t, record, "failures")
		assert.NotContains(t, record, "next")
	})
}

// The long version also waits for a look that meets nobody.
func TestFailuresBeforeTheCAValidatesCauseNoBackOff(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.failed(s.renew("--listen", "192.0.2.1:80"), 6, "listening for the CA")
	assert.Zero(t, s.relay.Count("challenge"))
	if soak {
		s.lead("127.0.0.2", "imap.example.com") // where nobody answers
		s.failed(s.renew(), 6, "imap.example.com", "self-check")
		s.lead(s.ip, "imap.example.com")
	}
	require.Equal(t, 0, s.renew().code)
	s.settled("fixed")
}

func TestImplausibleRenewalInformationIsIgnored(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.obtained()
	window := func(start, end time.Time) func(*rig.Exchange) {
		const layout = `{"suggestedWindow":{"start":%q,"end":%q}}`
		return always(rig.Answer{Status: 200, Body: fmt.Appendf(nil, layout, start.Format(time.RFC3339), end.Format(time.RFC3339))})
	}
	now := time.Now()
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		meddle func(*rig.Exchange)
		log    string
	}{
		"404 with a problem":  {always(problem(404, "malformed", "no such certificate")), "404"},
		"404 with JSON":       {always(rig.Answer{Status: 404, Body: []byte(`{}`)}), "404"},
		"a page":              {always(page(200)), "renewal information"},
		"nothing":             {always(rig.Answer{Status: 200}), "renewal information"},
		"an empty object":     {always(rig.Answer{Status: 200, Body: []byte(`{}`)}), "ignored"},
		"a list":              {always(rig.Answer{Status: 200, Body: []byte(`[]`)}), "renewal information"},
		"zero":                {window(now.Add(time.Hour), now.Add(time.Hour)), "ignored"},
		"inverted":            {window(now.Add(time.Hour), now.Add(-time.Hour)), "ignored"},
		"in 1970":             {window(year(1970), year(1971)), "ignored"},
		"in 2999":             {window(year(2999), year(3000)), "ignored"},
		"when it has expired": {window(now.Add(100*24*time.Hour), now.Add(120*24*time.Hour)), "ignored"},
		"rate limited":        {limited(429, "3600"), "429"},
	} {
		s.relay.Meddle(on("renewalInfo", c.meddle))
		s.remember(func(record map[string]any) { delete(record, "renewal_info") })
		began := time.Now()
		r := s.renew()
		require.Equal(t, 0, r.code, name)
		assert.NotZero(t, s.relay.Count("renewalInfo"), name)
		assert.Contains(t, r.stderr, "no renewal information", name)
		assert.Contains(t, r.stderr, c.log, name)
		assert.Less(t, len(r.stderr), 1500, "%s: a page was dumped", name)
		doc := renewalOf(t, r)
		assert.False(t, doc.Renewal.Due, name)
		assert.WithinDuration(t, now.Add(60*24*time.Hour), doc.Renewal.At, time.Hour, "%s: not by its lifetime", name)
		asked := s.relay.Count()
		assert.Less(t, time.Since(began), 15*time.Second, name)
		require.Equal(t, 0, s.renew().code, name)
		assert.Equal(t, asked, s.relay.Count(), "%s: asked again at once", name)
	}
}

func TestCAWithoutRenewalInformationRenewsLikeAnyOther(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.obtained()
	s.relay.Meddle(on("renewalInfo", always(page(http.StatusBadGateway)))) // forever
	began := time.Now()
	r := s.renew("--force", "--min-interval", "1ns")
	require.Equal(t, 0, r.code)
	assert.Less(t, time.Since(began), 20*time.Second)
	assert.Contains(t, r.stderr, "no renewal information")
	assert.Equal(t, 2, s.issued())
	s.settled("renewed")
}
