package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// narrowEngine is the engine of this host behind a proxy that lets only paths with a
// version through, drops upgrades of a connection, and shows these containers only.
func narrowEngine(t *testing.T, containers ...string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker"
			r.Out.Header.Del("Upgrade")
			r.Out.Header.Del("Connection")
		},
		FlushInterval: -1,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", "/var/run/docker.sock")
		}},
		ModifyResponse: func(r *http.Response) error {
			if !strings.HasSuffix(r.Request.URL.Path, "/containers/json") || r.StatusCode != http.StatusOK {
				return nil
			}
			var all, shown []map[string]any
			if err := json.NewDecoder(r.Body).Decode(&all); err != nil {
				return err
			}
			for _, c := range all {
				if slices.Contains(containers, c["Id"].(string)) {
					shown = append(shown, c)
				}
			}
			text, err := json.Marshal(shown)
			r.Body = io.NopCloser(strings.NewReader(string(text)))
			r.Header.Set("Content-Length", strconv.Itoa(len(text)))
			r.ContentLength = int64(len(text))
			return err
		},
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1.") {
			http.Error(w, "path not allowed", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return socket
}

func TestFrontWithoutComposesLabelsIsServedThroughAProxy(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{Labels: map[string]string{"com.docker.compose.service": "", "com.docker.compose.project": ""}})
	l.env = append(l.env, "MAILU_HOOK_PROJECT=", "DOCKER_HOST=unix://"+narrowEngine(t, l.front.ID))
	renewed := l.issue(mint.Leaf{})
	r := l.hook(l.lineage(renewed, "mail.example.com"))
	require.Equal(t, 0, r.code)
	assert.Len(t, r.doc.Endpoints, 6)
	l.serves(renewed)
	require.NoError(t, l.front.WaitHealthy(t.Context()))
}

func TestChoiceThatMatchesNoFrontChangesNothing(t *testing.T) {
	l, old := startServing(t, rig.FrontOptions{})
	before := snapshot(t, l.certs())
	lineage := l.lineage(l.issue(mint.Leaf{}), "mail.example.com")
	for _, choice := range []string{"--project", "--container"} {
		r := l.run([]string{"RENEWED_LINEAGE=" + lineage, "MAILU_HOOK_PROJECT="}, "--output", "json", choice, "mailu2")
		assert.Equal(t, 2, r.code)
		assert.Contains(t, r.doc.Error, l.front.Name+" (project "+l.front.Project+")")
	}
	assert.Equal(t, before, snapshot(t, l.certs()))
	l.serves(old)
}

func TestFrontThatCouldNotReadANewKeyIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	require.Zero(t, os.Geteuid(), "needs root to give files away")
	l, old := startServing(t, rig.FrontOptions{ExtraArgs: []string{"--cap-drop", "DAC_OVERRIDE"}})
	require.NoError(t, os.Chown(l.certs(), 12345, 12345))
	before := snapshot(t, l.certs())
	renewed := l.issue(mint.Leaf{})
	lineage := l.lineage(renewed, "mail.example.com")
	r := l.hook(lineage)
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.doc.Error, "it runs without CAP_DAC_OVERRIDE")
	assert.Contains(t, r.doc.Hint, "chown -R 0 "+l.certs())
	assert.Equal(t, before, snapshot(t, l.certs()))
	l.serves(old)

	require.NoError(t, os.Chown(l.certs(), 0, 0))
	require.Equal(t, 0, l.hook(lineage).code)
	l.serves(renewed)
	_, status, err := l.front.Exec(t.Context(), "cat", "/certs/key.pem") // a restart would read it; but dovecot never survives one without that capability
	require.NoError(t, err)
	assert.Zero(t, status)
}

func TestCertsDirectoryThatWasExchangedSinceTheStartIsNoticed(t *testing.T) {
	l := newLab(t)
	require.NoError(t, os.MkdirAll(filepath.Join(l.root, "one"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(l.root, "two"), 0o755))
	require.NoError(t, os.Remove(l.certs()))
	require.NoError(t, os.Symlink("one", l.certs()))
	old := l.issue(mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour)})
	l.writePlain(old, "cert.pem", "key.pem")
	l.start(rig.FrontOptions{})
	l.waitServing()
	require.NoError(t, os.Remove(l.certs()))
	require.NoError(t, os.Symlink("two", l.certs()))
	r := l.hook(l.lineage(l.issue(mint.Leaf{}), "mail.example.com"))
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.doc.Error, "is another directory than")
	assert.Contains(t, r.doc.Hint, "docker restart "+l.front.Name)
	assert.Empty(t, listed(t, filepath.Join(l.root, "two"))[1:])
	l.serves(old)
}

func TestFrontsThatShareADirectoryAreSwitchedAsOne(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	twin, err := rig.StartFront(t.Context(), rig.FrontOptions{Root: l.root})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, twin.Remove()) })
	require.NoError(t, twin.WaitServing(t.Context()))
	renewed := l.issue(mint.Leaf{})
	r := l.hook(l.lineage(renewed, "mail.example.com"))
	require.Equal(t, 0, r.code)
	assert.Len(t, r.doc.Endpoints, 12)
	l.serves(renewed)
	served, err := twin.Served(t.Context(), 443, 993, 25)
	require.NoError(t, err)
	for port, leaf := range served {
		assert.Equal(t, renewed.SHA256(), leaf, "port %d of the other front", port)
	}
	for _, front := range []*rig.Front{l.front, twin} {
		require.NoError(t, front.WaitHealthy(t.Context()))
		for _, command := range [][]string{{"nginx", "-s", "reload"}, {"doveadm", "reload"}} {
			_, status, err := front.Exec(t.Context(), command...)
			require.NoError(t, err)
			assert.Zero(t, status, "%s in %s", command[0], front.Name)
		}
	}
}
