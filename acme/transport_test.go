package acme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

// serve starts a TLS server and a transport that trusts it, and counts requests.
func serve(t *testing.T, handle func(n int32, w http.ResponseWriter, r *http.Request)) (*httptest.Server, *transport, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(asked.Add(1), w, r) }))
	t.Cleanup(server.Close)
	return server, &transport{ctx: t.Context(), base: server.Client().Transport, pause: time.Millisecond, after: map[string]time.Time{}, faults: map[string]*fault{}}, &asked
}

func post(t *testing.T, tr http.RoundTripper, url, body string) (int, string, error) {
	t.Helper()
	return send(t, tr, http.MethodPost, url, body)
}

func send(t *testing.T, tr http.RoundTripper, method, url, body string) (int, string, error) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	response, err := (&http.Client{Transport: tr}).Do(request)
	if err != nil {
		return 0, "", err
	}
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(data), nil
}

func TestATemporaryFaultIsRetriedWithTheSameBody(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(w http.ResponseWriter){
		"500": func(w http.ResponseWriter) { w.WriteHeader(500) }, "502": func(w http.ResponseWriter) { w.WriteHeader(502) },
		"503": func(w http.ResponseWriter) { w.WriteHeader(503) }, "504": func(w http.ResponseWriter) { w.WriteHeader(504) },
		"reset": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"half a body": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, tr, asked := serve(t, func(n int32, w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				assert.Equal(t, "the body", string(body))
				if n < tries {
					fault(w)
					return
				}
				_, _ = io.WriteString(w, "fine")
			})
			status, body, err := send(t, tr, http.MethodPut, server.URL, "the body") // not signed
			require.NoError(t, err)
			assert.Equal(t, 200, status)
			assert.Equal(t, "fine", body)
			assert.EqualValues(t, tries, asked.Load())
		})
	}
}

// A CA that answers has spent the nonce, also with a 5xx.
func TestASignedRequestThatMeetsAFaultIsSignedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		times int // of the fault
		fault func(http.ResponseWriter, *http.Request, []byte) bool
		want  string // in the error
	}{
		"twice":            {2, on("/order", 500, "serverInternal", "the database is down"), ""},
		"for good":         {100, on("/order", 500, "serverInternal", "the database is down"), `serverInternal: "the database is down"`},
		"a page, for good": {100, page("/order", 503), "503 Service Unavailable"},
		"no response":      {2, hangUp("/order"), ""},
		"none, for good":   {100, hangUp("/order"), "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir, met := newAuthority(t), t.TempDir(), 0
			a.meddle = func(w http.ResponseWriter, r *http.Request, payload []byte) bool {
				if r.URL.Path != "/order" || met == c.times {
					return false
				}
				met++
				return c.fault(w, r, payload)
			}
			_, err := a.obtain(dir, a.request())
			if c.want == "" {
				require.NoError(t, err)
				assert.Equal(t, c.times+1, a.count("POST /order")-a.count("POST /order/"))
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "badNonce")
			assert.Equal(t, tries, a.count("POST /order"))
		})
	}
}

func TestWhatTheCAFirstSaidIsToldIfLegoGivesUp(t *testing.T) {
	t.Parallel()
	server, tr, _ := serve(t, func(n int32, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			refuse(w, 500, "serverInternal", "down")
			return
		}
		refuse(w, 400, "badNonce", "spent")
	})
	c := &Client{ctx: t.Context(), http: tr}
	status, _, err := post(t, tr, server.URL, "x")
	require.NoError(t, err)
	assert.Equal(t, 400, status, "lego signs again")
	gaveUp := &lego.NonceError{ProblemDetails: &lego.ProblemDetails{Type: lego.BadNonceErr, HTTPStatus: 400, URL: server.URL}}
	err = c.explain(gaveUp, "ordering", "")
	assert.True(t, isProblem(err, "serverInternal"), "%v", err)
	err = c.explain(gaveUp, "ordering", "")
	assert.True(t, isProblem(err, "badNonce"), "%v", err)
}

