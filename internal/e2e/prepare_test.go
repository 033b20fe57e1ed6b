package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// A deploy that waits for the lock has begun the test of nginx, which waits in the
// container.
func TestTestThatWaitsInTheFrontEndsWithTheDeploy(t *testing.T) {
	for name, end := range map[string]func(*exec.Cmd) error{
		"killed":      func(cmd *exec.Cmd) error { return cmd.Process.Kill() },
		"interrupted": func(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			l, old := startServing(t, rig.FrontOptions{})
			home := filepath.Join(l.certs(), ".mailu-hook")
			require.NoError(t, os.Mkdir(home, 0o700))
			lock, err := os.Create(filepath.Join(home, "lock"))
			require.NoError(t, err)
			defer lock.Close()
			require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
			cmd := exec.CommandContext(t.Context(), binary)
			cmd.Env = append(append(os.Environ(), l.env...), "RENEWED_LINEAGE="+l.lineage(l.issue(mint.Leaf{}), "mail.example.com"))
			require.NoError(t, cmd.Start())
			waits := func() bool {
				out, _, err := l.front.Exec(t.Context(), "ps", "-A", "-o", "comm")
				require.NoError(t, err)
				return strings.Contains(out, "xargs")
			}
			require.Eventually(t, waits, 20*time.Second, 50*time.Millisecond)
			require.NoError(t, end(cmd))
			_ = cmd.Wait()
			assert.Eventually(t, func() bool { return !waits() }, 20*time.Second, 50*time.Millisecond)
			l.serves(old)
			l.healthyAndReloadable()
		})
	}
}
