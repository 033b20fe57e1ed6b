package cli

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/flags.md anew")

const referenceHead = `# Flags

Every flag of every command, with the variable that sets it in the environment or in
` + "`" + defaultConfig + "`" + `; [reference.md](reference.md) has the rest. This page is made from
what the program declares, by ` + "`go test ./internal/cli -run FlagsPage -update`" + `.
`

func TestFlagsPageIsWhatTheCommandsDeclare(t *testing.T) {
	const name = "../../docs/flags.md"
	page := reference(commands())
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(page), 0o644))
	}
	written, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, page, string(written), "go test ./internal/cli -run FlagsPage -update")
}

// reference is docs/flags.md: each command with the flags of its own, and then those
// that several share.
func reference(all []command) string {
	var s strings.Builder
	s.WriteString(referenceHead)
	shared := sharedGroups(all)
	for _, cmd := range all {
		fs, _, _ := newFlags(cmd)
		fmt.Fprintf(&s, "\n## %s\n\n%s.\n", strings.TrimSuffix(usageLine(cmd), " [flags]"), cmd.summary)
		own, titles := fs.beside(shared)
		writeTable(&s, own, cmd.formats != nil)
		for i, title := range titles {
			titles[i] = fmt.Sprintf("[%s](#%s-flags)", title, strings.ToLower(title))
		}
		if titles != nil {
			fmt.Fprintf(&s, "\nAnd the flags of %s.\n", strings.Join(titles, ", "))
		}
	}
	for _, g := range shared {
		fmt.Fprintf(&s, "\n## %s flags\n", g.title)
		writeTable(&s, g.flags, true)
	}
	return s.String()
}

func writeTable(s *strings.Builder, flags []*pflag.Flag, variables bool) {
	if flags == nil {
		return
	}
	s.WriteString("\n| flag | variable | meaning |\n|---|---|---|\n")
	for _, f := range flags {
		argument, usage := described(f)
		twin := ""
		if variables {
			twin = "`" + variable(f.Name) + "`"
		}
		fmt.Fprintf(s, "| `%s` | %s | %s |\n", strings.TrimSpace("--"+f.Name+" "+argument), twin, strings.ReplaceAll(usage, "|", `\|`))
	}
}

// Where a command takes a shared flag in a form of its own, as status with ten seconds
// for thirty, that form stands beside the command.
func TestEachFlagIsToldInTheFormThatItsCommandTakes(t *testing.T) {
	shared := sharedGroups(commands())
	form := func(f *pflag.Flag) string {
		argument, usage := described(f)
		return argument + " " + usage
	}
	for _, cmd := range commands() {
		fs, _, _ := newFlags(cmd)
		own, titles := fs.beside(shared)
		told, takes := map[string]string{}, map[string]string{}
		for _, g := range shared {
			for _, f := range g.flags {
				if slices.Contains(titles, g.title) {
					told[f.Name] = form(f)
				}
			}
		}
		for _, f := range own {
			told[f.Name] = form(f)
		}
		fs.VisitAll(func(f *pflag.Flag) { takes[f.Name] = form(f) })
		assert.Equal(t, takes, told, cmd.name)
	}
}
