package cli

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// release is the version that the build set: a tag, or a revision of the source.
var release string

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(release, "unknown")
	}
	return fmt.Sprintf("%s (%s)", cmp.Or(release, info.Main.Version, "(devel)"), info.GoVersion)
}
