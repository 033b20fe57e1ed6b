package cli

import (
	"context"
	"fmt"
	"runtime/debug"
)

func versionCommand() command {
	return command{
		name:    "version",
		summary: "Print the version",
		run: func(_ context.Context, c *call) error {
			_, err := fmt.Fprintln(c.stdout, "mailu-hook", version())
			return err
		},
	}
}

// version is what the build recorded: a tag, or a revision of the source.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := firstNonEmpty(info.Main.Version, "(devel)")
	return fmt.Sprintf("%s (%s)", v, info.GoVersion)
}
