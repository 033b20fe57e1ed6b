package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// certbot -q drops all that a hook prints (Debian's unit runs it so).
func TestHookLeavesItsResultInSyslog(t *testing.T) {
	l := newLab(t)
	messages, command := syslogFor(t)
	l.env = append(l.env, "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_CERTS_DIR="+l.certs(), "MAILU_HOOK_HOSTNAME=mail.example.com")
	for name, tc := range map[string]struct {
		leaf   mint.Leaf
		status int
		says   string
	}{
		"www.example.com":  {mint.Leaf{Names: []string{"www.example.com"}}, 0, "not Mailu's"},
		"mail.example.com": {mint.Leaf{}, 8, "error: installed, but not yet verified on all ports"},
		"old.example.com":  {mint.Leaf{NotAfter: time.Now().Add(-2 * time.Hour)}, 3, "hint: renew it first"},
	} {
		live := l.lineage(l.issue(tc.leaf), name)
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Env = append(append(os.Environ(), l.env...), "RENEWED_LINEAGE="+live)
		_ = cmd.Run()
		require.Equal(t, tc.status, cmd.ProcessState.ExitCode(), name)
		text := messageAbout(t, messages, tc.says)
		assert.Contains(t, text, "mailu-hook[", name)
		l.noSecretIn(text)
	}
}

// syslogFor listens where the binary looks for syslog, and returns the command
// that runs it so. A host's own syslog is left alone: the socket is put over it
// in a mount namespace.
func syslogFor(t *testing.T) (messages *net.UnixConn, command []string) {
	t.Helper()
	require.Zero(t, os.Geteuid(), "needs root to mount a /dev")
	dev := t.TempDir()
	messages, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dev, "log"), Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { messages.Close() })
	return messages, []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$1" /dev && exec "$2"`, "sh", dev, binary}
}

// messageAbout returns the message that contains text; other tests' runs may
// write to the same socket.
func messageAbout(t *testing.T, messages *net.UnixConn, text string) string {
	t.Helper()
	require.NoError(t, messages.SetReadDeadline(time.Now().Add(10*time.Second)))
	buffer := make([]byte, 64<<10)
	for {
		n, err := messages.Read(buffer)
		require.NoError(t, err, "no message about %q", text)
		if message := string(buffer[:n]); strings.Contains(message, text) {
			return message
		}
	}
}

func TestSyslogThatNobodyReadsDelaysNoResult(t *testing.T) {
	l := newLab(t)
	messages, command := syslogFor(t)
	full, err := net.Dial("unixgram", messages.LocalAddr().String())
	require.NoError(t, err)
	defer full.Close()
	require.NoError(t, full.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	for err == nil {
		_, err = full.Write(make([]byte, 1024))
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(append(os.Environ(), l.env...), "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_CERTS_DIR="+l.certs(),
		"MAILU_HOOK_HOSTNAME="+mailName, "RENEWED_LINEAGE="+l.lineage(l.issue(mint.Leaf{}), mailName))
	began := time.Now()
	_ = cmd.Run()
	assert.Equal(t, 8, cmd.ProcessState.ExitCode(), "as ever")
	assert.Less(t, time.Since(began), 20*time.Second, "far less than a deploy may take")
}
