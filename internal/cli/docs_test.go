package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/acme"
	"mailu-hook/internal/health"
)

// guides are the documents that tell people what to type.
func guides(t *testing.T) map[string]string {
	t.Helper()
	const root = "../.."
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/mailu-hook.conf", "examples/*/mailu-hook*", "examples/compose/*.yml", ".github/ISSUE_TEMPLATE/*"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				continue
			}
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			name, err := filepath.Rel(root, file)
			require.NoError(t, err)
			texts[name] = string(data)
		}
	}
	for _, cmd := range commands() {
		texts["mailu-hook help "+cmd.name] = helpText(cmd, commands())
	}
	return texts
}

var (
	inBackquotes = regexp.MustCompile("`([^`]+)`")
	// aCommand is a command line of ours up to where the shell takes over again. It
	// may follow a prompt, variables, sudo, cron's times and user, or systemd's key.
	aCommand = regexp.MustCompile(`(?m)^(?:\$ |ExecStart=|- run: )?(?:[A-Z_]+=\S+ |sudo |[\d*/,]+ |root )*(?:/usr/local/bin/)?mailu-hook((?: [^\n|>#;&]*)?)`)
	aWord    = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// commandLines are the arguments of every call of mailu-hook that a text shows, in
// a block of code or between backquotes.
func commandLines(name, text string) (lines [][]string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	var code []string
	for line := range strings.Lines(text) {
		if filepath.Ext(name) != ".md" || strings.HasPrefix(line, "    ") {
			code = append(code, strings.TrimSpace(line))
		}
	}
	for _, match := range inBackquotes.FindAllStringSubmatch(text, -1) {
		code = append(code, strings.Join(strings.Fields(match[1]), " "))
	}
	for _, line := range code {
		if match := aCommand.FindStringSubmatch(line); match != nil && !strings.HasPrefix(match[1], " (") {
			args := aWord.FindAllString(match[1], -1)
			for i := range args {
				args[i] = strings.Trim(args[i], `'"`)
			}
			lines = append(lines, args)
		}
	}
	return lines
}

// No guide shows a command, a flag or a value that does not exist.
func TestEveryCommandLineInTheGuidesParses(t *testing.T) {
	shown := map[string]bool{}
	for name, text := range guides(t) {
		for _, args := range commandLines(name, text) {
			i := &invocation{all: commands()}
			i.command = i.all[0]
			line := name + ": mailu-hook " + strings.Join(args, " ")
			if slices.ContainsFunc(args, func(arg string) bool { return arg == "COMMAND" || arg == "[flags]" || arg == "*" || arg == "…" }) {
				args = args[:1] // a form, not a call
			}
			if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				if args[0] == "COMMAND" || args[0] == "[flags]" || args[0] == "…" {
					continue
				}
				cmd, ok := named(i.all, args[0])
				if !assert.True(t, ok, "%s: there is no such command", line) {
					continue
				}
				i.command, args = cmd, args[1:]
			}
			fs, _, _ := newFlags(i.command)
			if err := fs.Parse(args); err != pflag.ErrHelp {
				assert.NoError(t, err, line)
			}
			i.args = fs.Args()
			assert.NoError(t, i.checkArguments(), line)
			shown[i.name] = true
		}
	}
	for _, cmd := range commands() {
		if cmd.formats != nil {
			assert.True(t, shown[cmd.name], "no guide shows mailu-hook %s", cmd.name)
		}
	}
}

// others are flags that the guides show of other programs.
var others = []string{"--deploy-hook", "--cert-name", "--force-renewal", "--reuse-key", "--standalone", "--tls", "--renew-hook", "--run-hook", "--install-cert", "--reloadcmd", "--allow-downgrades", "--upgrade", "--oldpackage"}

func TestEveryFlagAndVariableInTheGuidesExists(t *testing.T) {
	all := commands()
	known := knownVariables(all)
	flags := []string{"--help", "--version"}
	for _, cmd := range all {
		flags = append(flags, flagsOf(cmd)...)
	}
	for name, text := range guides(t) {
		for _, match := range inBackquotes.FindAllStringSubmatch(text, -1) {
			for _, word := range strings.Fields(match[1]) {
				flag, _, _ := strings.Cut(strings.TrimRight(word, ".,;:)"), "=")
				if strings.HasPrefix(flag, "--") && !strings.Contains(match[1], "rsync") {
					assert.True(t, slices.Contains(flags, flag) || slices.Contains(others, flag), "%s: there is no flag %s", name, flag)
				}
			}
		}
		for _, variable := range regexp.MustCompile(`\bMAILU_HOOK_[A-Z_]*[A-Z]\b`).FindAllString(text, -1) {
			test := []string{"MAILU_HOOK_E2E", "MAILU_HOOK_SOAK", "MAILU_HOOK_BINARY"} // of the suite
			assert.True(t, slices.Contains(known, variable) || slices.Contains(test, variable), "%s: there is no variable %s", name, variable)
		}
	}
	for _, line := range strings.Split(guides(t)["examples/mailu-hook.conf"], "\n") {
		if key, _, found := strings.Cut(strings.TrimPrefix(line, "#"), "="); found && !strings.Contains(key, " ") {
			assert.True(t, slices.Contains(known, key) || acme.IsProviderVariable(key), "there is no setting %s", key)
		}
	}
}

func TestReferenceListsEveryFinding(t *testing.T) {
	_, table, found := strings.Cut(guides(t)["docs/reference.md"], "\n## Findings of status\n")
	require.True(t, found)
	listed := map[health.Code]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		code := health.Code(row[1])
		listed[code] = true
		assert.True(t, slices.Contains(health.Codes, code), "there is no finding %s", code)
	}
	for _, code := range health.Codes {
		assert.True(t, listed[code], "docs/reference.md does not list %s", code)
	}
}

func TestREADMEExplainsTheExitStatusesAsHelpDoes(t *testing.T) {
	text := guides(t)["README.md"]
	for _, line := range strings.Split(strings.TrimSpace(exitHelp), "\n") {
		status, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		assert.True(t, strings.Contains(text, "| "+status+" | "+meaning+" |\n"), line)
	}
}

func TestLinksBetweenTheGuidesLeadSomewhere(t *testing.T) {
	for name, text := range guides(t) {
		for _, match := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			assert.FileExists(t, filepath.Join("../..", filepath.Dir(name), match[1]), name)
		}
	}
}
