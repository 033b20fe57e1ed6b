package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/report"
)

// completed is what bash offers for the last of words.
func completed(t *testing.T, words ...string) []string {
	t.Helper()
	script := newWorld(t).run("completion", "bash").stdout + `
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mailu_hook; printf '%s\n' "${COMPREPLY[@]}"`
	cmd := exec.Command("bash", append([]string{"-c", script, "bash", "mailu-hook"}, words...)...)
	cmd.Dir = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(cmd.Dir, "a-directory"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cmd.Dir, "a-file"), nil, 0o600))
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

func TestBashCompletesCommandsFlagsAndValues(t *testing.T) {
	for name, c := range map[string]struct{ words, want []string }{
		"command":           {[]string{"ins"}, []string{"install"}},
		"complete command":  {[]string{"install"}, []string{"install"}},
		"flag of a command": {[]string{"install", "--lin"}, []string{"--lineage"}},
		"flag of the hook":  {[]string{"--proj"}, []string{"--project"}},
		"no such command":   {[]string{"nope"}, nil},
		"flags of version":  {[]string{"version", "--"}, []string{"--help"}},
		"formats":           {[]string{"install", "--output", ""}, deployFormatNames()},
		"formats of status": {[]string{"status", "--output", ""}, report.FormatNames()},
		"after an equals":   {[]string{"status", "--output", "=", "n"}, []string{"nagios"}},
		"at an equals":      {[]string{"status", "--output", "="}, report.FormatNames()},
		"formats of a hook": {[]string{"--output", "j"}, []string{"json"}},
		"codes":             {[]string{"status", "--ignore", "sync_timer_"}, []string{"sync_timer_missing", "sync_timer_idle"}},
		"modes":             {[]string{"sync", "--dane", ""}, []string{"auto", "require", "off"}},
		"key types":         {[]string{"renew", "--key-type", "rsa"}, []string{"rsa2048", "rsa4096"}},
		"directories":       {[]string{"install", "--lineage", ""}, []string{"a-directory"}},
		"files":             {[]string{"install", "--cert", "a"}, []string{"a-directory", "a-file"}},
		"numbers":           {[]string{"install", "--keep", ""}, nil},
		"after a switch":    {[]string{"install", "--dry-run", "--keep"}, []string{"--keep"}},
		"what help takes":   {[]string{"help", "comp"}, []string{"completion"}},
		"no file for help":  {[]string{"help", "a-"}, nil},
		"shells":            {[]string{"completion", ""}, shellNames()},
		"account":           {[]string{"account", ""}, []string{"show", "deactivate"}},
		"no file for sync":  {[]string{"sync", ""}, nil},
	} {
		t.Run(name, func(t *testing.T) { assert.ElementsMatch(t, c.want, nilIfEmpty(completed(t, c.words...))) })
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

func TestEachShellsScriptOffersWhatAFlagTakes(t *testing.T) {
	w := newWorld(t)
	for shell, want := range map[string][]string{
		"bash": {`status,--dane) COMPREPLY=($(compgen -W "auto require off" -- "$cur")); return ;;`, `renew,--email) return ;;`},
		"zsh":  {`status,--dane) compadd -- auto require off; return ;;`, `install,--lineage) _files -/; return ;;`, `help) compadd -- install `},
		"fish": {`-l dane -x -a "auto require off"`, `-l lineage -x -a '(__fish_complete_directories)'`, `-l cert -r -F`, `-n "__fish_seen_subcommand_from completion" -a "bash zsh fish"`},
	} {
		for _, line := range want {
			assert.Contains(t, w.run("completion", shell).stdout, line, shell)
		}
	}
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
