package reload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

// execFront is a front of which nothing is seen but through the engine.
func execFront(t *testing.T, command func(argv []string) (string, int)) (*Front, *engine) {
	t.Helper()
	fake := &engine{command: command, containers: map[string]string{frontID: answer(t)}}
	return describe(serveHTTP(t, fake), fixture(t)), fake
}

func TestCommandRunsAsRootWithoutAShellAndWithoutAnUpgrade(t *testing.T) {
	f, fake := execFront(t, func([]string) (string, int) { return "got a\x00b\n", 3 })
	out, status, err := f.in.exec(t.Context(), "rm", "/run/x y;z")
	require.NoError(t, err)
	assert.Equal(t, "got a\x00b\n", string(out))
	assert.Equal(t, 3, status)
	require.Len(t, fake.execs, 1)
	assert.Equal(t, []string{"rm", "/run/x y;z"}, fake.execs[0].argv)
	assert.Equal(t, "0", fake.execs[0].user)
}

func TestCommandWithoutInputAttachesNone(t *testing.T) {
	f, fake := execFront(t, silent)
	out, status, err := f.in.exec(t.Context(), "true")
	require.NoError(t, err)
	assert.Empty(t, out)
	assert.Zero(t, status)
	assert.False(t, fake.execs[0].input)
}

func TestOutputOfACommandIsLimited(t *testing.T) {
	f, _ := execFront(t, func([]string) (string, int) { return strings.Repeat("x", 5<<20) + "end", 0 })
	out, _, err := f.in.exec(t.Context(), "yes")
	require.NoError(t, err)
	assert.Len(t, out, maxOutput)
}

func TestLimitedKeepsTheBeginningAndSwallowsTheRest(t *testing.T) {
	for _, size := range []int{1, 7, maxOutput - 1, maxOutput, maxOutput + 1, 3 * maxOutput} {
		var l limited
		for range 3 {
			n, err := l.Write(make([]byte, size))
			require.NoError(t, err)
			assert.Equal(t, size, n, "a short write would stop the copy")
		}
		assert.Equal(t, min(3*size, maxOutput), l.kept.Len())
	}
}

// stalling creates a command and then does with its start what stall does.
func stalling(stall func(w http.ResponseWriter, r *http.Request)) http.Handler {
	return ping(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/start") {
			stall(w, r)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"Id":"7"}`)
	})
}

func TestCommandThatHangsEndsWithTheTime(t *testing.T) {
	for name, c := range map[string]struct {
		says string // before it hangs
	}{
		"before the answer": {""},
		"after the header":  {"HTTP/1.1 200 OK\r\n\r\n"},
		"in a frame":        {"HTTP/1.1 200 OK\r\n\r\n\x01\x00\x00\x00\x00\x00\x00\x09half"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			e := serveHTTP(t, stalling(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					defer conn.Close()
					_, _ = io.WriteString(conn, c.says)
					<-release
				}
			}))
			f := describe(e, fixture(t))
			ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("the time is up"))
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, _, err := f.in.exec(ctx, "nginx", "-t")
				done <- err
			}()
			select {
			case err := <-done:
				close(release)
				mustBeErrEngine(t, err)
				assert.ErrorContains(t, err, "running nginx -t in mailu-front-1: no answer: the time is up")
			case <-time.After(3 * time.Second):
				close(release)
				<-done
				t.Error("it outlived its time, and ended only when the engine did")
			}
		})
	}
}

func TestCommandThatCannotBeRunIsErrEngine(t *testing.T) {
	for name, handler := range map[string]http.Handler{
		"not created": ping(saying(500, `{"message":"oops"}`)),
		"not started": stalling(saying(500, `{"message":"oops"}`)),
		"garbage as frame": stalling(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n\x09 hello, garbage")
				conn.Close()
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := describe(serveHTTP(t, handler), fixture(t)).in.exec(t.Context(), "true")
			mustBeErrEngine(t, err)
		})
	}
}

func TestCommandInAContainerThatDoesNotRunIsNoFailureOfTheEngine(t *testing.T) {
	for status, answer := range map[int]string{404: "No such container: 4c01", 409: "Container 4c01 is not running"} {
		f := describe(serveHTTP(t, ping(saying(status, `{"message":"`+answer+`"}`))), fixture(t))
		_, _, err := f.in.exec(t.Context(), "true")
		require.NotErrorIs(t, err, ErrEngine)
		assert.EqualError(t, err, fmt.Sprintf("%s is not running: %q", f.Container, "Error response from daemon: "+answer))
		assert.Contains(t, say.HintOf(err), "start it")
	}
}

func TestFailureOfPSIsReported(t *testing.T) {
	f, _ := execFront(t, func([]string) (string, int) { return "", 127 })
	_, err := f.in.processes(t.Context())
	assert.EqualError(t, err, fmt.Sprintf("listing the processes of %s: ps: exit status 127", f.Container))
}
