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
	const system = "/dev/log"
	socket, command := system, []string{binary}
	if _, err := os.Lstat(system); err == nil {
		require.Zero(t, os.Geteuid(), "needs root to mount a socket over %s", system)
		socket = filepath.Join(t.TempDir(), "log")
		command = []string{"unshare", "--mount", "--propagation", "private",
			"sh", "-c", `mount --bind "$1" "$(readlink -f /dev/log)" && exec "$2"`, "sh", socket, binary}
	}
	messages, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { messages.Close(); os.Remove(socket) })
	return messages, command
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
