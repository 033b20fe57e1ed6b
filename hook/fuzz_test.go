package hook

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math"
	"os"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/source"
)

// FuzzBundle: what Parse accepts, a TLS server loads, and reads again as the
// same; what it rejects, it can explain without a byte of the key.
func FuzzBundle(f *testing.F) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(f, err)
	for _, kind := range []mint.Key{mint.P224, mint.P256, mint.P384, mint.P521, mint.Ed25519, mint.RSA1024, mint.RSA2048} {
		pair, err := ca.Issue(mint.Leaf{Key: kind})
		require.NoError(f, err)
		f.Add(pair.Chain, pair.KeyPEM)
		f.Add(pair.LeafPEM, bytes.Join([][]byte{pair.KeySEC1PEM, pair.KeyPKCS1PEM}, nil))
		f.Add(bytes.ReplaceAll(pair.Chain, []byte("\n"), []byte("\r\n")), bytes.Join([][]byte{pair.KeyPEM, pair.KeyPEM}, nil))
		f.Add(bytes.Join([][]byte{[]byte("\xef\xbb\xbftext\n"), pair.Chain, pair.KeyPEM}, nil), pair.LeafPEM)
		f.Add(bytes.Join([][]byte{pair.IssuerPEM, pair.LeafPEM}, nil), pair.KeyPEM[:len(pair.KeyPEM)/2])
		block, _ := pem.Decode(pair.KeyPEM)
		f.Add(pair.Chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: append(block.Bytes, "more"...)}))
		f.Add(pair.Chain, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: block.Bytes}))
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN -----BEGIN "))
	src := source.Files("fullchain.pem", "privkey.pem")
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		b, err := Parse(src, cert, key)
		if err != nil {
			assertExplained(t, err)
			return
		}
		loaded, err := tls.X509KeyPair(b.certPEM, b.keyPEM)
		require.NoError(t, err)
		assert.Equal(t, b.Leaf().Raw, loaded.Certificate[0])
		again, err := Parse(src, b.certPEM, b.keyPEM)
		require.NoError(t, err)
		assert.Equal(t, b.certPEM, again.certPEM)
		assert.Equal(t, b.keyPEM, again.keyPEM)
		Missing(b.Leaf(), []string{"mail.example.com", "*.example.com", "192.0.2.1", "\xff"})
		for _, r := range []Rules{{AllowUntrusted: true}, {Roots: x509.NewCertPool()}, {Roots: x509.NewCertPool(), AllowExpired: true, NoTest: true}} {
			if err := r.Check(b); err != nil {
				assertExplained(t, err)
			}
		}
	})
}

func assertExplained(t *testing.T, err error) {
	t.Helper()
	var r *Rejection
	require.ErrorAs(t, err, &r)
	assert.NotEmpty(t, r.File)
	assert.NotEmpty(t, r.Fact)
	assert.NotEmpty(t, r.Remedy)
	assert.True(t, utf8.ValidString(err.Error()+r.Hint()), "not UTF-8: %q", err)
	assert.NotContains(t, err.Error()+r.Hint(), "-----BEGIN")
}

// FuzzState: whatever state.json holds, the store reads it or says that it
// cannot, what was read can be worked with, and what is recorded is read back.
func FuzzState(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", "{\"version\": 1}", "{\"version\": 2}", "{\"version\": -1, \"held\": \"\\ud800\"}",
		`{"version": 1, "front": {"hostnames": [], "ports": [{"port": 443, "protocol": "https", "implicit": true}]}, "lineages": []}`,
		`{"version": 1, "lineages": [{"lineage": "/le/live/x", "leaf": "00ff", "at": "2026-11-23T15:05:36Z"}], "last": {"at": "0000-01-01T00:00:00Z", "outcome": "x"}}`,
		`{"version": 1, "pending": {"since": "9999-12-31T23:59:59-23:59", "leaf": "00ff", "attempts": 3, "next": "0001-01-01T00:00:00Z"}}`,
		`{"version": 1, "pending": {"leaf": "00ff", "attempts": -1}}`,
		`{"version": 1, "guarded": {"keys": "00ff", "ttl_seconds": -9223372036854775808, "clear": "9999-12-31T23:59:59Z"}}`,
		`{"version": 1, "pending": {"leaf": "00ff", "attempts": 9223372036854775807}}`,
		"\xef\xbb\xbf{}", "{\"version\": 1}{}", "\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	s, err := OpenStore(placeOf(dir))
	require.NoError(f, err)
	f.Cleanup(s.Close)
	unlock, err := s.Lock(f.Context())
	require.NoError(f, err)
	f.Cleanup(unlock)
	f.Fuzz(func(t *testing.T, content []byte) {
		require.NoError(t, os.WriteFile(ledgerOf(dir), content, 0o600))
		state, err := s.State()
		if err != nil {
			var failed *disk.Error
			require.ErrorAs(t, err, &failed)
			assert.True(t, utf8.ValidString(err.Error()), "not UTF-8: %q", err)
			assert.Equal(t, State{Version: stateVersion}, state, "an error comes with an empty state")
		}
		assert.NotPanics(t, func() { failAgain(t, &state) })
		require.NoError(t, s.Record(state))
		again, err := s.State()
		require.NoError(t, err)
		state.Version, state.CertsDir = stateVersion, again.CertsDir
		want, err := json.Marshal(state)
		require.NoError(t, err)
		got, err := json.Marshal(again)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got))
	})
}

// failAgain does to a state what a deploy of the pending leaf does that fails.
func failAgain(t *testing.T, state *State) {
	leaf, now := "00ff", time.Now().UTC()
	if state.Pending != nil {
		leaf = state.Pending.Leaf
	}
	state.see(source.At("/le/live/x"), leaf, now)
	state.begin("/le/live/x", leaf, now)
	state.fail("because", now)
	wait := state.Pending.Next.Sub(now)
	assert.True(t, wait >= firstWait && wait <= longestWait, "the next attempt is %s away", wait)
	assert.True(t, state.Pending.Attempts > 0 && state.Pending.Attempts < math.MaxInt, "%d attempts", state.Pending.Attempts)
	assert.True(t, state.knows("/le/live/x", leaf))
}
