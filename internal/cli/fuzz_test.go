package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
)

// FuzzConfiguration: whatever the configuration file holds, it is understood or
// refused with the exit status for that, in text that a terminal can show. The
// command line names one argument too many, so that no run goes further than
// its settings.
func FuzzConfiguration(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "MAILU_HOOK_HOSTNAME=mail.example.com\n", "# x\r\n; y\r\nMAILU_HOOK_TIMEOUT=9s\r\n",
		"MAILU_HOOK_OUTPUT=json\nMAILU_HOOK_LOG_FORMAT=json\nMAILU_HOOK_LOG_LEVEL=debug", "MAILU_HOOK_OUTPUT=json\nMAILU_HOOK_KEEP=x",
		"MAILU_HOOK_OUTPUT='xml'\n", "MAILU_HOOK_DRY_RUN=\"perhaps\"\n", "MAILU_HOOK_LOG_LEVEL=\xff\n", "MAILU_HOOK_TIMEOUT=99999999h",
		"MAILU_HOOK_HOSTNAME=\"a,b\n", "MAILU_HOOK_LINEAGE=a,\"b\n", "MAILU_HOOK_CONFIG=/dev/zero\n", "DOCKER_HOST=\x00\n", "=x", "x", "export A=b", "\xef\xbb\xbfMAILU_HOOK_KEEP=1",
		"MAILU_HOOK_\x1b[31m=x", "MAILU_HOOK_KEEP=\x1b[31m\u202e", "-----BEGIN PRIVATE KEY-----=x", "MAILU_HOOK_NOW=true\nMAILU_HOOK_LIST=true\nMAILU_HOOK_ALLOW_EXPIRED=1",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "mailu-hook.conf")
	f.Fuzz(func(t *testing.T, content []byte) {
		require.NoError(t, os.WriteFile(file, content, 0o600))
		values, err := mailu.ReadVariables(file)
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
		}
		for key, value := range values {
			assert.NotEmpty(t, key)
			assert.False(t, strings.ContainsAny(key, " \t\n="), "%q", key)
			assert.NotContains(t, value, "\n")
		}
		for _, args := range [][]string{{"too-many"}, {"install", "too", "many"}, {"sync", "too-many"}, {"rollback", "two", "many"}} {
			runWith(t, file, args, err)
		}
	})
}

func runWith(t *testing.T, file string, args []string, readErr error) {
	var stdout, stderr bytes.Buffer
	status := Run(t.Context(), args, []string{"MAILU_HOOK_CONFIG=" + file}, strings.NewReader(""), &stdout, &stderr)
	if len(args) == 1 { // the bare hook would take it for a command
		args = nil
	}
	require.Equal(t, exitUsage, status, "%v: %s", args, stderr.String())
	assert.True(t, utf8.Valid(stdout.Bytes()) && utf8.Valid(stderr.Bytes()), "not UTF-8: %q", stderr.String())
	assert.NotContains(t, stderr.String(), "\x1b")
	assert.NotContains(t, stderr.String(), "-----BEGIN")
	assert.Contains(t, stderr.String(), "mailu-hook: error: ")
	assert.Contains(t, stderr.String(), "mailu-hook: hint: ")
	if readErr != nil && args != nil {
		assert.Contains(t, stderr.String(), "reading the configuration: ")
	}
	if stdout.Len() > 0 {
		assert.True(t, json.Valid(stdout.Bytes()), "more or less than one document: %q", stdout.String())
	}
}
