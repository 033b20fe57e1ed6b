package e2e

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// serveHTTP answers on port 80 of an address until the test ends.
func serveHTTP(t *testing.T, ip string, handler http.HandlerFunc) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "80"))
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

func TestFailedSelfCheckSparesTheCAAndCausesNoBackOff(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mislead    func(i *issuer, ip string)
		error, why string
	}{
		"connection refused": {func(*issuer, string) {}, "connection refused", "port 80 (443 with tls-alpn) of every address of the name"},
		"another web server": {func(i *issuer, ip string) { serveHTTP(i.t, ip, http.NotFound) }, "404 Not Found", "another web server answers"},
		"wrong content": {func(i *issuer, ip string) {
			serveHTTP(i.t, ip, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Welcome to \x1b[31mnginx!")) })
		}, `returns something else: "Welcome to`, "another web server answers"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStandalone(t, rig.CAOptions{}, mailName)
			elsewhere := loopback()
			tc.mislead(i, elsewhere)
			i.lead(elsewhere, mailName)
			r := i.renew()
			assert.Equal(t, 6, r.code)
			assert.Contains(t, r.doc.Error, mailName+": self-check")
			assert.Contains(t, r.doc.Error, tc.error)
			assert.Contains(t, r.doc.Hint, tc.why)
			assert.Contains(t, r.doc.Hint, "--no-self-check")
			i.sparedTheCA()
		})
	}
}

// sparedTheCA holds a failed renewal to having cost nothing at the CA: once the
// names lead here, the next run issues at once, and from the same order.
func (i *issuer) sparedTheCA() {
	i.t.Helper()
	i.neverLetTheCALook()
	i.lead(i.address, mailName)
	requests := i.asked(func() { i.issues() })
	assert.Zero(i.t, count(requests, newOrder), "it takes up the order of the run before")
	i.clean(mailName)
}

func TestNameThatDoesNotExistIsFoundBeforeTheCAIsAsked(t *testing.T) {
	rig.Need(t, rig.NeedDNS)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{Records: []string{"imap 1 IN A 127.0.0.1"}})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	i := newStandalone(t, rig.CAOptions{}, mailName)
	began := time.Now()
	r := i.renew("--resolver", zone.Addr)
	assert.Less(t, time.Since(began), 10*time.Second, "a name that is missing is not waited for")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "self-check: lookup mail.example.com: no such host")
	assert.Contains(t, r.doc.Hint, "check its A and AAAA records")
	i.sparedTheCA()
}

func TestWithoutASelfCheckTheCAsVerdictIsShown(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		mislead           func(i *issuer, ip string)
		kind, detail, why string
	}{
		"connection refused": {func(*issuer, string) {}, "connection", "connection refused", "the CA could not connect"},
		"another web server": {func(i *issuer, ip string) { serveHTTP(i.t, ip, http.NotFound) }, "unauthorized", "returned 404", "the CA connected but did not get the challenge response"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStandalone(t, rig.CAOptions{}, mailName)
			elsewhere := loopback()
			tc.mislead(i, elsewhere)
			i.lead(elsewhere, mailName)
			r := i.renew("--no-self-check")
			assert.Equal(t, 6, r.code)
			assert.Contains(t, r.doc.Error, "the CA answered "+tc.kind+" for "+mailName)
			assert.Contains(t, r.doc.Error, tc.detail)
			assert.Contains(t, r.doc.Hint, tc.why)
			assert.Equal(t, 1, r.renewal(t).Failures)

			i.lead(i.address, mailName)
			var waits result
			assert.Empty(t, i.asked(func() { waits = i.renew() }), "a failure at the CA makes the next run wait")
			assert.Equal(t, 6, waits.code)
			assert.Contains(t, waits.doc.Error, "attempt 1 failed")
			assert.Contains(t, waits.doc.Hint, "renew --now")
			i.issues("--now")
			i.clean(mailName)
		})
	}
}

func TestNamesThatFailValidationAreDroppedIfAllowed(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName, "imap.example.com", "smtp.example.com")
	elsewhere := loopback()
	serveHTTP(t, elsewhere, http.NotFound)
	i.lead(elsewhere, "imap.example.com")
	all := i.renew("--no-self-check")
	assert.Equal(t, 6, all.code)
	assert.Contains(t, all.doc.Error, "for imap.example.com")

	r := i.renew("--no-self-check", "--now", "--must-cover=false")
	require.Equal(t, 0, r.code)
	leaf := i.live(mailName)
	assert.ElementsMatch(t, []string{mailName, "smtp.example.com"}, leaf.DNSNames)
	assert.Contains(t, r.stdout, "does not cover imap.example.com")

	var again result
	requests := i.asked(func() { again = i.renew("--no-self-check", "--must-cover=false") })
	require.Equal(t, 0, again.code)
	assert.Equal(t, "unchanged", again.doc.Outcome)
	assert.Contains(t, strings.Join(again.doc.Warnings, "\n"), "it does not cover imap.example.com yet: waiting until")
	assert.Zero(t, count(requests, newOrder), "not with every run")
	assert.Equal(t, leaf, i.live(mailName))

	still := i.renew("--no-self-check", "--must-cover=false", "--now")
	require.Equal(t, 0, still.code)
	assert.Equal(t, leaf, i.live(mailName), "another certificate would lack the same name")
	assert.Equal(t, 6, i.renew("--no-self-check").code, "a run that wants all names tries at once")
	i.lead(i.address, "imap.example.com")
	leaf = i.issues("--now")
	assert.Len(t, leaf.DNSNames, 3)

	i.lead(elsewhere, mailName)
	main := i.renew("--no-self-check", "--force", "--min-interval", "1ms", "--must-cover=false")
	assert.Equal(t, 6, main.code, "never without the main one")
	assert.Equal(t, leaf, i.live(mailName))
}
