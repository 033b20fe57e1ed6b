package cli

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/acme"
	"mailu-hook/internal/mint"
)

const (
	hmacKey    = "SECRET-HMAC-KEY-OF-SOMEBODY-SECRET-HMAC-KEY"
	dnsToken   = "SECRET-TOKEN-OF-A-DNS-PROVIDER"
	noSuchFile = "/nonexistent/file"
)

// newRenewer is a world without certbot, whose renewals keep their state below
// its root.
func newRenewer(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.env["MAILU_HOOK_STATE_DIR"] = filepath.Join(w.dir, "state")
	w.env["MAILU_HOOK_LETSENCRYPT_DIR"] = filepath.Join(w.dir, "letsencrypt")
	w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com"
	w.env["MAILU_HOOK_SERVER"] = "https://127.0.0.1:1/dir" // where nobody is
	return w
}

// acme makes the world's CA one that answers by handle, and counts the requests.
func (w *world) acme(handle http.HandlerFunc) (server *httptest.Server, asked *atomic.Int32) {
	w.t.Helper()
	asked = new(atomic.Int32)
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		handle(rw, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	w.t.Cleanup(server.Close)
	w.env["MAILU_HOOK_SERVER"] = server.URL + "/dir"
	w.env["MAILU_HOOK_CA_FILE"] = w.file(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return server, asked
}

func TestUsageErrorsOfRenewAndAccountExit2AndChangeNothing(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		want string // in the error
		hint string
	}{
		"a challenge of its own":      {args: []string{"renew", "--challenge", "magic\x1b"}, want: `"magic`},
		"webroot without directory":   {args: []string{"renew", "--challenge", "webroot"}, want: "--webroot DIR"},
		"webroot that is missing":     {args: []string{"renew", "--webroot", noSuchFile}, want: noSuchFile},
		"webroot that is a file":      {args: []string{"renew", "--webroot", "/etc/passwd"}, want: "/etc/passwd"},
		"dns without provider":        {args: []string{"renew", "--challenge", "dns"}, want: "--dns-provider NAME"},
		"an unknown provider":         {args: []string{"renew", "--dns-provider", "route53"}, want: `"route53"`},
		"a key type":                  {args: []string{"renew", "--challenge", "standalone", "--key-type", "ec512"}, want: `"ec512"`},
		"server without https":        {args: []string{"renew", "--challenge", "standalone", "--server", "http://ca.example/"}, want: "https://"},
		"server that is no URL":       {args: []string{"renew", "--challenge", "standalone", "--server", "ca.example"}, want: `"ca.example"`},
		"staging of another":          {args: []string{"renew", "--challenge", "standalone", "--server", "https://ca.example/", "--staging"}, want: "--staging is Let's Encrypt's"},
		"half an external account":    {args: []string{"renew", "--challenge", "standalone", "--eab-kid", "x"}, want: "--eab-hmac-file"},
		"its other half":              {args: []string{"renew", "--challenge", "standalone", "--eab-hmac-file", "/dev/null"}, want: "--eab-kid"},
		"a missing HMAC":              {args: []string{"renew", "--challenge", "standalone", "--eab-kid", "x", "--eab-hmac-file", noSuchFile}, want: noSuchFile},
		"missing roots of the CA":     {args: []string{"renew", "--challenge", "standalone", "--ca-file", noSuchFile}, want: noSuchFile},
		"roots of the CA without any": {args: []string{"renew", "--challenge", "standalone", "--ca-file", "/dev/null"}, want: "--ca-file: /dev/null: there is no PEM certificate in it"},
		"a wildcard without dns":      {args: []string{"renew", "--challenge", "standalone", "--hostname", "*.example.com"}, want: "needs dns-01", hint: "--dns-provider"},
		"a name without a dot":        {args: []string{"renew", "--challenge", "standalone", "--hostname", "mail"}, want: "no dot", hint: "HOSTNAMES"},
		"an address":                  {args: []string{"renew", "--challenge", "standalone", "--hostname", "192.0.2.1"}, want: "profile", hint: "shortlived"},
		"no name":                     {args: []string{"renew", "--challenge", "standalone"}, env: map[string]string{"MAILU_HOOK_HOSTNAME": ""}, want: "no name to order", hint: "--hostname"},
		"no time":                     {args: []string{"renew", "--challenge", "standalone", "--timeout", "0s"}, want: "--timeout"},
		"a word":                      {args: []string{"renew", "now"}, want: `"now"`},
		"an unknown flag":             {args: []string{"renew", "--frobnicate"}, want: "--frobnicate"},
		"account of something":        {args: []string{"account", "delete"}, want: `"delete"`},
		"account twice":               {args: []string{"account", "show", "show"}, want: `"show"`},
		"account elsewhere":           {args: []string{"account", "--server", "http://ca.example/"}, want: "https://"},
		"account with missing roots":  {args: []string{"account", "deactivate", "--yes", "--ca-file", noSuchFile}, want: noSuchFile},
	} {
		for _, output := range []string{"text", "json"} {
			t.Run(name+" "+output, func(t *testing.T) {
				w := newRenewer(t)
				for name, value := range c.env {
					w.env[name] = value
				}
				w.env["MAILU_HOOK_OUTPUT"] = output
				before := w.tree()
				r := w.run(c.args...)
				assert.Equal(t, exitUsage, r.status, r.stderr)
				assert.Contains(t, r.stderr, c.want)
				assert.Regexp(t, `\nmailu-hook: hint: .*`+c.hint, r.stderr)
				assert.Equal(t, before, w.tree(), "nothing is written")
				if output == "json" && name != "an unknown flag" { // which hides what else was asked for
					doc := r.document(t)
					assert.Contains(t, doc["error"], c.want[:min(4, len(c.want))])
					assert.NotEmpty(t, doc["hint"])
				} else {
					assert.Empty(t, r.stdout)
				}
			})
		}
	}
}

func TestNamesManagedByCertbotAreLeftToIt(t *testing.T) {
	w := newRenewer(t)
	config := filepath.Join(w.env["MAILU_HOOK_LETSENCRYPT_DIR"], "renewal", "mail.example.com.conf")
	require.NoError(t, os.MkdirAll(filepath.Dir(config), 0o700))
	require.NoError(t, os.WriteFile(config, nil, 0o600))
	_, asked := w.acme(http.NotFound)
	before := w.tree()
	r := w.run("renew", "--challenge", "standalone")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, config)
	assert.Contains(t, r.stderr, "certbot delete --cert-name mail.example.com")
	assert.Equal(t, before, w.tree())
	assert.Zero(t, asked.Load())
	assert.Equal(t, exitACME, w.run("renew", "--challenge", "standalone", "--force-standalone").status)
	assert.Positive(t, asked.Load())
}

