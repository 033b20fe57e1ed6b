package survey

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"mailu-hook/internal/health"
)

func TestSetupIsHowTheProgramWasInstalled(t *testing.T) {
	units := []string{"mailu-hook-sync.timer", "mailu-hook-renew.timer"}
	for name, c := range map[string]struct {
		files   map[string]string
		program string
		want    health.Setup
	}{
		"a package": {map[string]string{systemd: "", "/usr/share/doc/mailu-hook/examples/cron/mailu-hook": "", "/usr/lib/systemd/system/mailu-hook-sync.timer": "", "/usr/lib/systemd/system/mailu-hook-renew.timer": ""},
			"/usr/bin/mailu-hook", health.Setup{Examples: "/usr/share/doc/mailu-hook/examples", Systemd: true, Units: units}},
		"a binary by hand":  {map[string]string{systemd: ""}, "/usr/local/bin/mailu-hook", health.Setup{Examples: "examples", Systemd: true}},
		"its units copied":  {map[string]string{systemd: "", "/etc/systemd/system/mailu-hook-sync.timer": ""}, "/opt/mailu-hook", health.Setup{Examples: "examples", Systemd: true, Units: units[:1]}},
		"both, the one run": {map[string]string{"/usr/share/doc/mailu-hook/examples/cron/mailu-hook": "", "/etc/cron.d/certbot": ""}, "/usr/local/bin/mailu-hook", health.Setup{Examples: "examples", CronD: true}},
		"without systemd":   {nil, "/usr/bin/mailu-hook", health.Setup{Examples: "examples"}},
	} {
		c.want.Program = c.program
		assert.Equal(t, c.want, hostWith(t, c.files).Setup(c.program), name)
	}
}
