package e2e

import (
	"crypto/ecdsa"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

const mailName = "mail.example.com"

func TestRenewThatIsNotDueFetchesOnlyRenewalInformationAndOnlyWhenItIsTime(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	leaf := i.issues()
	var first result
	assert.Equal(t, []string{"GET /dir", renewalInfo}, i.asked(func() { first = i.renew() }))
	require.Equal(t, 0, first.code)
	assert.Equal(t, "unchanged", first.doc.Outcome)
	drawn := first.renewal(t)
	assert.False(t, drawn.Due)
	assert.False(t, drawn.At.Before(drawn.Start) || drawn.At.After(drawn.End), "drawn outside of the window")

	i.remembered(mailName, func(record map[string]any) {
		record["renewal_info"].(map[string]any)["next"] = time.Now().Add(-time.Minute)
	})
	var second result
	assert.Equal(t, []string{"GET /dir", renewalInfo}, i.asked(func() { second = i.renew() }), "once its time has come, it asks again")
	assert.Equal(t, drawn.At, second.renewal(t).At, "the draw was repeated")

	i.acme.Close()
	third := i.renew()
	require.Equal(t, 0, third.code, "without any connection to the CA")
	assert.Equal(t, drawn, third.renewal(t))
	assert.Equal(t, leaf, i.live(mailName))
}

func TestRevokedCertificateIsReplacedAtOnceAndTheOrderSaysSo(t *testing.T) {
	rig.Need(t, rig.NeedCertbot)
	i := newStandalone(t, rig.CAOptions{}, mailName)
	first := i.issues()
	revoker := &rig.Certbot{Dir: filepath.Join(i.root, "certbot"), CA: i.acme}
	live := filepath.Join(i.state, "live", mailName)
	_, _, err := revoker.Run(t.Context(), "revoke", "--no-delete-after-revoke",
		"--cert-path", filepath.Join(live, "cert.pem"), "--key-path", filepath.Join(live, "privkey.pem"))
	require.NoError(t, err)

	r := i.renew("--min-interval", "1ms")
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	assert.Contains(t, r.renewal(t).Reason, "the CA suggests renewing")
	assert.NotEqual(t, first, i.live(mailName))
	assert.Contains(t, i.log(), "is a replacement of")
	assert.Contains(t, i.log(), "has been marked as replaced in the DB")

	again := i.renew()
	assert.Equal(t, "unchanged", again.doc.Outcome, "the new one is not due")
}

func TestTheCAsWindowDecidesAndImplausibleOnesAreIgnored(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	leaf := i.issues()
	third := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
	window := func(start, end time.Time) string {
		return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	}
	now := time.Now()
	for name, answer := range map[string]string{
		"empty":       window(now, now),
		"inverted":    window(now.Add(time.Hour), now.Add(-time.Hour)),
		"long before": window(now.Add(-10*24*time.Hour), now.Add(-9*24*time.Hour)),
		"too late":    window(leaf.NotAfter, leaf.NotAfter.Add(24*time.Hour)),
		"zero":        `{"suggestedWindow":{}}`,
		"no window":   `{}`,
		"no JSON":     `<html>It works!</html>`,
	} {
		i.setWindow(answer)
		r := i.renew()
		require.Equal(t, 0, r.code, name)
		assert.False(t, r.renewal(t).Due, name)
		assert.WithinDuration(t, third, r.renewal(t).At, time.Second, "%s: a third of its lifetime is left", name)
		assert.Zero(t, r.renewal(t).Start, name)
	}
	start, end := now.Add(48*time.Hour).Truncate(time.Second), now.Add(49*time.Hour).Truncate(time.Second)
	i.setWindow(window(start, end))
	r := i.renew().renewal(t)
	assert.True(t, r.Start.Equal(start) && r.End.Equal(end))
	assert.False(t, r.Due)

	i.setWindow(window(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	waits := i.renew()
	assert.Equal(t, 0, waits.code, "six hours lie between two that the CA asks for, which is not a failure")
	assert.Contains(t, strings.Join(waits.doc.Warnings, "\n"), "a certificate was issued at")
	assert.True(t, waits.renewal(t).Due)
	assert.NotEqual(t, leaf, i.issues("--min-interval", "1ms"))
}

// setWindow is what the CA answers about the live certificate when it is asked
// next, which is at once.
func (i *issuer) setWindow(answer string) {
	i.t.Helper()
	require.NoError(i.t, i.acme.SetRenewalInfo(i.t.Context(), pemOf(i.live(mailName)), answer))
	i.remembered(mailName, func(record map[string]any) { delete(record, "renewal_info") })
}

func TestShortLivedCertificateIsRenewedAtHalfOfItsLifetime(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{Profiles: map[string]time.Duration{"shortlived": 160 * time.Hour}}, mailName)
	leaf := i.issues("--profile", "shortlived")
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	require.InDelta(t, 160, lifetime.Hours(), 0.1)
	i.setWindow(`{}`) // no advice
	r := i.renew("--profile", "shortlived").renewal(t)
	assert.False(t, r.Due)
	assert.WithinDuration(t, leaf.NotBefore.Add(lifetime/2), r.At, 2*time.Second)
}

func TestExpiredCertificateIsRenewedWithoutAdvice(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{Profiles: map[string]time.Duration{"brief": 3 * time.Second}}, mailName)
	r := i.renew("--profile", "brief")
	require.Equal(t, 0, r.code)
	first := i.live(mailName)
	i.setWindow(`{}`)
	later := first.NotAfter.Add(time.Second) // a third of its lifetime after it was issued, too
	require.Eventually(t, func() bool { return time.Now().After(later) }, 10*time.Second, 50*time.Millisecond)
	second := i.renew("--profile", "brief")
	require.Equal(t, 0, second.code)
	assert.Equal(t, "it has expired", second.renewal(t).Reason)
	assert.NotEqual(t, first, i.live(mailName))
}

func TestChangedNamesKeyTypeOrProfileMakeItDue(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{Profiles: map[string]time.Duration{"tlsserver": 45 * 24 * time.Hour}}, mailName, "imap.example.com")
	i.issues("--profile", "default")
	for _, change := range []struct {
		because string
		args    []string
	}{
		{"the profile has changed", []string{"--profile", "tlsserver"}},
		{"the key type has changed", []string{"--profile", "tlsserver", "--key-type", "ec384"}},
		{"the names have changed", []string{"--profile", "tlsserver", "--key-type", "ec384", "--hostname", mailName}},
	} {
		r := i.renew(change.args...)
		require.Equal(t, 0, r.code, change.because)
		assert.Equal(t, "installed", r.doc.Outcome, change.because)
		assert.Contains(t, r.renewal(t).Reason, change.because)
		again := i.renew(change.args...)
		require.Equal(t, 0, again.code, change.because)
		assert.Equal(t, "unchanged", again.doc.Outcome, "%s: and then it is as wanted", change.because)
	}
	leaf := i.live(mailName)
	assert.Equal(t, []string{mailName}, leaf.DNSNames)
	assert.Equal(t, 384, leaf.PublicKey.(*ecdsa.PublicKey).Params().BitSize)
	assert.InDelta(t, 45*24, leaf.NotAfter.Sub(leaf.NotBefore).Hours(), 1)
}

func TestForceKeepsTheMinimumIntervalUnlessItIsShortened(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	first := i.issues()
	var r result
	requests := i.asked(func() { r = i.renew("--force") })
	assert.Equal(t, 6, r.code)
	assert.Zero(t, count(requests, newOrder))
	assert.Contains(t, r.doc.Error, "not yet time to try")
	assert.Contains(t, r.doc.Error, "the minimum interval is 36 hours")
	assert.Contains(t, r.doc.Hint, "--force --min-interval")
	assert.Equal(t, first, i.live(mailName))
	assert.NotEqual(t, first, i.issues("--force", "--min-interval", "1ms"))
}
