package acme

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

func TestAnObtainedCertificateIsLiveWithItsKey(t *testing.T) {
	t.Parallel()
	for _, kind := range KeyTypes {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			want := a.request()
			want.Names = append(want.Names, "smtp.example.com")
			want.Key = kind
			l, err := a.obtain(dir, want)
			require.NoError(t, err)
			leaf := live(t, dir, "mail.example.com")
			assert.Equal(t, want.Names, leaf.DNSNames)
			assert.Equal(t, kind, keyTypeOf(leaf.PublicKey))
			assert.False(t, l.Due(want, time.Now(), false).Now)
			assert.NoFileExists(t, filepath.Join(dir, "renewal/mail.example.com/order.json"))
			assert.NoFileExists(t, filepath.Join(dir, "renewal/mail.example.com/key.pem"))
			assert.Zero(t, a.leftovers(dir))
		})
	}
}

// leftovers are temporary files below dir.
func (a *authority) leftovers(dir string) (n int) {
	a.t.Helper()
	require.NoError(a.t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(name), "tmp-") {
			n++
		}
		return err
	}))
	return n
}

func TestSecretsArePrivateUnderAnyUmask(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), filepath.Join(t.TempDir(), "new")
	_, err := a.obtain(dir, a.request())
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		switch {
		case entry.IsDir():
			assert.EqualValues(t, 0o700, info.Mode().Perm(), name)
		case strings.Contains(name, "key") || strings.HasSuffix(name, ".json"):
			assert.EqualValues(t, 0o600, info.Mode().Perm(), name)
		}
		return nil
	}))
}

func TestARenewalNamesItsPredecessorAndKeepsTheKeyIfAsked(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	want := a.request()
	_, err := a.obtain(dir, want)
	require.NoError(t, err)
	first := live(t, dir, "mail.example.com")
	want.ReuseKey = true
	_, err = a.obtain(dir, want)
	require.NoError(t, err)
	second := live(t, dir, "mail.example.com")
	assert.False(t, second.Equal(first))
	assert.Equal(t, first.PublicKey, second.PublicKey)
	want.ReuseKey = false
	_, err = a.obtain(dir, want)
	require.NoError(t, err)
	assert.NotEqual(t, second.PublicKey, live(t, dir, "mail.example.com").PublicKey)
	assert.Empty(t, a.replaces[0])
	assert.NotEmpty(t, a.replaces[1])
	assert.NotEqual(t, a.replaces[1], a.replaces[2])
}

func TestACAThatRefusesToReplaceIsAskedAgainWithoutReplacing(t *testing.T) {
	t.Parallel()
	for kind, status := range map[string]int{"malformed": 400, "unauthorized": 403, "alreadyReplaced": 409, "rateLimited": 429} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			_, err := a.obtain(dir, a.request())
			require.NoError(t, err)
			a.meddle = func(w http.ResponseWriter, r *http.Request, payload []byte) bool {
				if r.URL.Path != "/order" || !strings.Contains(string(payload), "replaces") {
					return false
				}
				refuse(w, status, kind, "no")
				return true
			}
			_, err = a.obtain(dir, a.request())
			if kind == "rateLimited" {
				assert.True(t, isProblem(err, kind))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 2, a.finals)
		})
	}
}

func TestNamesThatFailValidationAreDroppedOnlyIfAllowed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		subset bool
		fails  string
		finals int
	}{
		"all or nothing": {false, "smtp", 0},
		"the other one":  {true, "smtp", 1},
		"the main one":   {true, "mail", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if strings.HasPrefix(r.URL.Path, "/challenge/") && strings.Contains(r.URL.Path, c.fails) {
					a.proved[strings.TrimPrefix(r.URL.Path, "/challenge/")] = "invalid"
					a.say(w, 200, map[string]any{"status": "processing"})
					return true
				}
				return false
			}
			want := a.request()
			want.Names, want.Subset = append(want.Names, "smtp.example.com"), c.subset
			l, err := a.obtain(dir, want)
			assert.Equal(t, c.finals, a.finals)
			if c.finals == 0 {
				require.ErrorIs(t, err, ErrFailed)
				var problem *Problem
				require.ErrorAs(t, err, &problem)
				assert.Equal(t, c.fails+".example.com", problem.Identifier)
				assert.Contains(t, say.HintOf(err), "did not get the challenge response")
				assert.Equal(t, 1, l.Failures)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []string{"mail.example.com"}, live(t, dir, "mail.example.com").DNSNames)
			again, err := l.state.Lineage("mail.example.com")
			require.NoError(t, err)
			for _, l := range []*Lineage{l, again} {
				due := l.Due(want, time.Now(), false)
				assert.Equal(t, []string{"smtp.example.com"}, due.Lacks)
				d := l.Wait(due, want, DefaultInterval, time.Now())
				assert.Equal(t, MissingNames, d.By)
				assert.Contains(t, d.Reason, "smtp.example.com")
				assert.WithinDuration(t, time.Now().Add(firstWait), d.Until, time.Minute)
			}
		})
	}
}

