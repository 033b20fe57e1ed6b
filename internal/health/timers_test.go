package health

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// periods are how far apart two runs can be by an OnCalendar expression.
var periods = map[string]time.Duration{"*:0/15": 15 * time.Minute, "hourly": time.Hour}

func TestTimersFireWellWithinTheirSlack(t *testing.T) {
	timers, err := filepath.Glob("../../examples/systemd/*.timer")
	require.NoError(t, err)
	require.NotEmpty(t, timers)
	for _, name := range timers {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		when := regexp.MustCompile(`(?m)^OnCalendar=(.*)$`).FindSubmatch(data)
		require.NotNil(t, when, name)
		period, known := periods[string(when[1])]
		require.True(t, known, "%s: add %q to periods", name, when[1])
		slack := timerSlack
		if filepath.Base(name) == "mailu-hook-sync.timer" {
			slack = syncSlack
		}
		assert.GreaterOrEqual(t, slack, 4*period, "%s: a timer that missed a run or two is not idle", name)
	}
}
