package cli

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// completed is what bash offers for the last of words.
func completed(t *testing.T, words ...string) []string {
	t.Helper()
	script := newWorld(t).run("completion", "bash").stdout + `
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mailu_hook; printf '%s\n' "${COMPREPLY[@]}"`
	cmd := exec.Command("bash", append([]string{"-c", script, "bash", "mailu-hook"}, words...)...)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

func TestBashCompletesCommandsAndFlags(t *testing.T) {
	for name, c := range map[string]struct{ words, want []string }{
		"command":           {[]string{"ins"}, []string{"install"}},
		"complete command":  {[]string{"install"}, []string{"install"}},
		"flag of a command": {[]string{"install", "--lin"}, []string{"--lineage"}},
		"flag of the hook":  {[]string{"--proj"}, []string{"--project"}},
		"no such command":   {[]string{"nope"}, nil},
		"flags of version":  {[]string{"version", "--"}, []string{"--help"}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, nilIfEmpty(completed(t, c.words...))) })
	}
	assert.Subset(t, completed(t, ""), names(commands()))
}

func nilIfEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func TestEachShellsScriptKnowsEveryCommandAndFlag(t *testing.T) {
	w := newWorld(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		r := w.run("completion", shell)
		require.Equal(t, exitOK, r.status)
		assert.Empty(t, r.stderr)
		for _, cmd := range commands() {
			assert.Contains(t, r.stdout, cmd.name, shell)
			for _, flag := range flagsOf(cmd) {
				if shell == "fish" {
					flag = "-l " + strings.TrimPrefix(flag, "--")
				}
				assert.Contains(t, r.stdout, flag, shell)
			}
		}
	}
	assert.True(t, strings.HasPrefix(w.run("completion", "zsh").stdout, "#compdef mailu-hook\n"), "compinit reads the first line")
}

func TestScriptsParseInTheirShells(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		path, err := exec.LookPath(shell)
		if err != nil && shell != "bash" {
			continue // its content is held above
		}
		require.NoError(t, err)
		cmd := exec.Command(path, "-n")
		cmd.Stdin = strings.NewReader(newWorld(t).run("completion", shell).stdout)
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", shell, out)
	}
}