func TestAMissingNameIsTriedAgainAndCostsNoCertificateWhileItFails(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	broken := func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.HasPrefix(r.URL.Path, "/challenge/") || !strings.Contains(r.URL.Path, "smtp") {
			return false
		}
		a.proved[strings.TrimPrefix(r.URL.Path, "/challenge/")] = "invalid"
		a.say(w, 200, map[string]any{"status": "processing"})
		return true
	}
	a.meddle = broken
	want := a.request()
	want.Names, want.Subset = append(want.Names, "smtp.example.com"), true
	_, err := a.obtain(dir, want)
	require.NoError(t, err)
	first := live(t, dir, "mail.example.com")

	want.Lacks = []string{"smtp.example.com"}
	l, err := a.obtain(dir, want)
	require.ErrorContains(t, err, "smtp.example.com")
	assert.True(t, first.Equal(live(t, dir, "mail.example.com")))
	assert.Equal(t, 1, a.finals)
	assert.Zero(t, l.Failures, "the certificate is fine")
	assert.Equal(t, 2, l.Missed.Times)

	a.meddle = nil
	l, err = a.obtain(dir, want)
	require.NoError(t, err)
	assert.Equal(t, want.Names, live(t, dir, "mail.example.com").DNSNames)
	assert.Nil(t, l.Missed)
	assert.False(t, l.Due(want, time.Now(), false).Now)
}

// step-ca and Caddy do so (RFC 8555, section 8.2).
func TestAChallengeThatTheCALeavesPendingIsTriedAgainAndItsReasonTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ fails, looks int }{"until it succeeds": {1, 2}, "for good": {100, mostLooks}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir, looks := newAuthority(t), t.TempDir(), 0
			a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				challenge := strings.HasPrefix(r.URL.Path, "/challenge/")
				if challenge {
					looks++
				}
				if !challenge && !strings.HasPrefix(r.URL.Path, "/authz/") || looks == 0 || looks > c.fails {
					return false
				}
				doc := map[string]any{"type": "http-01", "url": a.server.URL + "/challenge/0/mail.example.com", "token": "token-0-mail_example_com", "status": "pending",
					"error": map[string]any{"type": "urn:ietf:params:acme:error:connection", "detail": "refused by 192.0.2.1"}}
				if !challenge {
					doc = map[string]any{"status": "pending", "identifier": map[string]string{"type": "dns", "value": "mail.example.com"}, "challenges": []any{doc}}
				}
				a.say(w, 200, doc)
				return true
			}
			_, err := a.obtain(dir, a.request())
			assert.Equal(t, c.looks, looks)
			if c.fails == 1 {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, `the CA answered connection for mail.example.com: "refused by 192.0.2.1"`)
			assert.Contains(t, say.HintOf(err), "port 80")
		})
	}
}

func TestAnAuthorizationForANameThatWasNotOrderedIsRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"victim.example", "smtp.example.com", ""} {
		a, dir := newAuthority(t), t.TempDir()
		a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if !strings.HasPrefix(r.URL.Path, "/authz/") {
				return false
			}
			a.say(w, 200, map[string]any{"status": "pending", "identifier": map[string]string{"type": "dns", "value": name},
				"challenges": []any{map[string]any{"type": "http-01", "url": a.server.URL + "/challenge/0/x", "token": "token"}}})
			return true
		}
		want := a.request()
		_, err := a.obtain(dir, want)
		require.ErrorContains(t, err, "which was not ordered", name)
		entries, err := os.ReadDir(a.docs)
		require.NoError(t, err)
		assert.Empty(t, entries, "nothing was published")
	}
}

