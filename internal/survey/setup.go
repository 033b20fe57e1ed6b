package survey

import (
	"os"
	"path/filepath"

	"mailu-hook/internal/health"
)

// Program is where this program lies; "mailu-hook" if the kernel does not tell.
func Program() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "mailu-hook"
}

// Setup finds out how the program, which lies there, was installed. Packages put its
// examples below the prefix that it lies in; else they are those of its source.
func (h Host) Setup(program string) health.Setup {
	s := health.Setup{Program: program, Examples: filepath.Join(program, "../../share/doc/mailu-hook/examples"), Systemd: h.systemd(), CronD: h.exists("/etc/cron.d")}
	if !h.exists(s.Examples) {
		s.Examples = "examples"
	}
	for _, unit := range []string{"mailu-hook-sync.timer", "mailu-hook-renew.timer"} {
		if h.known(unit) {
			s.Units = append(s.Units, unit)
		}
	}
	return s
}
