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
	"regexp"
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
	shown  map[string]string // by path: what the override that is loaded answers
	deaf   bool              // takes no override
	loaded int
}

// answered is how nginx reads an override.
var answered = regexp.MustCompile(`(?m)^location = (\S+) \{\n    default_type text/plain;\n    return 200 "([^"$]*)";\n\}$`)

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
	w.shown = map[string]string{}
	w.daemons.mu.Lock() // another worker takes over
	w.daemons.ps = []string{strings.ReplaceAll(psWhole, "24 23 nginx", fmt.Sprint(24+w.loaded, " 23 nginx"))}
	w.daemons.mu.Unlock()
	if data, err := os.ReadFile(filepath.Join(w.overrides, overrideName)); err == nil && !w.deaf {
		for _, found := range answered.FindAllStringSubmatch(string(data), -1) {
			w.shown[found[1]] = found[2]
		}
	}
}

func (w *webFront) show(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answer, ok := w.shown[r.URL.Path]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	_, _ = io.WriteString(rw, answer)
}

// shows reports whether the front itself shows the answer to a token.
func (w *webFront) shows(t *testing.T, token, answer string) bool {
	return w.f.shows(t.Context(), token, answer) == nil
}

func (w *webFront) group() Group { return Group{w.f} }

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

func TestFrontAnswersChallengesAndIsAsItWasAfterwards(t *testing.T) {
	for _, umask := range []int{0o022, 0o077} {
		w := newWebFront(t, &daemons{})
		old := syscall.Umask(umask)
		c, err := w.group().ServeChallenges(t.Context())
		if err == nil {
			err = c.Present(t.Context(), "token", "token.key-auth_0")
		}
		syscall.Umask(old)
		require.NoError(t, err)
		assert.True(t, w.shows(t, "token", "token.key-auth_0"))
		info, err := os.Stat(filepath.Join(w.overrides, overrideName))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o644), info.Mode(), "the front's root may not be ours")
		assert.Equal(t, []string{overrideName}, w.left(t))

		require.NoError(t, c.CleanUp(t.Context(), "token"))
		require.NoError(t, c.Present(t.Context(), "other", "other.key"))
		assert.True(t, w.shows(t, "other", "other.key"))
		assert.False(t, w.shows(t, "token", "token.key-auth_0"))
		require.NoError(t, c.Close(t.Context()))
		assert.Empty(t, w.left(t))
		assert.Empty(t, w.shown, "nginx was told")
		assert.Equal(t, 4, w.loaded)
		require.NoError(t, c.Close(t.Context()), "twice")
		assert.Equal(t, 4, w.loaded, "there was nothing to tell")
	}
}

func TestAnswersThatAreShownAtTheSameTimeAreLoadedTogether(t *testing.T) {
	w := newWebFront(t, &daemons{})
	c, err := w.group().ServeChallenges(t.Context())
	require.NoError(t, err)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			token := fmt.Sprint("token", i)
			assert.NoError(t, c.Present(t.Context(), token, token+".key"))
			assert.True(t, w.shows(t, token, token+".key"))
		})
	}
	all.Wait()
	assert.Less(t, w.loaded, 10, "twenty answers do not need twenty reloads")
}

func TestEveryFrontOfAGroupShowsTheAnswer(t *testing.T) {
	one, two := newWebFront(t, &daemons{}), newWebFront(t, &daemons{})
	g := Group{one.f, two.f}
	c, err := g.ServeChallenges(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Present(t.Context(), "token", "token.key"))
	assert.True(t, one.shows(t, "token", "token.key"))
	assert.True(t, two.shows(t, "token", "token.key"))
	require.NoError(t, c.Close(t.Context()))
	assert.Empty(t, one.left(t))
	assert.Empty(t, two.left(t))
}

// A prefix for the directory of answers is what an administrator may have too, and a
// second one keeps nginx from starting.
func TestOverrideHoldsOnlyExactLocations(t *testing.T) {
	text := override(map[string]string{"b": "b.key", "a": "a.key"})
	assert.Len(t, answered.FindAllString(text, -1), 2)
	assert.Equal(t, 2, strings.Count(text, "location"))
	assert.Less(t, strings.Index(text, "a.key"), strings.Index(text, "b.key"))
}

func TestAnswerThatNginxCouldTakeForItsOwnLanguageIsNotShown(t *testing.T) {
	w := newWebFront(t, &daemons{})
	c, err := w.group().ServeChallenges(t.Context())
	require.NoError(t, err)
	for _, bad := range []string{"", "a b", "a;b", "a\"b", "a$uri", "a{", "a\nb", "../a", strings.Repeat("a", 513)} {
		require.Error(t, c.Present(t.Context(), bad, "key"), bad)
		require.Error(t, c.Present(t.Context(), "token", bad), bad)
	}
	assert.Equal(t, 1, w.loaded)
}

