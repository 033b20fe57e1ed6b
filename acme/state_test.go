package acme

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

func openState(t *testing.T, dir string) *State {
	t.Helper()
	s, err := OpenState(dir)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func lock(t *testing.T, s *State) {
	t.Helper()
	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	unlock()
}

// install makes a new certificate the live one.
func install(t *testing.T, l *Lineage) *mint.Pair {
	t.Helper()
	pair := issue(t, mint.Leaf{Names: []string{l.Name}})
	chain, err := pki.ParseChain(pair.Chain)
	require.NoError(t, err)
	require.NoError(t, l.install(chain, pair.Key))
	return pair
}

func TestTheStateDirectoryIsPrivateUnderAnyUmask(t *testing.T) {
	for _, umask := range []int{0o022, 0o077, 0} {
		dir := filepath.Join(t.TempDir(), "a", "b")
		old := syscall.Umask(umask)
		s, err := OpenState(dir)
		if err == nil {
			l := &Lineage{Name: "mail.example.com", state: s}
			install(t, l)
			err = l.record()
		}
		syscall.Umask(old)
		require.NoError(t, err)
		s.Close()
		require.NoError(t, filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := entry.Info()
			require.NoError(t, err)
			switch base := filepath.Base(name); {
			case entry.IsDir():
				assert.EqualValues(t, 0o700, info.Mode().Perm(), name)
			case base == "privkey.pem" || base == recordFile:
				assert.EqualValues(t, 0o600, info.Mode().Perm(), name)
			case info.Mode().IsRegular() && base != "lock":
				assert.EqualValues(t, 0o644, info.Mode().Perm(), name)
			}
			return nil
		}))
	}
}

func TestAStateDirectoryThatCannotBeCreatedIsNamedWithAHint(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, filepath.Join(file, "below")} {
		_, err := OpenState(path)
		require.ErrorContains(t, err, file)
		assert.Contains(t, say.HintOf(err), "--state-dir")
	}
}

func TestTheNewestGenerationsAreKeptAndAlwaysTheLiveOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &Lineage{Name: "mail.example.com", state: openState(t, dir)}
	archive := filepath.Join(dir, "archive", l.Name)
	for _, old := range []string{"20200101T000000Z-a", "20210101T000000Z-b", "20220101T000000Z-c", "20230101T000000Z-d", "20350101T000000Z-e", "20360101T000000Z-f"} {
		require.NoError(t, os.MkdirAll(filepath.Join(archive, old), 0o700))
	}
	pair := install(t, l)
	require.NoError(t, l.prune())
	entries, err := os.ReadDir(archive)
	require.NoError(t, err)
	assert.Len(t, entries, keptGenerations)
	assert.True(t, live(t, dir, l.Name).Equal(pair.Cert))

	for _, future := range []string{"20370101T000000Z-g", "20380101T000000Z-h", "20390101T000000Z-i", "20400101T000000Z-j"} { // a clock that was wrong
		require.NoError(t, os.Mkdir(filepath.Join(archive, future), 0o700))
	}
	require.NoError(t, l.prune())
	assert.True(t, live(t, dir, l.Name).Equal(pair.Cert))
}

func TestTheGenerationOfAKilledRunIsReused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &Lineage{Name: "mail.example.com", state: openState(t, dir)}
	pair := install(t, l)
	require.NoError(t, os.Remove(filepath.Join(dir, "live", l.Name))) // as if it had been killed before the link
	l, err := l.state.Lineage(l.Name)
	require.NoError(t, err)
	assert.Nil(t, l.Leaf)
	chain, err := pki.ParseChain(pair.Chain)
	require.NoError(t, err)
	require.NoError(t, l.install(chain, pair.Key), "within the same second, too")
	assert.True(t, live(t, dir, l.Name).Equal(pair.Cert))
	entries, err := os.ReadDir(filepath.Join(dir, "archive", l.Name))
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}

func TestLinksOutOfTheStateDirectoryAreNotFollowed(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]string{
		"an absolute path":   "/etc",
		"up":                 "../../../../../../etc",
		"the directory":      ".",
		"the one above":      "..",
		"a name that is not": "../archive/mail.example.com/none",
		"another host's":     "../archive/other.example.com/20200101T000000Z-a",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openState(t, dir)
			install(t, &Lineage{Name: "other.example.com", state: s})
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "archive/mail.example.com"), 0o700))
			require.NoError(t, os.Symlink(target, filepath.Join(dir, "live/mail.example.com")))
			l, err := s.Lineage("mail.example.com")
			if err != nil {
				assert.NotEmpty(t, say.HintOf(err))
				return
			}
			assert.Nil(t, l.Leaf)
			pair := install(t, l)
			assert.True(t, live(t, dir, l.Name).Equal(pair.Cert))
		})
	}
	for _, name := range []string{"live", "archive", "renewal", "accounts"} {
		t.Run(name+" is a link", func(t *testing.T) {
			t.Parallel()
			a, dir, outside := newAuthority(t), t.TempDir(), t.TempDir()
			require.NoError(t, os.Symlink(outside, filepath.Join(dir, name)))
			c, state := a.client(dir)
			l, err := state.Lineage("mail.example.com")
			if err == nil {
				err = c.Obtain(l, a.request(), a.solver())
			}
			require.ErrorContains(t, err, "a symbolic link")
			entries, err := os.ReadDir(outside)
			require.NoError(t, err)
			assert.Empty(t, entries)
		})
	}
}

