package hook

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Fronts with certs directories of their own share the state directory.
func TestDeploysIntoSeveralDirectoriesDoNotDisturbEachOther(t *testing.T) {
	stateDir, wg := t.TempDir(), sync.WaitGroup{}
	for range 8 {
		dir := t.TempDir()
		wg.Go(func() {
			for range 10 {
				s, err := OpenStore(Place{CertsDir: dir, CertName: "cert.pem", KeyName: "key.pem", StateDir: stateDir})
				if !assert.NoError(t, err) {
					return
				}
				unlock, err := s.Lock(t.Context())
				if assert.NoError(t, err) {
					assert.NoError(t, s.Record(State{Last: &Last{At: time.Now(), Outcome: OutcomeInstalled}}))
					unlock()
				}
				s.Close()
			}
		})
	}
	wg.Wait()
	ledgers, err := filepath.Glob(filepath.Join(stateDir, ledgerDir, "*.json"))
	require.NoError(t, err)
	assert.Len(t, ledgers, 8)
	left, err := filepath.Glob(filepath.Join(stateDir, ledgerDir, "*.tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestAnUnfinishedLedgerOfAKilledRunIsRemoved(t *testing.T) {
	dir, stateDir := t.TempDir(), t.TempDir()
	for range 2 {
		s, err := OpenStore(Place{CertsDir: dir, CertName: "cert.pem", KeyName: "key.pem", StateDir: stateDir})
		require.NoError(t, err)
		unlock, err := s.Lock(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Record(State{}))
		writeFile(t, filepath.Join(s.ledger.path(), s.ledger.tmp()), []byte("half of"), 0o600)
		unlock()
		s.Close()
	}
}
