package hook

import (
	"context"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// benchPair is a pair of the shared CA, and the rules by which it is trusted.
func benchPair(b *testing.B, key mint.Key) (*mint.Pair, Rules) {
	b.Helper()
	ca, err := sharedCA()
	require.NoError(b, err)
	pair, err := ca.Issue(mint.Leaf{Key: key})
	require.NoError(b, err)
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	return pair, Rules{Roots: roots}
}

func BenchmarkValidate(b *testing.B) {
	for _, key := range []mint.Key{mint.P256, mint.P384, mint.RSA2048, mint.RSA4096} {
		b.Run(string(key), func(b *testing.B) {
			pair, rules := benchPair(b, key)
			for b.Loop() {
				bundle, err := Parse(testSource, pair.Chain, pair.KeyPEM)
				if err == nil {
					err = rules.Check(bundle)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchStore is a store with two generations.
func benchStore(b *testing.B) (s *Store, gens [2]Generation) {
	b.Helper()
	s, err := OpenStore(placeOf(b.TempDir()))
	require.NoError(b, err)
	b.Cleanup(s.Close)
	unlock, err := s.Lock(context.Background())
	require.NoError(b, err)
	b.Cleanup(unlock)
	for i := range gens {
		pair, _ := benchPair(b, mint.P256)
		bundle, err := Parse(testSource, pair.Chain, pair.KeyPEM)
		require.NoError(b, err)
		gens[i], err = s.Stage(bundle)
		require.NoError(b, err)
	}
	require.NoError(b, s.Switch(gens[0]))
	return s, gens
}

// BenchmarkSwitch includes the fsync of the directory.
func BenchmarkSwitch(b *testing.B) {
	s, gens := benchStore(b)
	for i := 1; b.Loop(); i++ {
		if err := s.Switch(gens[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInstalled(b *testing.B) {
	s, _ := benchStore(b)
	for b.Loop() {
		if _, err := s.Installed(); err != nil {
			b.Fatal(err)
		}
	}
}
