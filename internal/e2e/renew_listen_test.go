package e2e

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestTLSALPNIsAnsweredByOurOwnServer(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName, "imap.example.com")
	i.issues("--challenge", "tls-alpn", "--listen", i.address+":443")
	assert.Equal(t, 2, strings.Count(i.log(), "set VALID by completed challenge"))
	assert.NotContains(t, i.log(), "Attempting to validate w/ HTTP")
	assert.ElementsMatch(t, []string{mailName, "imap.example.com"}, i.live(mailName).DNSNames)
}

func TestTLSALPNAnsweredByAnotherServerIsFoundBeforeTheCAIsAsked(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	elsewhere := loopback()
	i.lead(elsewhere, mailName)
	args := []string{"--challenge", "tls-alpn", "--listen", i.address + ":443"}
	refused := i.renew(args...)
	assert.Equal(t, 6, refused.code)
	assert.Contains(t, refused.doc.Error, "connection refused")
	assert.Contains(t, refused.doc.Hint, "443 with tls-alpn")

	pair := i.issue(mint.Leaf{})
	cert, err := tls.X509KeyPair(pair.Chain, pair.KeyPEM)
	require.NoError(t, err)
	server, err := tls.Listen("tcp", net.JoinHostPort(elsewhere, "443"), &tls.Config{Certificates: []tls.Certificate{cert}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = http.Serve(server, http.NotFoundHandler()) }()
	other := i.renew(args...)
	assert.Equal(t, 6, other.code)
	assert.Contains(t, other.doc.Error, "self-check")
	i.neverLetTheCALook()
	i.lead(i.address, mailName)
	i.issues(args...)
}

func TestStandaloneSaysWhatMayUseThePort(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	i.issues()
	assert.Contains(t, i.log(), "Attempting to validate w/ HTTP: http://mail.example.com:80/")
	taken, err := net.Listen("tcp", net.JoinHostPort(i.address, "80"))
	require.NoError(t, err)
	again := []string{"--force", "--min-interval", "1ms"}
	r := i.renew(again...)
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "address already in use")
	assert.Contains(t, r.doc.Hint, "another server, perhaps the front, is using that port")
	require.NoError(t, taken.Close())
	i.issues(append(again, "--now")...)
}

func TestWebrootOfAnotherServerAnswersAndIsLeftUnchanged(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName, "imap.example.com")
	shown := filepath.Join(i.root, "www")
	require.NoError(t, os.Mkdir(shown, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(shown, "index.html"), []byte("hello"), 0o644))
	files := http.FileServer(http.Dir(shown))
	serveHTTP(t, i.address, files.ServeHTTP)
	before := listed(t, shown)
	args := []string{"--challenge", "webroot", "--webroot", shown}
	i.issues(args...)
	assert.Equal(t, before, listed(t, shown), "with no directory of ours")

	theirs := filepath.Join(shown, ".well-known", "acme-challenge")
	require.NoError(t, os.MkdirAll(theirs, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(theirs, "theirs"), []byte("another client's"), 0o644))
	before = listed(t, shown)
	i.issues(append(args, "--force", "--min-interval", "1ms")...)
	assert.Equal(t, before, listed(t, shown))

	none := i.renew("--challenge", "webroot", "--webroot", filepath.Join(shown, "none"), "--force", "--min-interval", "1ms")
	assert.Equal(t, 2, none.code)
	assert.Contains(t, none.doc.Error, "--webroot DIR, the directory that the web server serves")
}

// listed are the names below a directory.
func listed(t *testing.T, dir string) (names []string) {
	t.Helper()
	for name := range snapshot(t, dir) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
