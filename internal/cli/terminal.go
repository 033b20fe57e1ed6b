package cli

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"mailu-hook/internal/report"
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// screenOf is what text on w is written for: the width of its terminal, and
// color unless the user wants none (no-color.org).
func screenOf(w io.Writer, env Environ) report.Screen {
	if !isTerminal(w) {
		return report.Screen{}
	}
	on := report.Screen{Color: env("NO_COLOR") == "" && env("TERM") != "dumb"}
	if size, err := unix.IoctlGetWinsize(int(w.(*os.File).Fd()), unix.TIOCGWINSZ); err == nil {
		on.Width = int(size.Col)
	}
	return on
}