func TestDamagedFilesAreNamedWithAHint(t *testing.T) {
	t.Parallel()
	for file, content := range map[string]string{
		"renewal/mail.example.com/state.json": "{",
		"live/mail.example.com/cert.pem":      "no certificate",
		"ACCOUNT/account.json":                `{"url":`,
		"ACCOUNT/key.pem":                     "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			_, err := a.obtain(dir, a.request())
			require.NoError(t, err)
			file := strings.Replace(file, "ACCOUNT", "accounts/"+fileName(a.directory()), 1)
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
			c, state := a.client(dir)
			l, err := state.Lineage("mail.example.com")
			if err == nil {
				err = c.Obtain(l, a.request(), a.solver())
			}
			require.ErrorContains(t, err, filepath.Base(file))
			assert.Contains(t, say.HintOf(err), "restore it from a backup")
			assert.NotContains(t, err.Error(), "MIIE")
		})
	}
}

func TestRecordOfANewerVersionIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"more keys":     `{"version": 2, "directory": "https://ca.example", "more": true}`,
		"another shape": `{"version": 2, "names": {"dns": ["mail.example.com"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, dir := newAuthority(t), t.TempDir()
			_, err := a.obtain(dir, a.request())
			require.NoError(t, err)
			file := filepath.Join(dir, "renewal/mail.example.com/state.json")
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))

			_, err = openState(t, dir).Lineage("mail.example.com")
			require.EqualError(t, err, file+": written by a newer mailu-hook (version 2)")
			assert.Contains(t, say.HintOf(err), "install the newer mailu-hook again")
			kept, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, content, string(kept))
		})
	}
}

func TestTheLockSweepsTemporaryFilesAndSparesHosts(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	want := a.request()
	want.Names = []string{"tmp-1.example.com"} // a host may bear such a name
	_, err := a.obtain(dir, want)
	require.NoError(t, err)
	account := filepath.Join(dir, "accounts", fileName(a.directory()))
	var litter []string
	for _, at := range []string{account, filepath.Join(dir, "renewal/tmp-1.example.com"), filepath.Join(dir, "archive/tmp-1.example.com"), dir} {
		litter = append(litter, filepath.Join(at, disk.TempName()))
		require.NoError(t, os.WriteFile(litter[len(litter)-1], []byte("half a key"), 0o600))
	}
	lock(t, openState(t, dir))
	for _, name := range litter {
		assert.NoFileExists(t, name)
	}
	live(t, dir, "tmp-1.example.com")
	assert.FileExists(t, filepath.Join(account, keyFile))
	l, err := openState(t, dir).Lineage("tmp-1.example.com")
	require.NoError(t, err)
	assert.Equal(t, want.Names, l.Names)
}

func TestOneRunAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := openState(t, dir).Lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = openState(t, dir).Lock(ctx)
	require.ErrorIs(t, err, disk.ErrLocked)
	unlock()
	lock(t, openState(t, dir))
}

func TestTheDirectoryOfAnAccountHasARecognizableName(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		LetsEncrypt:                     "acme-v02.api.letsencrypt.org_directory",
		"https://ca.example:14000/dir/": "ca.example_14000_dir",
		"https://ca.example/../../etc":  "ca.example_.._.._etc",
		"https://[::1]:14000/dir":       "[__1]_14000_dir",
		"../../etc":                     "etc",
		"https://ca.example/a%2Fb":      "ca.example_a%2Fb",
	} {
		got := fileName(url)
		assert.Equal(t, want, got)
		assert.Equal(t, got, filepath.Base(got))
	}
}

func accountFiles(t *testing.T, a *authority, dir string) (account Account, key string) {
	t.Helper()
	at := filepath.Join(dir, "accounts", fileName(a.directory()))
	data, err := os.ReadFile(filepath.Join(at, accountFile))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &account))
	data, err = os.ReadFile(filepath.Join(at, keyFile))
	require.NoError(t, err)
	return account, string(data)
}

func TestAnAccountWhoseCreationGotNoResponseIsFoundByItsKey(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	a.meddle = func(w http.ResponseWriter, r *http.Request, payload []byte) bool {
		if r.URL.Path == "/account" {
			a.accounts = append(a.accounts, "made, and the answer lost")
			return hangUp("/account")(w, r, payload)
		}
		return false
	}
	_, err := a.obtain(dir, a.request())
	require.ErrorIs(t, err, ErrFailed)
	account, key := accountFiles(t, a, dir)
	assert.Empty(t, account.URL)

	a.meddle, a.accounts = nil, nil
	_, err = a.obtain(dir, a.request())
	require.NoError(t, err)
	account, again := accountFiles(t, a, dir)
	assert.Equal(t, key, again, "the same key")
	assert.Equal(t, a.server.URL+"/account/0", account.URL)
	assert.Len(t, a.accounts, 1)
}

func TestOnlyTheUserAgreesToTheTerms(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	dir := t.TempDir()
	c, state := a.client(dir)
	c.o.AgreeTOS = false
	l, err := state.Lineage("mail.example.com")
	require.NoError(t, err)
	err = c.Obtain(l, a.request(), a.solver())
	require.ErrorIs(t, err, ErrTerms)
	require.ErrorContains(t, err, a.server.URL+"/terms")
	assert.Contains(t, say.HintOf(err), "--agree-tos")
	assert.Zero(t, a.count("POST"))
	assert.Zero(t, l.Failures)
	assert.NoDirExists(t, filepath.Join(dir, "accounts"))

	_, err = a.obtain(dir, a.request())
	require.NoError(t, err)
	c, _ = a.client(dir)
	c.o.AgreeTOS = false
	require.NoError(t, c.signIn(), "once is enough")
}

func TestAnExternalAccountIsCheckedBeforeTheCAIsAsked(t *testing.T) {
	t.Parallel()
	for _, hmac := range []string{"", "not base64url!", "a/b+c=", "c2hvcnQ", "-----BEGIN X-----"} {
		a := newAuthority(t)
		c, _ := a.client(t.TempDir())
		c.o.EAB = &ExternalAccount{KeyID: "kid", HMAC: hmac}
		err := c.signIn()
		require.ErrorContains(t, err, "base64url")
		assert.Contains(t, say.HintOf(err), "--eab-hmac-file")
		if hmac != "" {
			assert.NotContains(t, err.Error()+say.HintOf(err), hmac)
		}
		assert.Zero(t, a.count("POST"))
	}
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"
	for _, hmac := range []string{secret, secret + "="} {
		a := newAuthority(t)
		bound := ""
		a.meddle = func(_ http.ResponseWriter, r *http.Request, payload []byte) bool {
			if r.URL.Path == "/account" {
				bound = string(payload)
			}
			return false
		}
		c, _ := a.client(t.TempDir())
		c.o.EAB = &ExternalAccount{KeyID: "kid", HMAC: hmac}
		require.NoError(t, c.signIn())
		assert.Contains(t, bound, "externalAccountBinding")
		assert.NotContains(t, bound, secret)
	}
}

func TestAnAccountIsShownAndDeactivated(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	c, _ := a.client(dir)
	_, err := c.Account()
	require.ErrorIs(t, err, ErrNoAccount)
	_, err = c.Deactivate()
	require.ErrorIs(t, err, ErrNoAccount)
	_, err = a.obtain(dir, a.request())
	require.NoError(t, err)

	c, _ = a.client(dir)
	account, err := c.Account()
	require.NoError(t, err)
	assert.Equal(t, "valid", account.Status)
	assert.Equal(t, "admin@example.com", account.Email)

	a.meddle = on("/account/", 500, "serverInternal", "down")
	_, err = c.Deactivate()
	require.Error(t, err)
	_, key := accountFiles(t, a, dir)
	assert.NotEmpty(t, key, "nothing is forgotten that the CA may still know")

	a.meddle = on("/account/", 401, "unauthorized", "deactivated")
	_, err = c.Deactivate()
	require.NoError(t, err, "it was ended before")
	assert.NoDirExists(t, filepath.Join(dir, "accounts", fileName(a.directory())))
	_, err = c.Account()
	require.ErrorIs(t, err, ErrNoAccount)
	live(t, dir, "mail.example.com")
}

func TestANewEmailAddressIsSentToTheCAOnce(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	_, err := a.obtain(dir, a.request())
	require.NoError(t, err)
	_, key := accountFiles(t, a, dir)
	for range 2 {
		c, _ := a.client(dir)
		c.o.Email = "new@example.com"
		require.NoError(t, c.signIn())
	}
	account, again := accountFiles(t, a, dir)
	assert.Equal(t, "new@example.com", account.Email)
	assert.Equal(t, key, again)
	assert.Equal(t, 1, a.count("POST /account/"))
}

func TestAnAccountThatTheCALostIsCreatedAgainWithTheSameKey(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	_, err := a.obtain(dir, a.request())
	require.NoError(t, err)
	_, key := accountFiles(t, a, dir)
	forgotten := true
	a.meddle = func(w http.ResponseWriter, r *http.Request, payload []byte) bool {
		if r.URL.Path == "/account" {
			forgotten = false
		}
		return forgotten && on("/order", 400, "accountDoesNotExist", "who?")(w, r, payload)
	}
	_, err = a.obtain(dir, a.request())
	require.NoError(t, err)
	_, again := accountFiles(t, a, dir)
	assert.Equal(t, key, again)
	assert.Equal(t, 2, a.finals)
}
