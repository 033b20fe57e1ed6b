package reload

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/say"
)

// ping answers the negotiation and leaves the rest to next.
func ping(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			w.Header().Set("Api-Version", "1.41")
			return
		}
		next(w, r)
	})
}

func saying(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// mustBeErrEngine holds what every failure of the engine has in common.
func mustBeErrEngine(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, ErrEngine)
	assert.NotErrorIs(t, err, ErrNone)
	assert.Contains(t, say.HintOf(err), "DOCKER_HOST")
	assert.NotContains(t, err.Error(), "\n")
	assert.NotContains(t, err.Error(), "\x1b")
	assert.Less(t, len(err.Error()), 700, "foreign text is cut")
}

func TestEngineThatCannotBeReachedIsErrEngine(t *testing.T) {
	dead := socket(t)
	l, err := net.Listen("unix", dead)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, path := range map[string]string{"no socket": "/nonexistent/docker.sock", "refused": dead, "a plain file": file} {
		t.Run(name, func(t *testing.T) {
			for _, want := range []Selector{{}, {Container: "mailu-front-1"}} {
				_, err := Find(t.Context(), open(t, path), want)
				mustBeErrEngine(t, err)
				assert.Contains(t, err.Error(), path)
			}
		})
	}
}

func TestEngineThatHangsIsErrEngineWithinTheTime(t *testing.T) {
	list := answer(t)
	for name, handler := range map[string]http.HandlerFunc{
		"at once":   waitForTheClient,
		"in a list": ping(waitForTheClient).ServeHTTP,
		"in a body": ping(func(w http.ResponseWriter, r *http.Request) { flush(w, `[{"Id":`); waitForTheClient(w, r) }).ServeHTTP,
		"in inspect": ping(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/containers/json") {
				flush(w, `[{"Id":"abc","Labels":{"com.docker.compose.service":"front"}}]`)
				return
			}
			flush(w, list[:40])
			waitForTheClient(w, r)
		}).ServeHTTP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := serveHTTP(t, handler)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("the time is up"))
			defer cancel()
			began := time.Now()
			_, err := Find(ctx, e, Selector{})
			mustBeErrEngine(t, err)
			assert.ErrorContains(t, err, "no answer: the time is up")
			within(t, 2*time.Second, began, "a hanging engine")
		})
	}
}

func waitForTheClient(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func flush(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text)
	_ = http.NewResponseController(w).Flush()
}

func TestUselessAnswerIsErrEngine(t *testing.T) {
	html := "<html>\n<head><title>500</title></head>\n<body>\x1b[31m" + strings.Repeat("<p>oops</p>\n", 200) + "</body></html>"
	for name, handler := range map[string]http.HandlerFunc{
		"HTML 500": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(500)
			_, _ = io.WriteString(w, html)
		},
		"message with a PEM":   saying(500, `{"message":"bad -----BEGIN PRIVATE KEY-----MIIsecret"}`),
		"not JSON":             saying(200, "hello\n\x1b[31m"),
		"JSON of another kind": saying(200, `{"a":[1,2,3]}`),
		"nothing":              saying(200, ""),
		"permission denied":    saying(403, `{"message":"permission denied"}`),
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `[{"Id":"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Find(t.Context(), serveHTTP(t, ping(handler)), Selector{})
			mustBeErrEngine(t, err)
			assert.NotContains(t, err.Error(), "MIIsecret")
		})
	}
}

func TestInspectionWithoutTheContainerIsErrEngine(t *testing.T) {
	for name, body := range map[string]string{
		"null": `null`, "empty": `{}`, "no config": `{"Id":"abc","Name":"/x","State":{},"HostConfig":{},"NetworkSettings":{}}`,
		"no state": `{"Id":"abc","Name":"/x","HostConfig":{},"Config":{},"NetworkSettings":{}}`, "no networks": `{"Id":"abc","Name":"/x","State":{},"HostConfig":{},"Config":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			e := serveHTTP(t, ping(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/containers/json") {
					saying(200, `[]`)(w, r)
					return
				}
				saying(200, body)(w, r)
			}))
			assert.NotPanics(t, func() {
				_, err := Find(t.Context(), e, Selector{Container: "abc"})
				assert.ErrorIs(t, err, ErrEngine)
			})
		})
	}
}

func TestMissingPermissionIsReportedInPlainText(t *testing.T) {
	err := engineError(t.Context(), "listing containers", errors.New("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock:\n dial unix: connect: permission denied"))
	mustBeErrEngine(t, err)
	assert.ErrorContains(t, err, `listing containers: "permission denied while trying to connect`)
	assert.Contains(t, say.HintOf(err), "may this user use its socket")
}

