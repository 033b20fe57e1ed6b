package e2e

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// startEmpty starts a front without any certificate.
func startEmpty(t *testing.T, ca rig.CAOptions, o rig.FrontOptions) *issuer {
	t.Helper()
	i := newIssuer(t, ca)
	i.startPublished(o)
	require.Eventually(t, func() bool { return i.listens(25) }, 30*time.Second, 100*time.Millisecond)
	return i
}

// The CA fails first, so that the placeholder is all there is for a while.
func TestPlaceholderIsMarkedAndReplacedByTheFirstRealCertificate(t *testing.T) {
	i := startEmpty(t, rig.CAOptions{}, rig.FrontOptions{})
	elsewhere := loopback()
	i.lead(elsewhere, mailName)
	failed := i.renew("--no-self-check")
	assert.Equal(t, 6, failed.code)
	i.nothingLeft()
	leaves, err := i.front.Leaves(t.Context(), 443, 25)
	require.NoError(t, err)
	placeholder := leaves[443]
	assert.Equal(t, "mailu-hook placeholder", placeholder.Subject.CommonName)
	assert.Equal(t, placeholder.Subject, placeholder.Issuer)
	assert.Equal(t, []string{mailName}, placeholder.DNSNames)
	assert.LessOrEqual(t, placeholder.NotAfter.Sub(placeholder.NotBefore), 8*24*time.Hour)
	assert.Equal(t, placeholder, leaves[25])
	i.healthyAndReloadable()
	assert.Equal(t, "unchanged", i.sync().doc.Outcome, "better than nothing")
	assert.Equal(t, 6, i.renew("--no-self-check", "--now").code, "the placeholder is no reason to be content")

	i.lead(i.address, mailName)
	i.issues("--now")
	i.servesLineage(mailName)
	i.healthyAndReloadable()
	i.nothingLeft()
	i.neverOffers(placeholder)
}

// neverOffers holds rollback to passing over a placeholder, also one that is named.
func (i *issuer) neverOffers(placeholder *x509.Certificate) {
	i.t.Helper()
	none := i.run(nil, "rollback", "--output", "json")
	assert.Equal(i.t, 2, none.code)
	assert.Contains(i.t, none.doc.Error, "there is no certificate from before the live one")
	var list []struct{ Generation, SHA256 string }
	require.NoError(i.t, json.Unmarshal([]byte(i.run([]string{"MAILU_HOOK_OUTPUT=json"}, "rollback", "--list").stdout), &list))
	want := sha256OfPEM(i.t, pemOf(placeholder))
	for _, gen := range list {
		if gen.SHA256 == want {
			assert.Equal(i.t, 3, i.run(nil, "rollback", gen.Generation).code)
		}
	}
	i.servesLineage(mailName)
}

func TestPlaceholderIsNeverInstalledOverARealCertificate(t *testing.T) {
	i, old := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	i.lead(loopback(), mailName)
	tree := snapshot(t, i.certs())
	assert.Equal(t, 6, i.renew("--no-self-check").code)
	assert.Equal(t, tree, snapshot(t, i.certs()))
	i.serves(old)
	i.nothingLeft()
}

func TestFrontWithPlainFilesIsRenewedWhileEveryPortKeepsAnswering(t *testing.T) {
	i, old := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{Env: map[string]string{"HOSTNAMES": mailName + ",imap.example.com"}})
	stop := i.keepAsking()
	i.issues()
	i.issues("--force", "--min-interval", "1ms")
	asked := stop()
	require.Len(t, asked, 7)
	for port, n := range asked {
		assert.Greater(t, n, 4, "port %d was not asked often enough to tell", port)
	}
	i.servesLineage(mailName)
	assert.ElementsMatch(t, []string{mailName, "imap.example.com"}, i.live(mailName).DNSNames)
	i.healthyAndReloadable()
	i.nothingLeft()
	i.clean(mailName)
	require.Equal(t, 0, i.run(nil, "rollback").code)
	require.Equal(t, 0, i.run(nil, "rollback", "--allow-untrusted").code, "what was there before is kept too")
	i.serves(old)
}

