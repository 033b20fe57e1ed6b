package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// spoiled is an issuer that reaches its CA through a relay. Its names lead to an
// address of this host, where the binary itself answers; the front is stopped, as
// it were, so that a run takes a second and ends well once the pair is in place.
type spoiled struct {
	*issuer
	relay *rig.Relay
	ip    string
	runs  int // of afresh
}

var spoiledNames = []string{"mail.example.com", "imap.example.com"}

func newSpoiled(t *testing.T, o rig.CAOptions) *spoiled {
	t.Helper()
	o.Env = append([]string{"PEBBLE_AUTHZREUSE=0"}, o.Env...)
	s := &spoiled{issuer: newIssuer(t, o), ip: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(200), rand.IntN(250), 1+rand.IntN(250))}
	s.throughRelay()
	s.lead(s.ip, spoiledNames...)
	s.env = append(s.env, "DOCKER_HOST=unix://"+idleEngine(t), "MAILU_HOOK_HOSTNAME="+strings.Join(spoiledNames, ","),
		"MAILU_HOOK_CHALLENGE=standalone", "MAILU_HOOK_LISTEN="+s.ip+":80")
	s.afresh()
	return s
}

// throughRelay makes the binary reach its CA through a relay.
func (s *spoiled) throughRelay() {
	s.t.Helper()
	relay, err := rig.StartRelay(s.acme)
	require.NoError(s.t, err)
	s.t.Cleanup(relay.Close)
	s.relay = relay
	s.env = append(s.env, "MAILU_HOOK_SERVER="+relay.DirectoryURL)
}

// afresh begins on directories in which nothing is.
func (s *spoiled) afresh() {
	s.t.Helper()
	s.runs++
	s.root = filepath.Join(s.t.TempDir(), fmt.Sprint("host", s.runs))
	s.state = filepath.Join(s.root, "state")
	require.NoError(s.t, os.MkdirAll(s.certs(), 0o755))
	s.env = append(s.env, "MAILU_HOOK_STATE_DIR="+s.state, "MAILU_HOOK_CERTS_DIR="+s.certs()) // the last one counts
}

// obtained begins afresh, with a first certificate.
func (s *spoiled) obtained() {
	s.t.Helper()
	s.afresh()
	s.relay.Meddle(nil)
	require.Equal(s.t, 0, s.renew().code)
}

func (s *spoiled) issued() int {
	s.t.Helper()
	n, err := s.acme.Issued()
	require.NoError(s.t, err)
	return n
}

// attempt is what JSON says of a renewal, and of when the next is made.
type attempt struct {
	Next    time.Time `json:"next_attempt"`
	Reason  string
	Renewal renewal
}

func renewalOf(t *testing.T, r result) (doc attempt) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &doc))
	return doc
}

// failed holds a failure to what every failure owes.
func (s *spoiled) failed(r result, code int, texts ...string) {
	s.t.Helper()
	assert.Equal(s.t, code, r.code)
	for _, text := range append(texts, "mailu-hook: error: ", "mailu-hook: hint: ") {
		assert.Contains(s.t, r.stderr, text)
	}
	assert.Less(s.t, len(r.stderr), 2500, "a page was dumped")
	assert.NotContains(s.t, r.stderr, "context canceled")
}

// record is the lineage's state.json.
func (s *spoiled) record() string {
	return filepath.Join(s.state, "renewal", "mail.example.com", "state.json")
}

// remember changes what is remembered of the lineage.
func (s *spoiled) remember(change func(record map[string]any)) {
	s.t.Helper()
	data, err := os.ReadFile(s.record())
	require.NoError(s.t, err)
	record := map[string]any{}
	require.NoError(s.t, json.Unmarshal(data, &record))
	change(record)
	data, err = json.Marshal(record)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(s.record(), data, 0o600))
}

// live is the leaf that the lineage leads to, "" if there is none. It is a whole
// pair or nothing, at every moment.
func (s *spoiled) live() string {
	s.t.Helper()
	dir := filepath.Join(s.state, "live", "mail.example.com")
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	for _, file := range []string{"fullchain.pem", "cert.pem"} {
		_, err := tls.LoadX509KeyPair(filepath.Join(dir, file), filepath.Join(dir, "privkey.pem"))
		require.NoError(s.t, err)
	}
	require.FileExists(s.t, filepath.Join(dir, "chain.pem"))
	data, err := os.ReadFile(filepath.Join(dir, "fullchain.pem"))
	require.NoError(s.t, err)
	return sha256OfPEM(s.t, data)
}

// settled holds the host to what a run that ended well leaves: the live pair is
// installed, and no unfinished business is there.
func (s *spoiled) settled(what string) {
	s.t.Helper()
	live := s.live()
	require.NotEmpty(s.t, live, what)
	data, err := os.ReadFile(filepath.Join(s.certs(), "cert.pem"))
	require.NoError(s.t, err, what)
	assert.Equal(s.t, live, sha256OfPEM(s.t, data), what)
	_, err = tls.LoadX509KeyPair(filepath.Join(s.certs(), "cert.pem"), filepath.Join(s.certs(), "key.pem"))
	assert.NoError(s.t, err, what)
	assert.Empty(s.t, exposed(s.t, s.root), what)
	assert.Empty(s.t, unfinished(s.t, s.state), what)
}

// unfinished lists what a run that ended well leaves nothing of.
func unfinished(t *testing.T, state string) (list []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(state, func(path string, e fs.DirEntry, err error) error {
		ofOrder := filepath.Base(filepath.Dir(filepath.Dir(path))) == "renewal" && e.Name() != "state.json"
		if err == nil && (strings.HasPrefix(e.Name(), "tmp-") || ofOrder) {
			list = append(list, path)
		}
		return err
	}))
	return list
}

// problem is an answer of a CA that refuses.
func problem(status int, kind, detail string) rig.Answer {
	body := fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":%d}`, kind, detail, status)
	return rig.Answer{Status: status, Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: []byte(body)}
}

// page is an answer of something that is no CA: a long one, with what a terminal
// and a log must not be shown.
func page(status int) rig.Answer {
	body := "<html><body>\x1b[2J-----BEGIN PRIVATE KEY-----" + strings.Repeat("<p>gateway</p>\n", 1000)
	return rig.Answer{Status: status, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte(body)}
}

// on meddles with requests of one kind.
func on(kind string, meddle func(*rig.Exchange)) func(*rig.Exchange) {
	return func(x *rig.Exchange) {
		if x.Kind == kind {
			meddle(x)
		} else {
			x.Pass()
		}
	}
}

func always(a rig.Answer) func(*rig.Exchange) { return func(x *rig.Exchange) { x.Reply(a) } }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
