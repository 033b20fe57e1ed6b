package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/rig"
)

func TestAccountThatTheCALostIsCreatedAgain(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.obtained()
	key := s.accountFile("key.pem")
	old, err := os.ReadFile(key)
	require.NoError(t, err)
	s.relay.Meddle(nil)
	for status, kind := range map[int]string{400: "accountDoesNotExist", 401: "accountDoesNotExist"} {
		refuse := problem(status, kind, "who are you?")
		s.relay.Meddle(once("newOrder", always(refuse)))
		require.Equal(t, 0, s.renew("--force", "--min-interval", "1ns").code)
		assert.Equal(t, 1, s.relay.Count("newAccount"))
	}

	other, err := rig.StartCA(t.Context(), filepath.Join(t.TempDir(), "other"), rig.CAOptions{
		Config: map[string]any{"httpPort": 80, "tlsPort": 443}, Env: []string{"PEBBLE_AUTHZREUSE=0"},
	})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	for _, name := range spoiledNames {
		require.NoError(t, other.SetA(t.Context(), name, s.ip))
	}
	roots, err := other.Roots(t.Context())
	require.NoError(t, err)
	s.env = append(s.env, "MAILU_HOOK_ROOTS="+roots)
	require.NoError(t, s.relay.LeadTo(other))
	s.relay.Meddle(nil)
	require.Equal(t, 0, s.renew("--force", "--min-interval", "1ns").code)
	s.settled("at the CA that was reset")
	assert.Equal(t, 1, s.relay.Created("newAccount"))
	now, err := os.ReadFile(key)
	require.NoError(t, err)
	assert.Equal(t, string(old), string(now), "the key is as good as it was")
	s.relay.Meddle(nil)
	require.Equal(t, 0, s.renew("--force", "--min-interval", "1ns").code)
	assert.Zero(t, s.relay.Count("newAccount"))
}

func (s *spoiled) accountFile(name string) string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.state, "accounts", "*", name))
	require.NoError(s.t, err)
	require.Len(s.t, found, 1)
	return found[0]
}

// damages are what may become of a file.
var damages = map[string]func(path string) error{
	"empty":     func(path string) error { return os.Truncate(path, 0) },
	"halved":    func(path string) error { return os.Truncate(path, 20) },
	"garbage":   func(path string) error { return os.WriteFile(path, []byte("\x00\xff{\"]"), 0o600) },
	"other":     func(path string) error { return os.WriteFile(path, []byte(`["x"]`), 0o600) },
	"huge":      func(path string) error { return os.Truncate(path, 3<<20) },
	"removed":   os.Remove,
	"directory": func(path string) error { _ = os.Remove(path); return os.Mkdir(path, 0o700) },
	"fifo":      func(path string) error { _ = os.Remove(path); return unix.Mkfifo(path, 0o600) },
	"loop":      func(path string) error { _ = os.Remove(path); return os.Symlink(filepath.Base(path), path) },
	"dangling":  func(path string) error { _ = os.Remove(path); return os.Symlink("/nonexistent", path) },
	"link out":  func(path string) error { _ = os.Remove(path); return os.Symlink("/etc/passwd", path) },
}

// A key is never replaced because it cannot be read: that may pass, or a backup
// may have it.
func TestDamagedStateIsNamedOrHarmless(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.obtained()
	again := []string{"--force", "--min-interval", "1ns"}
	s.relay.Meddle(on("certificate", always(page(200)))) // and so an order is under way
	s.failed(s.renew(again...), 6)
	s.relay.Meddle(nil)
	base := filepath.Join(t.TempDir(), "base")
	copyTree(t, s.root, base)
	account, err := filepath.Rel(s.root, s.accountFile("account.json"))
	require.NoError(t, err)
	lineage := filepath.Join("state", "renewal", "mail.example.com")
	live := filepath.Join("state", "live", "mail.example.com")
	for _, file := range []string{account, filepath.Join(filepath.Dir(account), "key.pem"), filepath.Join(lineage, "state.json"),
		filepath.Join(lineage, "order.json"), filepath.Join(lineage, "key.pem"), filepath.Join(live, "cert.pem"), filepath.Join(live, "privkey.pem"), live} {
		for _, damage := range sampled(sortedKeys(damages), 3, len(file)) {
			require.NoError(t, os.RemoveAll(s.root))
			copyTree(t, base, s.root)
			path := filepath.Join(s.root, file)
			if file == live && slices.Contains([]string{"empty", "halved", "garbage", "other", "huge"}, damage) {
				continue // it is a link
			}
			require.NoError(t, damages[damage](path))
			what := file + ": " + damage
			before := snapshot(t, s.root)[path]
			s.relay.Meddle(nil)
			r := s.renew(append(again, "--now")...)
			t.Logf("%s: %d %s", what, r.code, r.stderr)
			if r.code == 0 {
				s.live()
				s.settled(what)
				assert.False(t, strings.HasSuffix(file, "key.pem") && strings.HasPrefix(file, "state/accounts") && damage != "removed", "%s: replaced", what)
				continue
			}
			s.failed(r, r.code, filepath.Base(file))
			assert.Contains(t, []int{1, 6}, r.code, what)
			assert.Equal(t, before, snapshot(t, s.root)[path], "%s: it was changed anyway", what)
		}
	}
}

