package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

func TestTheTracerMissesNothingThatStraceSees(t *testing.T) {
	rig.Need(t, "strace")
	t.Parallel()
	for _, name := range scenarios {
		sc := scenarioOf(t, name)
		mine := map[string]int{}
		for _, s := range sc.trace(sc.fresh(), fault{}).steps {
			mine[s.call]++
		}

		certs, log := sc.fresh(), filepath.Join(t.TempDir(), "log")
		cmd := exec.CommandContext(t.Context(), "strace", append([]string{"-f", "-y", "-s", "0", "-o", log, binary}, withDir(sc.args, certs)...)...)
		cmd.Env = slices.Concat(os.Environ(), sc.bench.env, sc.env)
		out, _ := cmd.CombinedOutput()
		require.Equal(t, 8, cmd.ProcessState.ExitCode(), "%s", out)
		data, err := os.ReadFile(log)
		require.NoError(t, err)
		theirs := map[string]int{}
		for _, call := range regexp.MustCompile(`(?m)^\d+ +(\w+)\(.*[<"]`+regexp.QuoteMeta(certs)+`[/>"]`).FindAllStringSubmatch(string(data), -1) {
			theirs[call[1]]++
		}
		for _, harmless := range []string{"execve", "fcntl", "epoll_ctl", "fstatfs"} { // change no file and take no part in one
			delete(theirs, harmless)
		}
		assert.Equal(t, theirs, mine, name)
	}
}