func TestAProfileThatTheCADoesNotOfferIsRefusedBeforeTheOrder(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	want := a.request()
	want.Profile = "tlsserver"
	l, err := a.obtain(dir, want)
	require.ErrorContains(t, err, `does not offer the profile "tlsserver"`)
	assert.Equal(t, "it offers classic, shortlived", say.HintOf(err))
	assert.Zero(t, a.count("POST /order"))
	assert.Zero(t, l.Failures)
}

func TestALocationThatIsTooLongToStoreIsRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/account", "/order"} {
		a, dir := newAuthority(t), t.TempDir()
		a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.URL.Path != path {
				return false
			}
			w.Header().Set("Location", a.server.URL+strings.Repeat("/long", 1000))
			a.say(w, 201, map[string]any{"status": "pending", "identifiers": []any{map[string]string{"type": "dns", "value": "mail.example.com"}}})
			return true
		}
		_, err := a.obtain(dir, a.request())
		require.ErrorContains(t, err, "a Location header of 50")
	}
}

func TestNoNameIsDroppedWhenTheCAIsInTrouble(t *testing.T) {
	t.Parallel()
	for name, reason := range map[string]error{
		"rate limit":  &Problem{Type: "rateLimited", Status: 429},
		"server":      &Problem{Type: "serverInternal", Status: 500},
		"the network": os.ErrDeadlineExceeded,
	} {
		want := Request{Names: []string{"a", "b", "c"}, Subset: true}
		assert.Nil(t, dropped(unproved{"b": reason}, want), name)
		assert.Nil(t, dropped(unproved{"b": reason, "c": local{os.ErrNotExist}}, want), name)
	}
	want := Request{Names: []string{"a", "b", "c"}, Subset: true}
	assert.Equal(t, []string{"b", "c"}, dropped(unproved{"c": &Problem{Type: "dns"}, "b": local{os.ErrNotExist}}, want))
	assert.Nil(t, dropped(unproved{"https://ca/authz/1": &Problem{Type: "dns"}}, want), "an authorization that could not be read")
	assert.Nil(t, dropped(os.ErrNotExist, want))
}

// An order that the CA may have carried out is not given up for a passing fault.
func TestAnUnfinishedOrderIsResumedUnlessTheCASaysItIsGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meddle func(http.ResponseWriter, *http.Request, []byte) bool
		finals int // in the end
		fails  bool
	}{
		"known":        {nil, 1, false},
		"not found":    {on("/order/0", 404, "malformed", "no such order"), 2, false},
		"another's":    {on("/order/0", 403, "unauthorized", "not yours"), 2, false},
		"rate limit":   {on("/order/0", 429, "rateLimited", "slow down"), 1, true},
		"503 limit":    {on("/order/0", 503, "rateLimited", "slow down"), 1, true},
		"a page":       {page("/order/0", 502), 1, true},
		"half a reply": {hangUp("/order/0"), 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			a.meddle = hangUp("/cert/")
			_, err := a.obtain(dir, a.request())
			require.ErrorIs(t, err, ErrFailed)
			require.Equal(t, 1, a.finals)
			a.meddle = c.meddle
			_, err = a.obtain(dir, a.request())
			if c.fails {
				require.ErrorIs(t, err, ErrFailed)
				a.meddle = nil
				_, err = a.obtain(dir, a.request())
			}
			require.NoError(t, err)
			assert.Equal(t, c.finals, a.finals)
			live(t, dir, "mail.example.com")
		})
	}
}

// page answers by HTML.
func page(path string, status int) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte("<html>out of order</html>"))
		return true
	}
}

// hangUp closes the connection in place of an answer.
func hangUp(path string) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
		return true
	}
}

