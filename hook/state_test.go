package hook

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/source"
)

// remembered is what state.json in dir says, read without the code under test.
func remembered(t *testing.T, dir string) State {
	t.Helper()
	data, err := os.ReadFile(ledgerOf(dir))
	require.NoError(t, err)
	var state State
	require.NoError(t, json.Unmarshal(data, &state))
	return state
}

func TestStateIsReadAsItWasRecorded(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().UTC()
	want := State{
		Version:  stateVersion,
		Front:    mailu.Facts{Container: "mailu-front-1", Hostnames: []string{"mail.example.com"}, CertName: "cert.pem", KeyName: "key.pem"},
		Lineages: []Seen{{Lineage: "/le/live/mail", Leaf: "00ff", At: now}},
		Last:     &Last{At: now, Outcome: OutcomePending, Lineage: "/le/live/mail", Error: "no port answered"},
		Pending:  &Pending{Since: now, Lineage: "/le/live/mail", Leaf: "00ff", Reason: "no port answered"},
	}
	require.NoError(t, lockedStore(t, dir).Record(want))
	want.CertsDir = dir
	got, err := openStore(t, dir).State()
	require.NoError(t, err)
	assert.Equal(t, want, got)
	info, err := os.Stat(ledgerOf(dir))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestNothingRememberedIsNotAnError(t *testing.T) {
	dir := t.TempDir()
	state, err := openStore(t, dir).State()
	require.NoError(t, err)
	assert.Equal(t, State{Version: stateVersion}, state)
	state, err = lockedStore(t, dir).State()
	require.NoError(t, err)
	assert.Equal(t, State{Version: stateVersion}, state)
}

func TestDamagedStateIsSaidAndCostsOnlyTheMemory(t *testing.T) {
	for name, c := range map[string]struct{ content, fact string }{
		"empty":       {"", "damaged"},
		"cut short":   {`{"version": 1, "lineages": [{"lin`, "damaged"},
		"not JSON":    {"\x00\x00\x00\x00", "damaged"},
		"other shape": {`{"version": 1, "lineages": "all"}`, "damaged"},
		"newer":       {`{"version": 99}`, "newer mailu-hook"},
		"newer shape": {`{"version": 99, "lineages": "all"}`, "newer mailu-hook"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, b := t.TempDir(), aged(t, time.Hour)
			install(t, dir, aged(t, 2*time.Hour))
			writeFile(t, ledgerOf(dir), []byte(c.content), 0o600)
			state, err := openStore(t, dir).State()
			assert.ErrorContains(t, err, c.fact)
			assert.ErrorContains(t, err, ledgerOf(dir))
			assert.Equal(t, State{Version: stateVersion}, state)

			r := install(t, dir, b)
			require.Len(t, r.Warnings, 1)
			assert.Contains(t, r.Warnings[0], c.fact)
			assert.Equal(t, OutcomeInstalled, remembered(t, dir).Last.Outcome)
		})
	}
}

func TestLineagesAreRememberedOnceAndTheLastSeenIsLast(t *testing.T) {
	var state State
	now := time.Now()
	state.see(source.At("/le/live/a"), "01", now)
	state.see(source.At("/le/live/b"), "02", now)
	state.see(source.At("/le/live/a"), "03", now)
	state.see(source.Files("a", "b"), "04", now) // two files named one by one
	assert.Equal(t, []Seen{{Lineage: "/le/live/b", Leaf: "02", At: now}, {Lineage: "/le/live/a", Leaf: "03", At: now}}, state.Lineages)
}

func TestSourceIsRememberedWithTheFileOfItsPassword(t *testing.T) {
	src := source.At("/srv/mail.p12")
	src.Password = "/etc/mailu-hook/password"
	var state State
	state.see(src, "01", time.Now())
	assert.Equal(t, src, state.Lineages[0].Source())
}

func TestAttemptsForTheSameLeafAddUpAndWaitLonger(t *testing.T) {
	var state State
	start := time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)
	for n, wait := range []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour} {
		at := start.Add(time.Duration(n) * time.Hour)
		state.begin("/le/live/a", "01", at)
		state.fail("no", at)
		assert.Equal(t, &Pending{Since: start, Lineage: "/le/live/a", Leaf: "01", Reason: "no", Attempts: n + 1, Next: at.Add(wait)}, state.Pending)
	}
	state.begin("/le/live/a", "02", start)
	assert.Zero(t, state.Pending.Attempts, "another leaf starts anew")
}

func TestATimeBeyondTheLongestWaitIsNotWaitedFor(t *testing.T) {
	now := time.Now()
	var none *Pending
	assert.False(t, none.Waits(now))
	assert.True(t, (&Pending{Next: now.Add(longestWait)}).Waits(now))
	assert.False(t, (&Pending{Next: now}).Waits(now))
	assert.False(t, (&Pending{Next: now.Add(10 * 365 * 24 * time.Hour)}).Waits(now), "the clock was wrong once")
}

// A front that has been taken over can write whatever it likes into its certs
// directory: nothing there makes root read a lineage or believe a name.
func TestWhatTheFrontWritesIsNotBelieved(t *testing.T) {
	dir, certbot := t.TempDir(), t.TempDir()
	install(t, dir, aged(t, time.Hour))
	require.NoError(t, os.Remove(ledgerOf(dir)))
	mine := filepath.Join(certbot, "live", "mail.example.com")
	writeFile(t, filepath.Join(dir, homeName, legacyState), []byte(`{"version": 1, "front": {"hostnames": ["evil.example.com"]},
		"lineages": [{"lineage": "/root/secret"}, {"lineage": "`+mine+`"}, {"lineage": "`+mine+`/../../../etc"}],
		"pending": {"leaf": "00ff"}, "held": "not a fingerprint"}`), 0o600)
	place := placeOf(dir)
	place.CertbotDir = certbot
	s, err := OpenStore(place)
	require.NoError(t, err)
	defer s.Close()
	state, err := s.State()
	require.NoError(t, err)
	assert.Equal(t, State{Version: stateVersion, Lineages: []Seen{{Lineage: mine}}}, state)
}

func TestALedgerThatOthersCanWriteToIsRefused(t *testing.T) {
	dir := t.TempDir()
	install(t, dir, aged(t, time.Hour))
	require.NoError(t, os.Chmod(filepath.Join(stateOf(dir), ledgerDir), 0o777))
	_, err := OpenStore(placeOf(dir))
	assert.ErrorContains(t, err, "written to by others than root")
}