func TestAPersistentFaultEndsInAnError(t *testing.T) {
	t.Parallel()
	server, tr, asked := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(503)
		_, _ = io.WriteString(w, "<html>\x1b[31mdown for maintenance</html>")
	})
	_, _, err := send(t, tr, http.MethodGet, server.URL, "")
	require.ErrorContains(t, err, `the server answered 503 Service Unavailable without a problem document: "<html> [31mdown for maintenance</html>"`)
	assert.EqualValues(t, tries, asked.Load())
}

func TestPermanentFaultsAreNotRetried(t *testing.T) {
	t.Parallel()
	const limited = `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow down"}`
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"503 rateLimited": {503, limited}, "503 for an hour": {503, "{}"}, "429": {429, limited}, "400": {400, `{"type":"x"}`}, "404": {404, "{}"}, "200": {200, "<html>"}, "501": {501, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, tr, asked := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
				if strings.HasSuffix(name, "for an hour") {
					w.Header().Set("Retry-After", "3600")
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			status, body, err := post(t, tr, server.URL, "x")
			require.NoError(t, err)
			assert.Equal(t, c.status, status)
			assert.Equal(t, c.body, body)
			assert.EqualValues(t, 1, asked.Load())
		})
	}
	t.Run("a certificate that is not trusted", func(t *testing.T) {
		t.Parallel()
		server, tr, asked := serve(t, func(int32, http.ResponseWriter, *http.Request) {})
		dials := &counting{base: http.DefaultTransport.(*http.Transport).Clone()}
		tr.base = dials
		_, _, err := post(t, tr, server.URL, "x")
		require.ErrorContains(t, err, "certificate")
		assert.Zero(t, asked.Load())
		assert.EqualValues(t, 1, dials.n.Load())
	})
	t.Run("a name that does not exist", func(t *testing.T) {
		t.Parallel()
		missing := &net.DNSError{Err: "no such host", Name: "ca.invalid", IsNotFound: true}
		assert.False(t, passing(nil, fmt.Errorf("dialing: %w", missing)))
		assert.True(t, passing(nil, &net.DNSError{Err: "server misbehaving", Name: "ca.invalid", IsTemporary: true}))
	})
}

type counting struct {
	base http.RoundTripper
	n    atomic.Int32
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.base.RoundTrip(r)
}

func TestTheSizeOfAResponseIsLimited(t *testing.T) {
	t.Parallel()
	for size, fits := range map[int]bool{maxBody: true, maxBody + 1: false} {
		server, tr, _ := serve(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, size))
		})
		_, body, err := post(t, tr, server.URL, "x")
		if fits {
			require.NoError(t, err)
			assert.Len(t, body, size)
		} else {
			assert.ErrorContains(t, err, "more than 1048576 bytes")
		}
	}
}

func TestTheEndOfTheRunEndsARequestAtOnce(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(ctx context.Context, w http.ResponseWriter){
		"while it is silent": func(ctx context.Context, _ http.ResponseWriter) { <-ctx.Done() },
		"before another try": func(_ context.Context, w http.ResponseWriter) { w.WriteHeader(503) },
		"in the body": func(ctx context.Context, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			w.(http.Flusher).Flush()
			<-ctx.Done()
		},
		"while it is waiting": func(_ context.Context, w http.ResponseWriter) { w.Header().Set("Retry-After", "9"); w.WriteHeader(503) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			server, tr, _ := serve(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
				time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("enough")) })
				_, _ = io.ReadAll(r.Body)
				handle(r.Context(), w)
				if r.Context().Err() != nil {
					panic(http.ErrAbortHandler) // else it could still answer in time
				}
			})
			tr.ctx, tr.pause = ctx, time.Minute
			began := time.Now()
			_, _, err := post(t, tr, server.URL, "x")
			require.Error(t, err) // "enough", or what the last answer was
			assert.Less(t, time.Since(began), 5*time.Second)
		})
	}
}