// directory is a CA that knows one thing: what a new account has to agree to.
func directory(meta string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dir" {
			http.NotFound(w, r)
			return
		}
		url := "https://" + r.Host
		_, _ = io.WriteString(w, `{"newNonce":"`+url+`/nonce","newAccount":"`+url+`/account","newOrder":"`+url+`/order","meta":{`+meta+`}}`)
	}
}

func TestTermsThatWereNotAgreedToAreNamed(t *testing.T) {
	w := newRenewer(t)
	w.acme(directory(`"termsOfService":"https://ca.example/terms\u001b[31m"`))
	r := w.run("renew", "--challenge", "standalone")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, "https://ca.example/terms")
	assert.Contains(t, r.stderr, "--agree-tos")
}

func TestAFailedRenewalIsOneDocumentWithAHint(t *testing.T) {
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		want   string
		hint   string
	}{
		"a page":              {http.NotFound, "the server answered 404 Not Found", "URL of an ACME directory"},
		"not ACME":            {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>\x1b") }, "does not speak ACME", "--server"},
		"an external account": {directory(`"externalAccountRequired":true`), "requires an external account binding", "--eab-kid"},
		"no nonce":            {directory(``), "nonce", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRenewer(t)
			w.acme(c.handle)
			r := w.run("renew", "--challenge", "standalone", "--agree-tos", "--output", "json")
			assert.Equal(t, exitACME, r.status)
			doc := r.document(t)
			assert.Equal(t, "failed", doc["outcome"])
			assert.Contains(t, doc["error"], c.want)
			assert.Contains(t, doc["hint"], c.hint)
			renewal := doc["renewal"].(map[string]any)
			assert.Equal(t, []any{"mail.example.com"}, renewal["names"])
			assert.Equal(t, true, renewal["due"])
			assert.Equal(t, false, renewal["issued"])
			assert.Equal(t, "there is no certificate yet", renewal["reason"])
			assert.False(t, w.installed(w.pair), "nothing is installed")
		})
	}
}

