package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// account is what the account command prints as JSON.
type account struct{ Server, URL, Email, Status string }

func (i *issuer) account(args ...string) (result, account) {
	i.t.Helper()
	r := i.run(nil, append([]string{"account", "--output", "json"}, args...)...)
	var a account
	if r.code == 0 {
		require.NoError(i.t, json.Unmarshal([]byte(r.stdout), &a))
	}
	return r, a
}

func TestNothingIsDoneUntilTheTermsAreAgreedTo(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	var r result
	requests := i.asked(func() { r = i.run(nil, "renew", "--output", "json") })
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.doc.Error, "terms of service")
	assert.Contains(t, r.doc.Error, "data:text/plain,Do%20what%20thou%20wilt", "their URL")
	assert.Contains(t, r.doc.Hint, "--agree-tos")
	assert.Equal(t, []string{"GET /dir"}, requests)
	assert.NoFileExists(t, filepath.Join(i.certs(), "cert.pem"))
	i.issues()
}

func TestAccountIsShownAndDeactivatedAndTheNextRenewalCreatesAnother(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	none, _ := i.account()
	assert.Equal(t, 1, none.code)
	assert.Contains(t, none.stderr, "there is no account at this CA yet")
	assert.Contains(t, none.stderr, "the first mailu-hook renew creates one")

	i.issues("--email", "admin@example.com")
	_, first := i.account("show")
	assert.Equal(t, account{i.acme.DirectoryURL, first.URL, "admin@example.com", "valid"}, first)
	require.NotEmpty(t, first.URL)
	text := i.run(nil, "account")
	assert.Equal(t, first.URL+"  valid  admin@example.com\n", text.stdout)

	i.issues("--email", "other@example.com", "--force", "--min-interval", "1ms")
	_, changed := i.account()
	assert.Equal(t, account{first.Server, first.URL, "other@example.com", "valid"}, changed, "the contact changes, the account stays")

	_, ended := i.account("deactivate", "--yes")
	assert.Equal(t, "deactivated", ended.Status)
	gone, _ := i.account()
	assert.Equal(t, 1, gone.code)
	before := i.live(mailName)
	assert.NotEqual(t, before, i.issues("--force", "--min-interval", "1ms"), "another account cannot replace, but order")
	_, second := i.account()
	assert.Equal(t, "valid", second.Status)
	assert.NotEqual(t, first.URL, second.URL)
}

func TestExternalAccountIsBoundOrItsAbsenceExplained(t *testing.T) {
	key := base64.RawURLEncoding.EncodeToString([]byte("thirty-two bytes, none of it new"))
	i := newStandalone(t, rig.CAOptions{EAB: map[string]string{"kid-1": key}}, mailName)
	file := func(name, content string) string {
		path := filepath.Join(i.root, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	missing := i.renew()
	assert.Equal(t, 6, missing.code)
	assert.Contains(t, missing.doc.Error, "the CA requires an external account binding")
	assert.Contains(t, missing.doc.Hint, "--eab-kid ID and --eab-hmac-file FILE")

	half := i.renew("--eab-kid", "kid-1")
	assert.Equal(t, 2, half.code)

	other := base64.RawURLEncoding.EncodeToString([]byte("another key, of thirty-two bytes"))
	wrong := i.renew("--eab-kid", "kid-1", "--eab-hmac-file", file("wrong", other))
	assert.Equal(t, 6, wrong.code)
	assert.Contains(t, wrong.doc.Error, "creating an account: the CA answered unauthorized")
	assert.Contains(t, wrong.doc.Hint, "--eab-kid and --eab-hmac-file belong to the same external account")
	assert.NotContains(t, wrong.stdout+wrong.stderr, other)

	unknown := i.renew("--now", "--eab-kid", "kid-2", "--eab-hmac-file", file("right", key+"\n"))
	assert.Equal(t, 6, unknown.code)
	assert.Contains(t, unknown.doc.Hint, "--eab-kid and --eab-hmac-file belong to the same external account")
	none, _ := i.account()
	assert.Equal(t, 1, none.code, "no account was made")

	i.issues("--now", "--eab-kid", "kid-1", "--eab-hmac-file", file("right", key+"\n"))
	_, made := i.account()
	assert.Equal(t, "valid", made.Status)
	i.issues("--force", "--min-interval", "1ms")
}
