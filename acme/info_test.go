package acme

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// renewed is a lineage that the authority issued.
func renewed(t *testing.T, a *authority) (dir string, l *Lineage, c *Client) {
	t.Helper()
	dir = t.TempDir()
	_, err := a.obtain(dir, a.request())
	require.NoError(t, err)
	c, state := a.client(dir)
	l, err = state.Lineage("mail.example.com")
	require.NoError(t, err)
	return dir, l, c
}

func windowOf(from, to time.Time) string {
	return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":"https://ca.example/why"}`, from.Format(time.RFC3339), to.Format(time.RFC3339))
}

func TestRenewalInformationIsFetchedWhenItIsTime(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	dir, l, c := renewed(t, a)
	now := time.Now().Truncate(time.Second).UTC()
	from, to := now.Add(50*day), now.Add(52*day)
	a.window = windowOf(from, to)
	require.NoError(t, c.Refresh(l, now))
	require.True(t, l.Info.about(l.Leaf))
	assert.Equal(t, from, l.Info.Start)
	assert.Equal(t, to, l.Info.End)
	assert.Equal(t, "https://ca.example/why", l.Info.Explanation)
	assert.Equal(t, now.Add(time.Hour), l.Info.Next, "as Retry-After says")
	drawn := l.Info.Draw

	for _, later := range []time.Duration{time.Minute, 59 * time.Minute} {
		require.NoError(t, c.Refresh(l, now.Add(later)))
	}
	assert.Equal(t, 1, a.count("GET /info"))
	require.NoError(t, c.Refresh(l, now.Add(2*time.Hour)))
	assert.Equal(t, 2, a.count("GET /info"))
	assert.Equal(t, drawn, l.Info.Draw, "drawn once for a window")

	again, err := c.state.Lineage("mail.example.com")
	require.NoError(t, err)
	assert.Equal(t, l.Info, again.Info, "remembered in %s", dir)

	a.window = windowOf(now.Add(-time.Hour), now)
	require.NoError(t, c.Refresh(l, now.Add(4*time.Hour)))
	assert.True(t, l.Due(a.request(), now.Add(4*time.Hour), false).Now, "a window that was moved, as after a revocation")
}

func TestAnExplanationIsStoredOnlyIfItIsAPlainURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://ca.example/why":                         "https://ca.example/why",
		"javascript:alert(1)":                            "",
		`https://ca.example/\u001b[2J`:                   "",
		"https://ca.example/" + strings.Repeat("a", 3e5): "",
	} {
		a := newAuthority(t)
		_, l, c := renewed(t, a)
		now := time.Now()
		a.window = strings.Replace(windowOf(now.Add(50*day), now.Add(52*day)), "https://ca.example/why", text, 1)
		require.NoError(t, c.Refresh(l, now))
		require.True(t, l.Info.about(l.Leaf))
		assert.Equal(t, want, l.Info.Explanation)
		_, err := c.state.Lineage("mail.example.com")
		require.NoError(t, err)
	}
}

func TestEveryRequestHasAUserAgent(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.meddle = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		assert.Contains(t, r.UserAgent(), "test", "%s %s", r.Method, r.URL.Path)
		return false
	}
	_, l, c := renewed(t, a)
	_ = c.Refresh(l, time.Now())
	assert.Equal(t, 1, a.count("GET /info"))
}

func TestAFaultyResponseDoesNotChangeTheRenewalInformation(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, []byte) bool{
		"404 in JSON": on("/info", 404, "malformed", "no such certificate"),
		"404 in HTML": page("/info", 404),
		"200 in HTML": page("/info", 200),
		"null":        raw("/info", "null"),
		"no window":   raw("/info", "{}"),
		"nonsense":    raw("/info", windowOf(time.Now().Add(52*day), time.Now().Add(50*day))),
		"too far":     raw("/info", windowOf(time.Now().Add(200*day), time.Now().Add(201*day))),
		"bad time":    raw("/info", `{"suggestedWindow":{"start":"soon","end":"later"}}`),
		"reset":       hangUp("/info"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			_, l, c := renewed(t, a)
			now := time.Now()
			a.meddle = answer
			require.Error(t, c.Refresh(l, now))
			assert.False(t, l.Info.about(l.Leaf))
			assert.False(t, l.Due(a.request(), now, false).Now, "and no word for renewing now")
			asked := a.count("GET /info")
			require.NoError(t, c.Refresh(l, now.Add(time.Minute)))
			assert.Equal(t, asked, a.count("GET /info"), "not asked again at once")

			a.meddle, a.window = nil, windowOf(now.Add(50*day), now.Add(52*day))
			require.NoError(t, c.Refresh(l, now.Add(7*time.Hour)))
			drawn := l.Info.Draw
			require.False(t, drawn.IsZero())
			a.meddle = answer
			require.Error(t, c.Refresh(l, now.Add(14*time.Hour)))
			assert.Equal(t, drawn, l.Info.Draw)
		})
	}
}

func raw(path, body string) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if len(r.URL.Path) < len(path) || r.URL.Path[:len(path)] != path {
			return false
		}
		_, _ = w.Write([]byte(body))
		return true
	}
}

func TestACAWithoutRenewalInformationIsNoError(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	_, l, c := renewed(t, a)
	a.meddle = raw("/dir", fmt.Sprintf(`{"newNonce":"%s/nonce","newAccount":"%s/account","newOrder":"%s/order"}`, a.server.URL, a.server.URL, a.server.URL))
	require.NoError(t, c.Refresh(l, time.Now()))
	assert.False(t, l.Info.about(l.Leaf))
	assert.Zero(t, a.count("GET /info"))
	require.NoError(t, c.Refresh(l, time.Now().Add(12*time.Hour)))
	assert.False(t, l.Info.stale(l.Leaf, time.Now().Add(12*time.Hour)))
}

func TestACAIsNotAskedAboutACertificateOfAnother(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	_, l, c := renewed(t, a)
	asked := len(a.asked)
	l.Directory = LetsEncrypt
	require.NoError(t, c.Refresh(l, time.Now()))
	require.NoError(t, c.Refresh(&Lineage{Name: "new"}, time.Now()))
	assert.Len(t, a.asked, asked)
}
