package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

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
	fmt.Fprintf(w, "%s.\n\nUsage:\n  %s\n", cmd.summary, usageLine(cmd))
	if cmd.name == "" {
		fmt.Fprint(w, "  mailu-hook COMMAND [flags]\n\nCommands:\n")
		for _, c := range commands()[1:] {
			fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
		}
	}
	if cmd.about != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(cmd.about))
	}
	if fs.HasFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", fs.FlagUsagesWrapped(79))
	}
	if fs.Lookup("config") != nil {
		fmt.Fprintf(w, `
Each flag has a variable of its own, --certs-dir for example
%sCERTS_DIR, in the environment or in %s.
A flag goes before the environment, that before the file, that before what
the front container says of itself. DOCKER_HOST and its companions work as
for the docker command.

Exit status:
%s`, prefix, defaultConfig, exitHelp)
	}
	if cmd.examples != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(cmd.examples, "\n"))
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
