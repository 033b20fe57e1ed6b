package mailu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCommentBehindAValueIsNoPartOfIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mailu-hook.conf")
	for line, want := range map[string]string{
		`mailu # the production one`:   "mailu",
		`mailu	#x`:                     "mailu",
		`# nothing`:                    "",
		`a#b`:                          "a#b",
		`"mailu" # the production one`: "mailu",
		`'a # b'`:                      "a # b",
		`"a # b" # c`:                  "a # b",
		`"a" b # c`:                    `"a" b # c`,
		`"half # open`:                 `"half # open`,
		``:                             "",
	} {
		require.NoError(t, os.WriteFile(file, []byte("MAILU_HOOK_PROJECT="+line+"\n"), 0o600))
		values, err := ReadVariables(file)
		require.NoError(t, err)
		assert.Equal(t, want, values["MAILU_HOOK_PROJECT"], line)
	}
}
