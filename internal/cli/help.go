package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"mailu-hook/internal/say"
)

func helpCommand() command {
	return command{
		name:    "help",
		args:    "[COMMAND]",
		summary: "Explain the program or one of its commands",
		run: func(_ context.Context, c *call) error {
			if len(c.args) == 0 {
				writeHelp(c.stdout, commands()[0])
				return nil
			}
			for _, cmd := range commands() {
				if cmd.name == c.args[0] {
					writeHelp(c.stdout, cmd)
					return nil
				}
			}
			return usageError("there is no command %s", say.Foreign(c.args[0]))
		},
	}
}

// writeHelp explains one command in at most 80 columns.
func writeHelp(w io.Writer, cmd command) {
	fs := newFlagSet(cmd)
	fmt.Fprintf(w, "%s.\n\n", cmd.summary)
	writeUsage(w, cmd)
	if cmd.about != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(cmd.about))
	}
	if fs.HasFlags() {
		fmt.Fprint(w, "\nFlags:\n")
		fs.VisitAll(func(f *pflag.Flag) { writeFlag(w, f) })
	}
	if fs.Lookup("config") != nil {
		fmt.Fprintf(w, `
Each flag has a variable of its own, --certs-dir for example
%sCERTS_DIR, in the environment or in %s.
A flag goes before the environment, that before the file, that before what
the front container says of itself. DOCKER_HOST and its companions work as
for the docker command.

Exit status:
%s`, prefix, defaultConfig, firstNonEmpty(cmd.exits, exitHelp))
	}
	if cmd.examples != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.examples, "\n"))
	}
}

const helpWidth = 80

// writeFlag explains a flag below its name, so that long names cost no columns.
func writeFlag(w io.Writer, f *pflag.Flag) {
	argument, usage := pflag.UnquoteUsage(f)
	if f.Value.Type() == "bool" {
		argument = ""
	} else if f.DefValue != "" && f.DefValue != "[]" {
		usage += " (default " + f.DefValue + ")"
	}
	fmt.Fprintf(w, "  --%s\n", strings.TrimSpace(f.Name+" "+argument))
	line := "       "
	for _, word := range strings.Fields(usage) {
		if len(line)+1+len(word) > helpWidth {
			fmt.Fprintln(w, line)
			line = "       "
		}
		line += " " + word
	}
	fmt.Fprintln(w, line)
}

// writeUsage shows how a command is called; for the bare program, also which
// commands there are.
func writeUsage(w io.Writer, cmd command) {
	fmt.Fprintf(w, "Usage:\n  %s\n", usageLine(cmd))
	if cmd.name != "" {
		return
	}
	fmt.Fprint(w, "  mailu-hook COMMAND [flags]\n\nCommands:\n")
	for _, c := range commands()[1:] {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
	}
}

func usageLine(cmd command) string {
	parts := []string{"mailu-hook"}
	for _, part := range []string{cmd.name, cmd.args} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if newFlagSet(cmd).HasFlags() {
		parts = append(parts, "[flags]")
	}
	return strings.Join(parts, " ")
}
