package reload

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// webFront is a front whose web ports behave as Mailu's: port 80 redirects, and
// 443 shows the files of an override that was there when nginx was hung up.
type webFront struct {
	*daemons
	f         *Front
	fake      *engine
	overrides string

	mu     sync.Mutex
	root   string // of the override that is loaded; "" for none
	deaf   bool   // takes no override
	loaded int
}

func newWebFront(t *testing.T, d *daemons) *webFront {
	t.Helper()
	w := &webFront{daemons: d, overrides: filepath.Join(t.TempDir(), "nginx")}
	require.NoError(t, os.Mkdir(w.overrides, 0o755))
	w.daemons.ps = []string{psWhole}
	w.f, w.fake = frontOf(t, d)
	w.fake.containers = map[string]string{frontID: answer(t, inState("running"))}
	command := w.fake.command
	w.fake.command = func(argv []string) (string, int) {
		if strings.Join(argv, " ") == "killall -HUP nginx" {
			w.hangUp()
		}
		return command(argv)
	}
	w.f.overrides = w.overrides
	plain := web(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
	})
	secure := web(t, serverConfig(t, newPair(t)), w.show)
	w.f.published = map[int][]string{80: {plain}, 443: {secure}}
	return w
}

// web serves HTTP, with a config in TLS, and returns the address.
func web(t *testing.T, config *tls.Config, handler http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	if config != nil {
		l = tls.NewListener(l, config)
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return addr
}

func (w *webFront) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded++
	w.root = ""
	w.daemons.mu.Lock() // another worker takes over
	w.daemons.ps = []string{strings.ReplaceAll(psWhole, "24 23 nginx", fmt.Sprint(24+w.loaded, " 23 nginx"))}
	w.daemons.mu.Unlock()
	if data, err := os.ReadFile(filepath.Join(w.overrides, overrideName)); err == nil && !w.deaf && strings.Contains(string(data), "root /overrides/"+tokensName+";") {
		w.root = filepath.Join(w.overrides, tokensName)
	}
}

func (w *webFront) show(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == "" {
		http.NotFound(rw, r)
		return
	}
	http.FileServer(http.Dir(w.root)).ServeHTTP(rw, r)
}

func (w *webFront) left(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(w.overrides)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestTheFrontAnswersChallengesAndIsAsItWasAfterwards(t *testing.T) {
	for _, umask := range []int{0o022, 0o077} {
		w := newWebFront(t, &daemons{})
		old := syscall.Umask(umask)
		c, err := w.f.ServeChallenges(t.Context())
		if err == nil {
			err = c.Present(t.Context(), "token", "token")
		}
		syscall.Umask(old)
		require.NoError(t, err)
		require.NoError(t, w.f.shows(t.Context(), "token"))
		for name, want := range map[string]os.FileMode{overrideName: 0o644, tokensName: 0o755, tokensName + "/.well-known": 0o755} {
			info, err := os.Stat(filepath.Join(w.overrides, name))
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode().Perm(), "nginx reads %s as its own user", name)
		}
		require.NoError(t, c.CleanUp(t.Context(), "token"))
		require.NoError(t, c.Close(t.Context()))
		assert.Empty(t, w.left(t))
		assert.Empty(t, w.root, "nginx was told")
		assert.Equal(t, 2, w.loaded)
		require.NoError(t, c.Close(t.Context()), "twice")
		assert.Equal(t, 2, w.loaded, "there was nothing to tell")
	}
}

func TestAFrontThatDoesNotShowTheAnswerIsLeftAsItWas(t *testing.T) {
	for name, c := range map[string]struct {
		statuses map[string]int
		deaf     bool
		refused  bool
		want     string
		hint     string
	}{
		"nginx refuses the override": {map[string]int{"nginx": 1}, true, true, "nginx", "another override may answer"},
		"nothing is shown":           {nil, true, false, "does not show the answer to a challenge: ", "is TLS up"},
		"nginx cannot be told":       {map[string]int{"killall": 1}, false, false, "reloading nginx", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWebFront(t, &daemons{statuses: c.statuses})
			w.deaf = c.deaf
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the time is up"))
			defer cancel()
			_, err := w.f.ServeChallenges(ctx)
			require.ErrorContains(t, err, c.want)
			var refusal *mailu.Refusal
			assert.Equal(t, c.refused, errors.As(err, &refusal))
			assert.Contains(t, say.HintOf(err), c.hint)
			assert.NotContains(t, err.Error(), "\x1b")
			assert.Empty(t, w.left(t))
		})
	}
}

func TestWhatAKilledRunLeftIsRemovedAndNginxIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		leave  func(*webFront) error
		loaded int
	}{
		"all":         {func(w *webFront) error { _, err := w.f.ServeChallenges(context.Background()); return err }, 2},
		"the answers": {func(w *webFront) error { return os.MkdirAll(filepath.Join(w.overrides, tokensName, "x"), 0o755) }, 0},
		"the override": {func(w *webFront) error {
			return os.WriteFile(filepath.Join(w.overrides, overrideName), []byte("half"), 0o644)
		}, 1},
		"nothing": {func(*webFront) error { return nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWebFront(t, &daemons{})
			require.NoError(t, c.leave(w))
			require.NoError(t, os.WriteFile(filepath.Join(w.overrides, "theirs.conf"), nil, 0o644))
			require.NoError(t, w.f.ForgetChallenges(t.Context()))
			assert.Equal(t, []string{"theirs.conf"}, w.left(t))
			assert.Equal(t, c.loaded, w.loaded)
			assert.Empty(t, w.root)
		})
	}
}

func TestAFrontThatIsGoneIsNotTold(t *testing.T) {
	w := newWebFront(t, &daemons{})
	c, err := w.f.ServeChallenges(t.Context())
	require.NoError(t, err)
	w.fake.containers = nil
	require.NoError(t, c.Close(t.Context()))
	assert.Empty(t, w.left(t))
	assert.Equal(t, 1, w.loaded)
}

func TestAFrontWithoutOverridesSaysWhereTheyBelong(t *testing.T) {
	w := newWebFront(t, &daemons{})
	w.f.overrides = ""
	_, err := w.f.ServeChallenges(t.Context())
	require.ErrorContains(t, err, "nothing is mounted at /overrides in mailu-front-1")
	assert.Contains(t, say.HintOf(err), "another --challenge")
	require.NoError(t, w.f.ForgetChallenges(t.Context()))
	w.f.overrides = filepath.Join(w.overrides, "missing") // on another host, as far as this one knows
	_, err = w.f.ServeChallenges(t.Context())
	require.ErrorContains(t, err, "opening the overrides of mailu-front-1")
	require.NoError(t, w.f.ForgetChallenges(t.Context()))
}

func TestTheOverrideReplacesNothingOutside(t *testing.T) {
	w := newWebFront(t, &daemons{})
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(w.overrides, tokensName)))
	_, err := w.f.ServeChallenges(t.Context())
	require.Error(t, err)
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	assert.Empty(t, entries)
	assert.Empty(t, w.left(t), "the link is removed, and not what it leads to")
}

func TestAProxiedWebPortIsAskedWithAHeader(t *testing.T) {
	w := newWebFront(t, &daemons{})
	w.f.proxy = "80"
	got := make(chan string, 1)
	w.f.published[80] = []string{listen(t, func(conn net.Conn) {
		header := make([]byte, 16)
		_, _ = io.ReadFull(conn, header)
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		select {
		case got <- string(header):
		default:
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ntoken")
	})}
	require.NoError(t, w.f.shows(t.Context(), "token"))
	assert.Equal(t, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", <-got)
}