// mountState gives the host's state a file system of its own.
func (s *spoiled) mountState(options string) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("needs root: mounts a tmpfs")
	}
	require.NoError(s.t, os.MkdirAll(s.state, 0o700))
	require.NoError(s.t, unix.Mount("tmpfs", s.state, "tmpfs", 0, options))
	state := s.state
	s.t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
}

// The short version leaves room for some numbers of pages, the long one for each.
func TestFullStateDirectoryCostsAtMostOneOrderAndNoCertificate(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.env = append(s.env, "MAILU_HOOK_HOSTNAME=mail.example.com")
	full, ended, step := 0, 0, 3
	if soak {
		step = 1
	}
	for room := 0; room < 24; room += step { // pages
		s.afresh()
		s.mountState("size=256k")
		filler := filepath.Join(s.state, "filler")
		require.NoError(t, os.Mkdir(filler, 0o700))
		var err error
		n := 0
		for ; err == nil; n++ {
			err = os.WriteFile(filepath.Join(filler, fmt.Sprint(n)), make([]byte, 4096), 0o600)
		}
		for i := range room + 1 { // and the one that failed
			require.NoError(t, os.Remove(filepath.Join(filler, fmt.Sprint(n-1-i))))
		}
		before := s.issued()
		s.relay.Meddle(nil)
		for range 3 {
			r := s.renew("--now")
			if r.code == 0 {
				ended++
				break
			}
			full++
			assert.Contains(t, []int{1, 6}, r.code)
			s.failed(r, r.code, "no space left on device", "free some space")
			s.live()
		}
		orders, accounts := s.relay.Created("newOrder"), s.relay.Created("newAccount")
		if room < 3 { // the account does not fit
			assert.Zero(t, orders, "room for %d pages", room)
		}
		assert.LessOrEqual(t, orders, 1, "room for %d pages", room)
		require.NoError(t, os.RemoveAll(filler))
		require.Equal(t, 0, s.renew("--now").code, "room for %d pages", room)
		s.settled(fmt.Sprintf("room for %d pages", room))
		assert.Equal(t, before+1, s.issued(), "room for %d pages", room)
		assert.Equal(t, 1, s.relay.Created("newAccount"), "room for %d pages", room)
		t.Logf("room for %d pages: %d orders, %d accounts while it was full", room, orders, accounts)
		require.NoError(t, unix.Unmount(s.state, unix.MNT_DETACH))
	}
	assert.NotZero(t, full)
	assert.NotZero(t, ended)
}

func TestReadOnlyStateDirectoryIsReportedBeforeTheCAIsAsked(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.mountState("size=1m")
	require.Equal(t, 0, s.renew().code)
	live := s.live()
	require.NoError(t, unix.Mount("", s.state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s.relay.Meddle(nil)
	s.failed(s.renew("--force", "--min-interval", "1ns"), 1, "read-only", "mount it read-write")
	assert.Zero(t, s.relay.Count())
	require.NoError(t, unix.Mount("", s.state, "", unix.MS_REMOUNT, ""))
	assert.Equal(t, live, s.live())
	require.Equal(t, 0, s.renew("--force", "--min-interval", "1ns").code)
	s.settled("writable again")
}
