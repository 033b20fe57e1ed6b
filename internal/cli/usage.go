package cli

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// helpText explains one command in at most 80 columns.
func helpText(cmd command, all []command) string {
	var s strings.Builder
	fs, _, _ := newFlags(cmd)
	fmt.Fprintf(&s, "%s.\n\n%s", cmd.summary, usageText(cmd, all))
	if cmd.about != "" {
		fmt.Fprintf(&s, "\n%s\n", strings.TrimSpace(cmd.about))
	}
	for _, g := range fs.inGroups() {
		title := "Flags"
		if g.title != "" {
			title = g.title + " flags"
		}
		fmt.Fprintf(&s, "\n%s:\n", title)
		for _, f := range g.flags {
			writeFlag(&s, f)
		}
	}
	if cmd.formats != nil {
		fmt.Fprintf(&s, `
Each flag has a variable, for example %sCERTS_DIR for --certs-dir,
in the environment or in %s. A flag takes precedence over the
environment, that over the file, and that over what the front container says.
DOCKER_HOST, DOCKER_CONTEXT and the like work as for the docker command.

Exit status:
%s`, prefix, defaultConfig, cmp.Or(cmd.exits, exitHelp))
	}
	if cmd.examples != "" {
		fmt.Fprintf(&s, "\nExamples:\n%s\n", strings.TrimRight(cmd.examples, "\n"))
	}
	return s.String()
}

// asInstalled is a text to paste from that names the program where it lies. One with
// a name of its own, as a build has, is not installed.
func asInstalled(of, program string) text {
	if filepath.Base(program) == "mailu-hook" {
		of = strings.ReplaceAll(of, "/usr/local/bin/", filepath.Dir(program)+"/")
	}
	return text(of)
}

const helpWidth = 80

// writeFlag explains a flag below its name, so that long names cost no columns.
func writeFlag(s *strings.Builder, f *pflag.Flag) {
	argument, usage := described(f)
	fmt.Fprintf(s, "  --%s\n", strings.TrimSpace(f.Name+" "+argument))
	line := "       "
	for _, word := range strings.Fields(usage) {
		if len(line)+1+len(word) > helpWidth {
			fmt.Fprintln(s, line)
			line = "       "
		}
		line += " " + word
	}
	fmt.Fprintln(s, line)
}

// described is the name of a flag's argument, and what the flag does with its default.
func described(f *pflag.Flag) (argument, usage string) {
	argument, usage = explained(f)
	switch {
	case f.Value.Type() == "bool" && f.DefValue == "true":
		usage += " (default true)"
	case f.Value.Type() == "bool", f.DefValue == "", f.DefValue == "[]":
	case f.Value.Type() == "duration":
		usage += " (default " + shortest(f.DefValue) + ")"
	default:
		usage += " (default " + f.DefValue + ")"
	}
	return argument, usage
}

// explained is the name of a flag's argument and what the flag does. The name
// stands in backquotes before the rest.
func explained(f *pflag.Flag) (argument, usage string) {
	if name, rest, found := strings.Cut(strings.TrimPrefix(f.Usage, "`"), "` "); found {
		return name, rest
	}
	if f.Value.Type() == "duration" {
		return "TIME", f.Usage
	}
	return "", f.Usage
}

// usageText shows how a command is called; for the bare program, also which
// commands there are.
func usageText(cmd command, all []command) string {
	var s strings.Builder
	fmt.Fprintf(&s, "Usage:\n  %s\n", usageLine(cmd))
	if cmd.name != "" {
		return s.String()
	}
	s.WriteString("  mailu-hook COMMAND [flags]\n\nCommands (mailu-hook help COMMAND explains one):\n")
	for _, c := range all[1:] {
		fmt.Fprintf(&s, "  %-11s %s\n", c.name, c.summary)
	}
	return s.String()
}

func usageLine(cmd command) string {
	parts := []string{"mailu-hook"}
	for _, part := range []string{cmd.name, cmd.args} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if fs, _, _ := newFlags(cmd); fs.HasFlags() {
		parts = append(parts, "[flags]")
	}
	return strings.Join(parts, " ")
}

func named(all []command, name string) (command, bool) {
	n := slices.IndexFunc(all, func(c command) bool { return c.name == name && name != "" })
	if n < 0 {
		return command{}, false
	}
	return all[n], true
}

func commandNames(all []command) (names []string) {
	for _, cmd := range all {
		names = append(names, cmd.name)
	}
	return names
}

// shortest drops what a duration says of nothing: 72h0m0s is 72h.
func shortest(duration string) string {
	for _, rest := range []string{"m0s", "h0m"} {
		if short, found := strings.CutSuffix(duration, rest); found {
			duration = short + rest[:1]
		}
	}
	return duration
}
