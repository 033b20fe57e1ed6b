package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestRenewalIsExpectedWhenCertbotDoesIt(t *testing.T) {
	for life, left := range map[time.Duration]time.Duration{90 * day24: 30 * day24, 45 * day24: 15 * day24, 6 * day24: 3 * day24} {
		s := newScene(t)
		leaf := mint.Leaf{NotBefore: s.now.Truncate(time.Second), NotAfter: s.now.Truncate(time.Second).Add(life)}
		s.f.Lineages[0].Chain = s.issue(leaf)
		r, ok := s.f.Renewal(s.Schedule)
		require.True(t, ok)
		assert.Equal(t, leaf.NotAfter.Add(-left).UTC(), r.From.UTC(), "%s", life)
	}
	s := newScene(t)
	_, ok := s.f.Renewal(Schedule{})
	assert.False(t, ok, "nobody runs certbot")
	s.f.Planned = &Renewal{From: s.now, By: "mailu-hook renew"}
	r, ok := s.f.Renewal(Schedule{})
	assert.True(t, ok)
	assert.Equal(t, *s.f.Planned, r)
}

func TestThresholdsAreDaysOrFractions(t *testing.T) {
	for text, want := range map[string]Threshold{
		"20": {Left: 20 * day24}, "20d": {Left: 20 * day24}, "1.5d": {Left: 36 * time.Hour}, "1": {Left: day24}, "0.5d": {Left: 12 * time.Hour},
		"25%": {Fraction: 0.25}, "0.25": {Fraction: 0.25}, "12.5%": {Fraction: 0.125}, "0": {}, "100%": {Fraction: 1}, "1e9d": {Left: 36500 * day24},
	} {
		got, err := ParseThreshold(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		again, err := ParseThreshold(got.String())
		require.NoError(t, err)
		assert.Equal(t, got, again, "%s is written %s", text, got)
	}
	for _, text := range []string{"", "soon", "-1", "20h", "101%", "5%d", "NaN", "d", "%"} {
		_, err := ParseThreshold(text)
		assert.Error(t, err, text)
	}
}

func TestTimeLeftIsRoundedDown(t *testing.T) {
	for d, want := range map[time.Duration]string{
		59*day24 + 23*time.Hour: "59 days", 49 * time.Hour: "2 days", 47 * time.Hour: "47 h", 90 * time.Minute: "90 min", -5 * day24: "-5 days", -time.Minute: "-1 min",
	} {
		assert.Equal(t, want, Left(d))
	}
	assert.Equal(t, "66 %", Percent(0.669))
	assert.Equal(t, "0 %", Percent(-3))
}
