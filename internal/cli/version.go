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

// release is the version that the build set: a tag, or a revision of the source.
var release string

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return firstNonEmpty(release, "unknown")
	}
	return fmt.Sprintf("%s (%s)", firstNonEmpty(release, info.Main.Version, "(devel)"), info.GoVersion)
}
