package cli

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
)

func versionCommand() command {
	return command{
		name:    "version",
		summary: "Print the version",
		options: func() action { return &versionOptions{} },
	}
}

type versionOptions struct{}

func (*versionOptions) add(*flags) {}

func (*versionOptions) run(context.Context, *invocation) (result, error) {
	return text("mailu-hook " + version() + "\n"), nil
}

// release is the version that the build set: a tag, or a revision of the source.
var release string

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(release, "unknown")
	}
	return fmt.Sprintf("%s (%s)", cmp.Or(release, info.Main.Version, "(devel)"), info.GoVersion)
}