func TestAnOrderForAnotherRequestIsNotResumed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Request){
		"names":   func(r *Request) { r.Names = append(r.Names, "new.example.com") },
		"key":     func(r *Request) { r.Key = EC384 },
		"profile": func(r *Request) { r.Profile = "shortlived" },
	} {
		a, dir := newAuthority(t), t.TempDir()
		a.meddle = on("/cert/", 404, "malformed", "gone")
		want := a.request()
		_, err := a.obtain(dir, want)
		require.Error(t, err)
		a.meddle = nil
		change(&want)
		_, err = a.obtain(dir, want)
		require.NoError(t, err, name)
		assert.Equal(t, 2, a.finals, name)
	}
}

func TestADamagedUnfinishedOrderIsIgnored(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"no key":       func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) },
		"empty key":    func(dir string) error { return os.WriteFile(filepath.Join(dir, keyFile), nil, 0o600) },
		"key in parts": func(dir string) error { return os.Truncate(filepath.Join(dir, keyFile), 100) },
		"no order":     func(dir string) error { return os.Remove(filepath.Join(dir, orderFile)) },
		"empty order":  func(dir string) error { return os.WriteFile(filepath.Join(dir, orderFile), nil, 0o600) },
		"half order":   func(dir string) error { return os.Truncate(filepath.Join(dir, orderFile), 80) },
		"null":         func(dir string) error { return os.WriteFile(filepath.Join(dir, orderFile), []byte("null"), 0o600) },
		"an array":     func(dir string) error { return os.WriteFile(filepath.Join(dir, orderFile), []byte("[]"), 0o600) },
		"other types":  func(dir string) error { return os.WriteFile(filepath.Join(dir, orderFile), []byte(`{"url":5}`), 0o600) },
		"no URL":       replaceIn(orderFile, `"url": "https:`, `"url": "gopher:`),
		"a directory": func(dir string) error {
			return os.Rename(filepath.Join(dir, orderFile), filepath.Join(dir, "x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			a.meddle = on("/cert/", 404, "malformed", "gone")
			_, err := a.obtain(dir, a.request())
			require.Error(t, err)
			require.NoError(t, damage(filepath.Join(dir, "renewal/mail.example.com")))
			a.meddle = nil
			_, err = a.obtain(dir, a.request())
			require.NoError(t, err)
			live(t, dir, "mail.example.com")
		})
	}
}

func replaceIn(file, old, changed string) func(dir string) error {
	return func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, file), []byte(strings.Replace(string(data), old, changed, 1)), 0o600)
	}
}

// A run that is killed between making its certificate live and forgetting the
// order leaves an order that some CAs know forever.
func TestAFinishedOrderIsNotResumedByARenewal(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	renewal := filepath.Join(dir, "renewal/mail.example.com")
	a.meddle = on("/cert/", 404, "malformed", "gone")
	_, err := a.obtain(dir, a.request())
	require.Error(t, err)
	order, err := os.ReadFile(filepath.Join(renewal, orderFile))
	require.NoError(t, err)
	key, err := os.ReadFile(filepath.Join(renewal, keyFile))
	require.NoError(t, err)
	a.meddle = nil
	_, err = a.obtain(dir, a.request())
	require.NoError(t, err)
	first := live(t, dir, "mail.example.com")
	order = []byte(strings.Replace(string(order), "{", `{"leaf": "`+pki.Fingerprint(first)+`",`, 1)) // as it says before that is live
	require.NoError(t, os.WriteFile(filepath.Join(renewal, orderFile), order, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(renewal, keyFile), key, 0o600))

	_, err = a.obtain(dir, a.request())
	require.NoError(t, err)
	assert.False(t, live(t, dir, "mail.example.com").Equal(first), "it was asked for another")
	assert.Equal(t, 2, a.finals)
}

func TestALostFinalizeResponseCostsNoSecondCertificate(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, []byte) bool{
		"connection lost": hangUp("/finalize"), "server error": on("/finalize", 500, "serverInternal", "x"), "page": page("/finalize", 504),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			first := true
			a.meddle = func(w http.ResponseWriter, r *http.Request, payload []byte) bool {
				if !strings.HasPrefix(r.URL.Path, "/finalize") || !first {
					return false
				}
				first = false
				a.settle(a.orders[0])
				a.finalize(a.orders[0], 0, payload) // and then the answer is lost
				return answer(w, r, payload)
			}
			_, err := a.obtain(dir, a.request())
			require.NoError(t, err)
			assert.Equal(t, 1, a.finals)
		})
	}
}