func TestFrontThatDoesNotShowTheAnswerIsLeftAsItWas(t *testing.T) {
	for name, c := range map[string]struct {
		statuses map[string]int
		deaf     bool
		refused  bool
		want     string
		hint     string
	}{
		"nginx refuses the override": {map[string]int{"nginx": 1}, true, true, "nginx", "another --challenge"},
		"nothing is shown":           {nil, true, false, "does not show the answer to a challenge: ", "is TLS up"},
		"nginx cannot be told":       {map[string]int{"killall": 1}, false, false, "reloading nginx", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWebFront(t, &daemons{statuses: c.statuses})
			w.deaf = c.deaf
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the time is up"))
			defer cancel()
			_, err := w.group().ServeChallenges(ctx)
			require.ErrorContains(t, err, c.want)
			var refusal *mailu.Refusal
			assert.Equal(t, c.refused, errors.As(err, &refusal))
			assert.Contains(t, say.HintOf(err), c.hint)
			assert.NotContains(t, err.Error(), "\x1b")
			assert.Empty(t, w.left(t))
		})
	}
}

func TestLeftoversOfAKilledRunAreRemovedAndNginxIsReloaded(t *testing.T) {
	for name, c := range map[string]struct {
		leave  func(*webFront) error
		loaded int
	}{
		"all":         {func(w *webFront) error { _, err := w.group().ServeChallenges(context.Background()); return err }, 2},
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
			require.NoError(t, w.group().ForgetChallenges(t.Context()))
			assert.Equal(t, []string{"theirs.conf"}, w.left(t))
			assert.Equal(t, c.loaded, w.loaded)
			assert.Empty(t, w.shown)
		})
	}
}

func TestFrontThatIsGoneIsNotReloaded(t *testing.T) {
	w := newWebFront(t, &daemons{})
	c, err := w.group().ServeChallenges(t.Context())
	require.NoError(t, err)
	w.fake.containers = nil
	require.NoError(t, c.Close(t.Context()))
	assert.Empty(t, w.left(t))
	assert.Equal(t, 1, w.loaded)
}

func TestFrontWithoutOverridesSaysWhereTheyBelong(t *testing.T) {
	w := newWebFront(t, &daemons{})
	w.f.overrides = ""
	_, err := w.group().ServeChallenges(t.Context())
	require.ErrorContains(t, err, "nothing is mounted at /overrides in mailu-front-1")
	assert.Contains(t, say.HintOf(err), "another --challenge")
	require.NoError(t, w.group().ForgetChallenges(t.Context()))
	w.f.overrides = filepath.Join(w.overrides, "missing") // on another host, as far as this one knows
	_, err = w.group().ServeChallenges(t.Context())
	require.ErrorContains(t, err, "opening the overrides of mailu-front-1")
	require.NoError(t, w.group().ForgetChallenges(t.Context()))
}

func TestOverrideReplacesNothingOutside(t *testing.T) {
	w := newWebFront(t, &daemons{})
	outside := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(outside, []byte("untouched"), 0o600))
	for _, name := range []string{overrideName, halfName, tokensName} {
		require.NoError(t, os.Symlink(outside, filepath.Join(w.overrides, name)))
	}
	c, err := w.group().ServeChallenges(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close(t.Context()))
	assert.Empty(t, w.left(t), "the links are removed, and not what they lead to")
	data, err := os.ReadFile(outside)
	require.NoError(t, err)
	assert.Equal(t, "untouched", string(data))
}

func TestLeftoversBesideAStoppedFrontAreRemovedOnceNoRunCanNeedThem(t *testing.T) {
	w := newWebFront(t, &daemons{})
	_, err := w.group().ServeChallenges(t.Context()) // and is killed
	require.NoError(t, err)
	w.f.State = "exited"
	require.NoError(t, w.group().ForgetOldChallenges(t.Context()))
	assert.Equal(t, []string{overrideName}, w.left(t), "another run may be answering right now")
	old := time.Now().Add(-2 * forgottenAfter)
	require.NoError(t, os.Chtimes(filepath.Join(w.overrides, overrideName), old, old))
	require.NoError(t, w.group().ForgetOldChallenges(t.Context()))
	assert.Empty(t, w.left(t))
	assert.Equal(t, 1, w.loaded, "nobody needs to be told")
}

func TestReadOnlyOverridesWithoutLeftoversAreNoError(t *testing.T) {
	needRoot(t)
	w := newWebFront(t, &daemons{})
	require.NoError(t, syscall.Mount("tmpfs", w.overrides, "tmpfs", syscall.MS_RDONLY, ""))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(w.overrides, 0)) })
	require.NoError(t, w.group().ForgetChallenges(t.Context()))
	require.NoError(t, w.group().ForgetOldChallenges(t.Context()))
	assert.Zero(t, w.loaded, "nobody needs to be told")
}

func TestProxiedWebPortIsAskedWithAHeader(t *testing.T) {
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
	require.NoError(t, w.f.shows(t.Context(), "token", "token"))
	assert.Equal(t, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", <-got)
}