func TestFrontThatIsRemovedBetweenListAndInspectIsNotFound(t *testing.T) {
	e := serveHTTP(t, ping(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/containers/json") {
			_, _ = io.WriteString(w, `[{"Id":"abc","Labels":{"com.docker.compose.service":"front"}}]`)
			return
		}
		saying(404, `{"message":"No such container: abc"}`)(w, r)
	}))
	_, err := Find(t.Context(), e, Selector{})
	assert.ErrorIs(t, err, ErrNone)
}

func TestOpenRefusesSettingsThatNameNoEngine(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, hint string }{
		"no scheme":       {"DOCKER_HOST", "/var/run/docker.sock", "unix:///path"},
		"no certificates": {"DOCKER_CERT_PATH", t.TempDir(), "DOCKER_CERT_PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(func(name string) string {
				if name == c.variable {
					return c.value
				}
				return ""
			})
			require.Error(t, err)
			assert.Contains(t, say.HintOf(err), c.hint)
		})
	}
}

func TestEngineBehindTLSIsAskedWithTheClientsCertificate(t *testing.T) {
	ca, err := testCA()
	require.NoError(t, err)
	client, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	server, err := ca.Issue(mint.Leaf{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	require.NoError(t, err)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": ca.RootPEM, "cert.pem": client.Chain, "key.pem": client.KeyPEM} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	addr := serveTLS(t, serverConfig(t, server), &engine{containers: map[string]string{frontID: answer(t, inState("exited"))}})
	env := map[string]string{"DOCKER_HOST": "tcp://" + addr, "DOCKER_CERT_PATH": dir, "DOCKER_TLS_VERIFY": "1", "DOCKER_API_VERSION": "v1.41"}
	e, err := Open(func(name string) string { return env[name] })
	require.NoError(t, err)
	defer e.Close()
	g, err := Find(t.Context(), e, Selector{})
	require.NoError(t, err)
	assert.Equal(t, "mailu-front-1", g[0].Container)
}

// As wollomatic's socket proxy does, before an engine that speaks no newer version.
func TestProxyThatRefusesPathsWithoutAVersionIsAskedWithOne(t *testing.T) {
	for _, newest := range []string{"1.51", "1.41"} {
		fake := &engine{containers: map[string]string{frontID: answer(t, inState("exited"))}}
		e := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			version, ok := strings.CutPrefix(strings.Split(r.URL.Path, "/")[1], "v")
			switch {
			case !ok:
				saying(403, `{"message":"path not allowed"}`)(w, r)
			case version > newest:
				saying(400, `{"message":"client version `+version+` is too new"}`)(w, r)
			default:
				r.URL.Path = strings.TrimPrefix(r.URL.Path, "/v"+version)
				fake.ServeHTTP(w, r)
			}
		}))
		g, err := Find(t.Context(), e, Selector{})
		require.NoError(t, err, newest)
		assert.Equal(t, "mailu-front-1", g[0].Container)
	}
	_, err := Find(t.Context(), serveHTTP(t, saying(403, `{"message":"path not allowed"}`)), Selector{})
	require.ErrorIs(t, err, ErrEngine)
	assert.ErrorContains(t, err, "403 Forbidden: path not allowed")
}

func TestPodmanIsAskedOnItsOwnSocket(t *testing.T) {
	e, err := openPodman(func(string) string { return "" })
	require.NoError(t, err)
	defer e.Close()
	assert.Equal(t, "unix:///run/podman/podman.sock", e.(*docker).api.DaemonHost())
	assert.True(t, dockerHere(func(name string) string { return map[string]string{"DOCKER_HOST": "tcp://127.0.0.1:2375"}[name] }))
}

func TestEventsAreToldUntilTheEngineBreaksOff(t *testing.T) {
	e := serveHTTP(t, ping(func(w http.ResponseWriter, r *http.Request) {
		assert.Contains(t, r.URL.Query().Get("filters"), "container")
		flush(w, `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"mailu-front-1"}}}`+"\n")
	}))
	var seen []Event
	err := e.Events(t.Context(), func(event Event) { seen = append(seen, event) })
	require.Error(t, err)
	assert.Equal(t, []Event{{ID: "abc", Action: "start", Labels: map[string]string{"name": "mailu-front-1"}}}, seen)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Error(t, serveHTTP(t, ping(waitForTheClient)).Events(ctx, func(Event) {}))
}
