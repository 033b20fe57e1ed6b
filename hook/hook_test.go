package hook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/source"
)

// helperRole in the environment makes this binary a helper process, which a
// test can kill.
const helperRole = "MAILU_HOOK_TEST_HELPER"

func TestMain(m *testing.M) {
	role, known := helpers[os.Getenv(helperRole)]
	if !known {
		os.Exit(m.Run())
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

var helpers = map[string]func(args []string) error{"deploy": deployHelper}

var sharedCA = sync.OnceValues(func() (*mint.CA, error) { return mint.NewCA(mint.CAOptions{}) })

// issue signs a leaf with the CA that trusted trusts.
func issue(t *testing.T, l mint.Leaf) *mint.Pair {
	t.Helper()
	ca, err := sharedCA()
	require.NoError(t, err)
	return issueFrom(t, ca, l)
}

func issueFrom(t *testing.T, ca *mint.CA, l mint.Leaf) *mint.Pair {
	t.Helper()
	pair, err := ca.Issue(l)
	require.NoError(t, err)
	return pair
}

func newCA(t *testing.T, o mint.CAOptions) *mint.CA {
	t.Helper()
	ca, err := mint.NewCA(o)
	require.NoError(t, err)
	return ca
}

// trusted are strict rules by which the shared CA is a root.
func trusted(t *testing.T) Rules {
	t.Helper()
	ca, err := sharedCA()
	require.NoError(t, err)
	return rooted(ca)
}

func rooted(ca *mint.CA) Rules {
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	return Rules{Roots: roots}
}

var testSource = source.Files("fullchain.pem", "privkey.pem")

func parsed(t *testing.T, pair *mint.Pair) *Bundle {
	t.Helper()
	b, err := Parse(testSource, pair.Chain, pair.KeyPEM)
	require.NoError(t, err)
	return b
}

// aged returns a bundle that was issued so long ago.
func aged(t *testing.T, age time.Duration) *Bundle {
	t.Helper()
	return parsed(t, issue(t, mint.Leaf{NotBefore: time.Now().Add(-age)}))
}

// writePair leaves a pair as plain files, as the documented script does.
func writePair(t *testing.T, dir string, b *Bundle) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "cert.pem"), b.certPEM, 0o644)
	writeFile(t, filepath.Join(dir, "key.pem"), b.keyPEM, 0o600)
}

func writeFile(t *testing.T, name string, data []byte, mode fs.FileMode) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, data, mode))
}

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(placeOf(dir))
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// lockedStore is an open store that the test may change.
func lockedStore(t *testing.T, dir string) *Store {
	t.Helper()
	s := openStore(t, dir)
	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	t.Cleanup(unlock)
	return s
}

// install puts b into dir without a front.
func install(t *testing.T, dir string, b *Bundle) Result {
	t.Helper()
	r, err := Deploy(t.Context(), b, openStore(t, dir), nil, Options{Rules: trusted(t), ByHand: true})
	require.NoError(t, err)
	return r
}

// onDisk is the leaf of the pair that a server would load from dir now.
func onDisk(t *testing.T, dir string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	return pki.Fingerprint(pair.Leaf)
}

// snapshot describes everything below dir: kind, mode, owner, time of the last
// change, and content or target. Equal snapshots mean that nothing was touched.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%s %d:%d %s", info.Mode(), owner.Uid, owner.Gid, info.ModTime())
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %q", data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			what += " -> " + target
		}
		tree[name] = what
		return nil
	}))
	return tree
}

func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