func TestAWrongCertificateIsRefusedAndItsOrderRemoved(t *testing.T) {
	t.Parallel()
	other := issue(t, mint.Leaf{Names: []string{"mail.example.com"}})
	for name, c := range map[string]struct {
		chain []byte
		want  string
	}{
		"another key": {other.Chain, "a certificate for another key"},
		"none":        {[]byte("hello"), "no PEM certificate in it"},
		"empty":       {nil, "no PEM certificate in it"},
		"broken":      {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "parsing certificate 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			a.issued = func([]byte) []byte { return c.chain }
			l, err := a.obtain(dir, a.request())
			require.ErrorIs(t, err, ErrFailed)
			require.ErrorContains(t, err, c.want)
			assert.Nil(t, l.Leaf)
			assert.Equal(t, 1, l.Failures, "the next try waits")
			assert.NoDirExists(t, filepath.Join(dir, "live"))
		})
	}
	t.Run("a name too few", func(t *testing.T) {
		t.Parallel()
		a, dir := newAuthority(t), t.TempDir()
		want := a.request()
		want.Names = append(want.Names, "smtp.example.com")
		c, state := a.client(dir)
		l, err := state.Lineage(want.LineageName())
		require.NoError(t, err)
		require.NoError(t, c.signIn())
		o, err := c.order(l, want)
		require.NoError(t, err)
		signer, err := newKey(EC256)
		require.NoError(t, err)
		pair := issue(t, mint.Leaf{Signer: signer})
		o.key, o.Certificate = signer, a.server.URL+"/cert/0"
		a.chains["0"] = pair.Chain
		_, err = c.download(o, want)
		require.ErrorContains(t, err, "left smtp.example.com out")
	})
}

func TestATokenIsNeverAPath(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "../../../etc/passwd", "a/b", "a\x00b", strings.Repeat("a", 300), "a.b", "ä", "a\n"} {
		a, dir := newAuthority(t), t.TempDir()
		a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if !strings.HasPrefix(r.URL.Path, "/authz/") {
				return false
			}
			a.say(w, 200, map[string]any{"status": "pending", "identifier": map[string]string{"type": "dns", "value": "mail.example.com"},
				"challenges": []any{map[string]any{"type": "http-01", "url": a.server.URL + "/challenge/0/x", "token": token}}})
			return true
		}
		_, err := a.obtain(dir, a.request())
		require.ErrorContains(t, err, "an invalid token", "%q", token)
		assert.Zero(t, a.count("POST /challenge"))
		entries, err := os.ReadDir(a.docs)
		require.NoError(t, err)
		assert.Empty(t, entries)
	}
}

func TestACAThatSendsNonsenseEndsInAnErrorWithAHint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		body string
		code int
	}{
		"null as a problem":           {"/order", "null", 400},
		"a list as a problem":         {"/order", "[]", 400},
		"nothing as a problem":        {"/order", "", 400},
		"HTML as a directory":         {"/dir", "<html>", 200},
		"an empty directory":          {"/dir", "{}", 200},
		"null as a directory":         {"/dir", "null", 200},
		"null as an order":            {"/order", "null", 201},
		"an order of another name":    {"/order", `{"status":"pending","identifiers":[{"type":"dns","value":"evil.example"}]}`, 201},
		"null as an authorization":    {"/authz", "null", 200},
		"a strange status":            {"/authz", `{"status":"wait\u001b[31m"}`, 200},
		"no challenge":                {"/authz", `{"status":"pending","identifier":{"type":"dns","value":"mail.example.com"}}`, 200},
		"an order that is nonsense":   {"/order/", `{"status":"\u001b"`, 200},
		"a problem that is not short": {"/order", `{"type":"x","detail":"` + strings.Repeat("A", 100<<10) + `"}`, 400},
		"a huge answer":               {"/order", `{"status":"` + strings.Repeat("A", maxBody) + `"}`, 201},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if !strings.HasPrefix(r.URL.Path, c.path) || c.path == "/order" && r.URL.Path != c.path {
					return false
				}
				w.Header().Set("Location", a.server.URL+"/order/0")
				w.WriteHeader(c.code)
				_, _ = w.Write([]byte(c.body))
				return true
			}
			_, err := a.obtain(dir, a.request())
			require.ErrorIs(t, err, ErrFailed)
			assert.Less(t, len(err.Error()), 1000)
			assert.NotContains(t, err.Error(), "\x1b")
			assert.Zero(t, a.finals)
		})
	}
}