func TestAfterAFailureRenewBacksOffUnlessNowIsGiven(t *testing.T) {
	w := newRenewer(t)
	_, asked := w.acme(http.NotFound)
	require.Equal(t, exitACME, w.run("renew", "--challenge", "standalone").status)
	before := asked.Load()
	r := w.run("renew", "--challenge", "standalone", "--output", "json")
	assert.Equal(t, exitACME, r.status)
	doc := r.document(t)
	assert.Contains(t, doc["error"], "not yet time to try: attempt 1 failed")
	assert.Contains(t, doc["hint"], "--now")
	next, err := time.Parse(time.RFC3339, doc["next_attempt"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(15*time.Minute), next, time.Minute)
	assert.Equal(t, before, asked.Load(), "nobody was asked")
	assert.Equal(t, exitACME, w.run("renew", "--challenge", "standalone", "--now").status)
	assert.Greater(t, asked.Load(), before)
}

func TestOnlyOneRenewalRunsAtATime(t *testing.T) {
	w := newRenewer(t)
	state, err := acme.OpenState(w.env["MAILU_HOOK_STATE_DIR"])
	require.NoError(t, err)
	defer state.Close()
	unlock, err := state.Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	_, asked := w.acme(http.NotFound)
	for _, args := range [][]string{{"renew", "--challenge", "standalone", "--timeout", "300ms"}, {"account", "deactivate", "--yes", "--timeout", "300ms"}} {
		r := w.run(args...)
		assert.Equal(t, exitLocked, r.status, r.stderr)
		assert.Contains(t, r.stderr, "another run holds the lock")
	}
	assert.Zero(t, asked.Load())
}

// obtained is a state directory in which an earlier run left a certificate.
func (w *world) obtained(pair *mint.Pair) {
	w.t.Helper()
	state := w.env["MAILU_HOOK_STATE_DIR"]
	generation := filepath.Join(state, "archive/mail.example.com/20260101T000000Z-a")
	require.NoError(w.t, os.MkdirAll(generation, 0o700))
	require.NoError(w.t, os.MkdirAll(filepath.Join(state, "live"), 0o700))
	for name, data := range map[string][]byte{"privkey.pem": pair.KeyPEM, "cert.pem": pair.LeafPEM, "chain.pem": pair.IssuerPEM, "fullchain.pem": pair.Chain} {
		require.NoError(w.t, os.WriteFile(filepath.Join(generation, name), data, 0o600))
	}
	require.NoError(w.t, os.Symlink("../archive/mail.example.com/20260101T000000Z-a", filepath.Join(state, "live/mail.example.com")))
}

func TestAnObtainedCertificateIsInstalledEvenIfTheCAFails(t *testing.T) {
	w := newRenewer(t)
	w.engine(w.stopped())
	w.obtained(w.pair)
	w.acme(http.NotFound)
	assert.Equal(t, exitACME, w.run("renew", "--challenge", "standalone").status)
	assert.True(t, w.installed(w.pair))
}

func TestACanceledRunReportsOnlyThat(t *testing.T) {
	w := newRenewer(t)
	w.obtained(w.pair)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.acme(func(_ http.ResponseWriter, r *http.Request) {
		cancel(context.Canceled)
		<-r.Context().Done()
	})
	var stdout, stderr strings.Builder
	status := Run(ctx, []string{"renew", "--challenge", "standalone"}, w.environ(), nil, &stdout, &stderr)
	assert.Equal(t, exitACME, status)
	assert.NotContains(t, stderr.String(), "what was obtained before")
	assert.False(t, w.installed(w.pair))
	delete(w.env, "MAILU_HOOK_SERVER")
	_, asked := w.acme(http.NotFound)
	w.run("renew", "--challenge", "standalone")
	assert.Positive(t, asked.Load(), "and the next need not wait")
}

func TestNoSecretIsShownWhateverFails(t *testing.T) {
	w := newRenewer(t)
	w.acme(directory(``))
	config := w.file("CLOUDFLARE_DNS_API_TOKEN=" + dnsToken + "\nDNSUPDATE_TSIG_SECRET=" + dnsToken + "\nDNSUPDATE_TSIG_KEY=key\nACME_DNS_API_BASE=https://user:" + dnsToken + "@127.0.0.1:1\n" +
		"HTTPREQ_ENDPOINT=https://user:" + dnsToken + "@127.0.0.1:1/\nHTTPREQ_PASSWORD=" + dnsToken + "\n")
	common := []string{"--agree-tos", "--now", "--config", config, "--eab-kid", "kid", "--eab-hmac-file", w.file(hmacKey), "--log-level", "debug"}
	for _, args := range [][]string{
		{"renew", "--challenge", "standalone"}, {"renew", "--dns-provider", "cloudflare"}, {"renew", "--dns-provider", "rfc2136"},
		{"renew", "--dns-provider", "acme-dns"}, {"renew", "--dns-provider", "httpreq"}, {"renew", "--dns-provider", "hetzner"},
		{"renew", "--dns-provider", "cloudflare", "--output", "json"},
	} {
		var stdout, stderr strings.Builder
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		status := Run(ctx, append(args, common...), w.environ(), nil, &stdout, &stderr)
		cancel()
		assert.NotEqual(t, exitOK, status, "%v", args)
		for _, secret := range []string{dnsToken, hmacKey, "PRIVATE KEY"} {
			assert.NotContains(t, stdout.String()+stderr.String(), secret, "%v", args)
		}
	}
}

func TestTheConfigurationMaySetVariablesOfDNSProviders(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	for _, line := range []string{"CLOUDFLARE_DNS_API_TOKEN=x", "CF_API_KEY=x", "DNSUPDATE_NAMESERVER=127.0.0.1", "RFC2136_TSIG_KEY_FILE=/x", "EXEC_PATH=/x", "NETCUP_CUSTOMER_NUMBER=1", "GANDIV5_PERSONAL_ACCESS_TOKEN=x"} {
		r := w.hook("--config", w.file(line+"\n"), "--dry-run")
		assert.Equal(t, exitOK, r.status, "%s: %s", line, r.stderr)
	}
	for _, line := range []string{"AWS_SECRET_ACCESS_KEY=x", "LD_PRELOAD=/x", "PATH=/x"} {
		assert.Equal(t, exitUsage, w.hook("--config", w.file(line+"\n"), "--dry-run").status, line)
	}
}

func TestAMissingAccountIsAnError(t *testing.T) {
	w := newRenewer(t)
	_, asked := w.acme(http.NotFound)
	for _, action := range [][]string{{"account", "show"}, {"account", "deactivate", "--yes"}} {
		r := w.run(action...)
		assert.Equal(t, exitError, r.status)
		assert.Contains(t, r.stderr, "there is no account at this CA yet: "+w.env["MAILU_HOOK_SERVER"])
		assert.Contains(t, r.stderr, "the first mailu-hook renew creates one")
		doc := w.run(append(action, "--output", "json")...).document(t)
		assert.Contains(t, doc["error"], "no account")
	}
	assert.Zero(t, asked.Load())
}

// accounts is a CA that has accounts, and no orders.
func accounts(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", "bm9uY2U")
	switch r.URL.Path {
	case "/nonce":
	case "/account":
		w.Header().Set("Location", "https://"+r.Host+"/account/1")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"status":"valid"}`)
	case "/account/1":
		_, _ = io.WriteString(w, `{"status":"valid\u001b"}`)
	default:
		directory("")(w, r)
	}
}

func TestWithoutAFrontToAnswerRenewSaysWhatToDo(t *testing.T) {
	for name, start := range map[string]func(*world){
		"no engine":       func(*world) {},
		"a stopped front": func(w *world) { w.engine(w.stopped()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newRenewer(t)
			w.acme(accounts)
			start(w)
			r := w.run("renew", "--agree-tos")
			assert.Equal(t, exitACME, r.status)
			assert.Contains(t, r.stderr, "no front can answer the CA's challenge: ")
			assert.Contains(t, r.stderr, "start Mailu, or choose --challenge standalone")
		})
	}
}

func TestAnAccountIsShownAsTextAndAsJSON(t *testing.T) {
	w := newRenewer(t)
	server, _ := w.acme(accounts)
	require.Equal(t, exitACME, w.run("renew", "--challenge", "standalone", "--agree-tos", "--email", "admin@example.com").status, "it has no orders")
	r := w.run("account")
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.Equal(t, server.URL+"/account/1  valid  admin@example.com\n", r.stdout)
	var doc map[string]any
	require.NoError(t, json.Unmarshal([]byte(w.run("account", "show", "--output", "json").stdout), &doc))
	assert.Equal(t, "admin@example.com", doc["email"])
	assert.Equal(t, w.env["MAILU_HOOK_SERVER"], doc["server"])
	require.Equal(t, exitOK, w.run("account", "deactivate", "--yes").status)
	assert.Equal(t, exitError, w.run("account").status)
}