func TestRetryAfterIsReadInSecondsAndAsADate(t *testing.T) {
	t.Parallel()
	now := at("2026-11-24T07:00:00Z")
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "86400": day, "-5": 0, "1.5": 0, "soon": 0, "1e9": 0,
		"Tue, 24 Nov 2026 07:10:00 GMT":   10 * time.Minute,
		"Tue, 24 Nov 2026 06:00:00 GMT":   0, // past
		"Tuesday, 24-Nov-26 07:10:00 GMT": 10 * time.Minute,
		"2147483647":                      2147483647 * time.Second, // 68 years
		"2147483648":                      0,                        // beyond what anybody means
		"99999999999999999999":            0,
		"2026-11-24T07:10:00Z":            0, // no form of HTTP's
	} {
		assert.Equal(t, want, retryAfter(http.Header{"Retry-After": {value}}, now), "%q", value)
	}
	far := retryAfter(http.Header{"Retry-After": {"Fri, 31 Dec 9999 23:59:59 GMT"}}, now)
	assert.Positive(t, far)
	assert.True(t, now.Add(far).After(now), "no overflow")
}

func TestTheLastRetryAfterOfEachURLIsRecorded(t *testing.T) {
	t.Parallel()
	server, tr, _ := serve(t, func(n int32, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.Header().Set("Retry-After", "60")
		}
	})
	_, _, err := post(t, tr, server.URL+"/a", "x")
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Minute), tr.until(server.URL+"/a"), 5*time.Second)
	assert.Zero(t, tr.until(server.URL+"/b"))
	_, _, err = post(t, tr, server.URL+"/a", "x")
	require.NoError(t, err)
	assert.Zero(t, tr.until(server.URL+"/a"))
}

func TestProblemsAreShownWithTypeDetailAndName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status        int
		body          string
		after         string
		want, hint    string
		limited, kind bool
	}{
		"rate limit of an order":     {429, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}`, "3600", `ordering: the CA answered rateLimited: "too many", until 20`, "--staging", true, true},
		"rate limit in a 503":        {503, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"busy"}`, "3600", "rateLimited", "limits requests", true, true},
		"a 503 of another type":      {503, `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"down"}`, "3600", "serverInternal", "an error at the CA", true, true},
		"the account":                {403, `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"deactivated"}`, "", "unauthorized", "mailu-hook account deactivate", false, true},
		"a name":                     {400, `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no","subproblems":[{"type":"x","detail":"bad","identifier":{"type":"dns","value":"a.example"}}]}`, "", "rejectedIdentifier for a.example: ", "HOSTNAMES", false, true},
		"no namespace":               {400, `{"type":"caa","detail":"forbidden"}`, "", "the CA answered caa", "CAA", false, true},
		"a problem without anything": {400, `{}`, "", "the CA answered", "", false, true},
		"controls":                   {400, `{"type":"\u001b[31m","detail":"\u001b[2J\n-----BEGIN PRIVATE KEY-----"}`, "", "the CA answered", "", false, true},
		"a page":                     {403, "<html>blocked</html>", "", "the server answered 403 Forbidden", "that no proxy is in between", false, false},
		"a page with a limit":        {429, "<html>slow</html>", "3600", "the server answered 429", "no proxy", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path != "/order" {
					return false
				}
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			}
			client, state := a.client(t.TempDir())
			client.http.pause = time.Microsecond
			require.NoError(t, client.signIn())
			l, err := state.Lineage("mail.example.com")
			require.NoError(t, err)
			_, err = client.newOrder(a.request(), a.request().Names, l)
			require.ErrorContains(t, err, c.want)
			var problem *Problem
			assert.Equal(t, c.kind, errors.As(err, &problem))
			assert.NotContains(t, err.Error(), "\x1b")
			assert.NotContains(t, err.Error(), "BEGIN")
			assert.Contains(t, say.HintOf(err), c.hint)
			assert.Equal(t, c.limited, !limitOf(err).IsZero())
		})
	}
}