func TestADryRunKeepsOnlyTheAccount(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	c, state := a.client(dir)
	c.o.DryRun = true
	l, err := state.Lineage("mail.example.com")
	require.NoError(t, err)
	require.NoError(t, c.Obtain(l, a.request(), a.solver()))
	assert.Equal(t, 1, a.finals)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	assert.Equal(t, accountsName, entries[0].Name())

	a.meddle = on("/order", 429, "rateLimited", "no")
	require.Error(t, c.Obtain(l, a.request(), a.solver()))
	assert.Zero(t, l.Failures, "a dry run makes nobody wait")
}

func TestAKeyThatTheCARefusesIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	a.meddle = on("/finalize", 400, "badCSR", "a weak key")
	_, err := a.obtain(dir, a.request())
	require.True(t, isProblem(err, "badCSR"))
	assert.Contains(t, say.HintOf(err), "--key-type")
	assert.NoFileExists(t, filepath.Join(dir, "renewal/mail.example.com/key.pem"))
}

func TestFailuresThatNeverReachedTheCACauseNoBackOff(t *testing.T) {
	t.Parallel()
	refused := &Problem{Type: "connection"}
	for name, c := range map[string]struct {
		err  error
		free bool
	}{
		"a look of our own":        {local{os.ErrNotExist}, true},
		"all of them":              {unproved{"a": local{os.ErrNotExist}, "b": local{os.ErrExist}}, true},
		"one was seen by the CA":   {unproved{"a": local{os.ErrNotExist}, "b": refused}, false},
		"one ended in a time-out":  {unproved{"a": local{os.ErrNotExist}, "b": os.ErrDeadlineExceeded}, false},
		"the CA's word":            {refused, false},
		"no way to the CA":         {os.ErrDeadlineExceeded, false},
		"the terms of service":     {say.Hint(local{ErrTerms}, "agree"), true},
		"several, after the other": {unproved{"b": local{os.ErrNotExist}, "a": refused}, false},
	} {
		assert.Equal(t, c.free, free(c.err), name)
	}
}

func TestTheLongestLimitOfAllNamesCounts(t *testing.T) {
	t.Parallel()
	soon, late := at("2026-11-24T08:00:00Z"), at("2026-11-24T20:00:00Z")
	err := unproved{"a": &Problem{Type: "dns"}, "b": &Problem{Type: "rateLimited", Until: soon}, "c": &Problem{Type: "rateLimited", Until: late}, "d": os.ErrNotExist}
	assert.Equal(t, late, limitOf(err))
	assert.Equal(t, soon, limitOf(&pageError{until: soon}))
	assert.Zero(t, limitOf(os.ErrNotExist))
}

func TestTheErrorForManyFailedNamesIsShort(t *testing.T) {
	t.Parallel()
	err := unproved{}
	for _, name := range strings.Split("abcdefghij", "") {
		err[name] = &Problem{Type: "connection", Identifier: name, Detail: strings.Repeat("x", 1000)}
	}
	assert.Less(t, len(err.Error()), 4000)
	assert.Contains(t, err.Error(), "and 6 more names")
}

func TestAlternateChainsThatCannotBeDownloadedAreLeftOut(t *testing.T) {
	t.Parallel()
	want := func(a *authority, preferred string) Request {
		r := a.request()
		r.PreferredChain = preferred
		return r
	}
	for name, at := range map[string]string{"missing": "/cert/7/no", "empty": "/nonce"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			a.meddle = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path == "/cert/0" {
					w.Header().Add("Link", "<"+a.server.URL+at+`>;rel="alternate"`)
				}
				return false
			}
			dir := t.TempDir()
			_, err := a.obtain(dir, want(a, "another"))
			require.NoError(t, err)
			live(t, dir, "mail.example.com")
			assert.Positive(t, a.count("POST "+at), "it was asked for")
		})
	}
}
