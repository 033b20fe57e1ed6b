package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

func TestCAThatRejectsHalfOfTheNoncesIssues(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{Env: []string{"PEBBLE_WFE_NONCEREJECT=50"}})
	require.Equal(t, 0, s.renew().code)
	s.settled("half of the nonces rejected")
	assert.Equal(t, 1, s.issued())
}

// spoils are ways in which a request or its answer is lost.
var spoils = map[string]func(*rig.Exchange){
	"500":            always(page(http.StatusInternalServerError)),
	"502":            always(page(http.StatusBadGateway)),
	"504":            always(page(http.StatusGatewayTimeout)),
	"503":            always(rig.Answer{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}}),
	"reset":          (*rig.Exchange).Reset,
	"answer lost":    func(x *rig.Exchange) { x.Forward(); x.HangUp() },
	"truncated":      func(x *rig.Exchange) { x.Truncate(x.Forward()) },
	"502 after all":  func(x *rig.Exchange) { x.Forward(); x.Reply(page(http.StatusBadGateway)) },
	"serverInternal": func(x *rig.Exchange) { x.Forward(); x.Reply(problem(500, "serverInternal", "it is tired")) },
}

// The short version tries one seed, the long one many.
func TestRequestsThatFailSometimesCostTimeButNoCertificate(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	seeds := uint64(1)
	if soak {
		seeds = 50
	}
	for seed := range seeds {
		for _, percent := range []int{5, 20} {
			what := fmt.Sprintf("%d %% of the requests, seed %d", percent, seed)
			s.afresh()
			before, hit := s.issued(), 0
			random, lock := rand.New(rand.NewPCG(seed, uint64(percent))), sync.Mutex{}
			s.relay.Meddle(func(x *rig.Exchange) {
				spoil := (*rig.Exchange).Pass
				lock.Lock()
				if random.IntN(100) < percent {
					spoil, hit = spoils[sortedKeys(spoils)[random.IntN(len(spoils))]], hit+1
				}
				lock.Unlock()
				spoil(x)
			})
			require.Equal(t, 0, s.renew().code, what)
			s.settled(what)
			assert.Equal(t, before+1, s.issued(), what)
			assert.Equal(t, 1, s.relay.Created("newAccount"), what)
			t.Logf("%s: %d of %d spoiled", what, hit, s.relay.Count())
		}
	}
}

func TestHangingCAIsGivenUpAndItsOrderResumedLater(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	for _, at := range sampled([]string{"directory", "nonce", "newAccount", "newOrder", "authorization", "challenge", "finalize", "order", "certificate"}, 3, 0) {
		s.afresh()
		before := s.issued()
		s.relay.Meddle(on(at, (*rig.Exchange).Hang))
		began := time.Now()
		r := s.renew("--issue-timeout", "2s")
		assert.Less(t, time.Since(began), 8*time.Second, at)
		s.failed(r, 6, "the time is up (--issue-timeout 2s)", s.relay.DirectoryURL)
		assert.Empty(t, s.live(), at)
		ordered := s.relay.Created("newOrder")

		s.relay.Meddle(nil)
		assert.Equal(t, 6, s.renew().code, "%s: it did not wait", at)
		assert.Zero(t, s.relay.Count(), "%s: the CA was asked too early", at)
		require.Equal(t, 0, s.renew("--now").code, at)
		s.settled(at)
		assert.Equal(t, before+1, s.issued(), at)
		assert.Equal(t, 1, ordered+s.relay.Created("newOrder"), "%s: it was ordered again", at)
	}
}

// What cannot pass by itself is not tried for long. What may is tried for so long
// that the short version does it once.
func TestServerThatIsNotACAIsNamedWithAHint(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed.Close()
	url := s.relay.DirectoryURL
	cases := map[string]struct {
		meddle func(*rig.Exchange)
		args   []string
		code   int
		texts  []string
		limit  time.Duration
	}{
		"a page":          {always(page(200)), nil, 6, []string{url, "does not speak ACME"}, 3 * time.Second},
		"not found":       {always(page(404)), nil, 6, []string{url}, 3 * time.Second},
		"other JSON":      {always(rig.Answer{Status: 200, Body: []byte(`{"hello":["world"]}`)}), nil, 6, []string{url}, 3 * time.Second},
		"an array":        {always(rig.Answer{Status: 200, Body: []byte(`[1]`)}), nil, 6, []string{url, "does not speak ACME"}, 3 * time.Second},
		"500 forever":     {always(page(500)), nil, 6, []string{url, "500"}, 30 * time.Second},
		"endless":         {endless, nil, 6, []string{url, "more than"}, 3 * time.Second},
		"unknown root":    {nil, []string{"--ca-file", ""}, 6, []string{url, "certificate", "--ca-file"}, 3 * time.Second},
		"plain http":      {nil, []string{"--server", plain.URL + "/dir"}, 2, []string{plain.URL, "https://"}, 3 * time.Second},
		"TLS to http":     {nil, []string{"--server", "https" + plain.URL[4:] + "/dir"}, 6, []string{plain.URL[4:]}, 30 * time.Second},
		"nobody":          {nil, []string{"--server", "https://" + closed.Addr().String() + "/dir"}, 6, []string{closed.Addr().String(), "refused"}, 30 * time.Second},
		"no such name":    {nil, []string{"--server", "https://ca.invalid/dir"}, 6, []string{"https://ca.invalid/dir"}, 20 * time.Second},
		"no URL":          {nil, []string{"--server", "https://"}, 2, nil, 3 * time.Second},
		"refused account": {on("newAccount", always(problem(403, "unauthorized", "we do not know you"))), nil, 6, []string{"we do not know you", "unauthorized", "mailu-hook account"}, 5 * time.Second},
	}
	for name, c := range cases {
		if c.limit == 30*time.Second && name != "500 forever" && !soak {
			continue
		}
		s.afresh()
		s.relay.Meddle(c.meddle)
		began := time.Now()
		r := s.renew(c.args...)
		t.Logf("%s: %v", name, time.Since(began))
		assert.Less(t, time.Since(began), c.limit, name)
		s.failed(r, c.code, c.texts...)
		assert.NotContains(t, r.stderr, "gateway</p> <p>", name)
	}
}

// endless never ends an answer.
func endless(x *rig.Exchange) { x.Reply(rig.Answer{Status: 200, Body: make([]byte, 3<<20)}) }
