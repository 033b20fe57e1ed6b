package watch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPingSaysWhatBothKindsOfSwitchesUnderstand(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.String()+" "+string(body))
		if strings.Contains(r.URL.Path, "broken") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	failure := errors.New("port 993\nshows another leaf")
	require.NoError(t, Ping(t.Context(), server.URL+"/uuid", nil))
	require.NoError(t, Ping(t.Context(), server.URL+"/uuid", failure))
	require.NoError(t, Ping(t.Context(), server.URL+"/key/slug?create=1", failure))
	require.NoError(t, Ping(t.Context(), server.URL+"/api/push/token?status=up&msg=OK&ping=", nil))
	require.NoError(t, Ping(t.Context(), server.URL+"/api/push/token?status=up&msg=OK&ping=", failure))
	assert.Equal(t, []string{
		"GET /uuid ", "POST /uuid/fail port 993 shows another leaf", "POST /key/slug/fail?create=1 port 993 shows another leaf",
		"GET /api/push/token?msg=OK&ping=&status=up ", "GET /api/push/token?msg=port+993+shows+another+leaf&ping=&status=down ",
	}, asked)

	err := Ping(t.Context(), server.URL+"/broken/secret", nil)
	require.ErrorContains(t, err, "answers 500")
	assert.NotContains(t, err.Error(), "secret")
	server.Close()
	err = Ping(t.Context(), server.URL+"/secret", nil)
	require.ErrorContains(t, err, "pinging 127.0.0.1")
	assert.NotContains(t, err.Error(), "secret")
	for _, bad := range []string{"", "hc-ping.com/uuid", "ftp://x/y", "http://", "http://[::1"} {
		assert.Error(t, CheckPing(bad), bad)
	}
}

func TestPagesAreMadeByOneLookForAll(t *testing.T) {
	var looks atomic.Int32
	healthy := true
	p := Pages{Look: func(context.Context) (string, string, bool) {
		looks.Add(1)
		return "mailu_hook_up 1\n", "OK\n", healthy
	}}
	listener, err := Listen("0")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(listener.Addr().String(), "127.0.0.1:"), "for this host only")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Serve(ctx, listener) }()
	get := func(path string) (int, string) {
		t.Helper()
		response, err := http.Get("http://" + listener.Addr().String() + path)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(body)
	}
	for range 3 * mostAtOnce {
		status, body := get("/metrics")
		assert.Equal(t, 200, status)
		assert.Equal(t, "mailu_hook_up 1\n", body)
	}
	status, body := get("/healthz")
	assert.Equal(t, 200, status)
	assert.Equal(t, "OK\n", body)
	assert.EqualValues(t, 1, looks.Load())
	healthy, p.at = false, p.at.Add(-2*goodFor)
	status, _ = get("/healthz")
	assert.Equal(t, 503, status)
	status, _ = get("/")
	assert.Equal(t, 404, status)
	stop()
	require.NoError(t, <-ended)
}