// keepAsking asks every port of the front over and over, each on its own. None may
// ever refuse a connection. Each reload of dovecot, of which the front's watcher
// makes several, cuts off who has just connected; who comes again is to be served
// within two seconds. stop ends that, and reports how often each port answered.
func (i *issuer) keepAsking() (stop func() map[int]int) {
	i.t.Helper()
	ip, err := i.front.IP(i.t.Context())
	require.NoError(i.t, err)
	done := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	asked := map[int]int{}
	keep := func(port int, ask func() error) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(100 * time.Millisecond): // leave the processor to the others
				}
				conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip, strconv.Itoa(port)), time.Second)
				if !assert.NoError(i.t, err, "port %d stopped listening", port) {
					return
				}
				conn.Close()
				err = ask()
				for until := time.Now().Add(2 * time.Second); err != nil && time.Now().Before(until); {
					err = ask()
				}
				assert.NoError(i.t, err, "port %d", port)
				mu.Lock()
				asked[port]++
				mu.Unlock()
			}
		})
	}
	for _, port := range i.front.TLSPorts() {
		keep(port, func() error { _, err := rig.Leaf(i.t.Context(), ip, port, mailName); return err })
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	keep(80, func() error {
		response, err := client.Get("http://" + net.JoinHostPort(ip, "80") + "/")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	stop = sync.OnceValue(func() map[int]int { close(done); wg.Wait(); return asked })
	i.t.Cleanup(func() { stop() }) // also if the test ends before it asks for that
	return stop
}

func TestFrontOfFlavorMailAnswersOnPort80(t *testing.T) {
	i := startEmpty(t, rig.CAOptions{}, rig.FrontOptions{Env: map[string]string{"TLS_FLAVOR": "mail"}})
	i.issues()
	i.servesLineage(mailName)
	i.healthyAndReloadable()
	i.nothingLeft()
}

// The image declares /overrides a volume, so the engine makes one where Compose mounts
// none. An image may declare any directory that, so it is nothing to write into.
func TestVolumeThatOnlyTheImageAskedForAnswersNoChallenge(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	i.address = loopback()
	i.lead(i.address, mailName)
	old := i.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)})
	i.writePlain(old, "cert.pem", "key.pem")
	front, err := rig.StartFront(t.Context(), rig.FrontOptions{ExtraArgs: []string{
		"-v", i.certs() + ":/certs", "-p", i.address + ":80:80", "-p", i.address + ":443:443",
	}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, front.Remove()) })
	i.front = front
	i.env = append(i.env, "MAILU_HOOK_PROJECT="+front.Project)
	i.waitServing()
	r := i.renew()
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "nothing is mounted at /overrides in "+front.Name)
	assert.Contains(t, r.doc.Hint, "mount ROOT/overrides/nginx there")
	i.neverLetTheCALook()
	i.serves(old)
	left, _, err := front.Exec(t.Context(), "ls", "-A", "/overrides")
	require.NoError(t, err)
	assert.Empty(t, left)
}

const theirLocation = "location ^~ /.well-known/acme-challenge/ {\n  return 404;\n}\n"

func TestOverrideThatAnswersChallengesItselfIsNoObstacleAndLeftAlone(t *testing.T) {
	i, _ := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	dir := filepath.Join(i.root, "overrides", "nginx")
	theirs := filepath.Join(dir, "theirs.conf")
	require.NoError(t, os.WriteFile(theirs, []byte(theirLocation), 0o644))
	i.execOK("nginx", "-s", "reload")
	before := snapshot(t, theirs)
	i.issues()
	i.servesLineage(mailName)
	assert.Equal(t, []string{dir, theirs}, listed(t, dir))
	assert.Equal(t, before, snapshot(t, theirs))
	i.healthyAndReloadable()
}

func TestOverrideThatNginxRefusesIsNamedAndLeftAlone(t *testing.T) {
	i, old := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	dir := filepath.Join(i.root, "overrides", "nginx")
	theirs := filepath.Join(dir, "theirs.conf")
	require.NoError(t, os.WriteFile(theirs, []byte(theirLocation+theirLocation), 0o644))
	overrides, certs := snapshot(t, theirs), snapshot(t, i.certs())
	r := i.renew()
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, `duplicate location`)
	assert.Contains(t, r.doc.Hint, "usually another file in ROOT/overrides")
	assert.Equal(t, []string{dir, theirs}, listed(t, dir))
	assert.Equal(t, overrides, snapshot(t, theirs))
	assert.Equal(t, certs, snapshot(t, i.certs()))
	i.neverLetTheCALook()
	i.serves(old)

	require.NoError(t, os.Remove(theirs))
	i.healthyAndReloadable()
	i.issues("--now")
	i.servesLineage(mailName)
	i.nothingLeft()
}
