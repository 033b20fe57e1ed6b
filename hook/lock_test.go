package hook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

func TestSecondHolderWaitsUntilItsTimeIsUpAndNamesTheFirst(t *testing.T) {
	dir := t.TempDir()
	holder, out := startHelper(t, "lock", dir)
	require.Equal(t, "locked", nextLine(t, out))
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	_, err := openStore(t, dir).Lock(ctx)
	require.ErrorIs(t, err, ErrLocked)
	require.Error(t, ctx.Err(), "it waited")
	assert.ErrorContains(t, err, fmt.Sprintf("(pid %d)", holder.Process.Pid))
	assert.ErrorContains(t, err, dir)
	assert.Contains(t, say.HintOf(err), "wait")
}

func TestLockIsReleasedWhenItsHolderIsKilled(t *testing.T) {
	dir := t.TempDir()
	holder, out := startHelper(t, "lock", dir)
	require.Equal(t, "locked", nextLine(t, out))
	kill(holder)
	unlock, err := openStore(t, dir).Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	data, err := os.ReadFile(filepath.Join(dir, homeName, "lock"))
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(os.Getpid())+"\n", string(data))
}

func TestWaitingEndsWhenTheLockIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	unlock, err := openStore(t, dir).Lock(t.Context())
	require.NoError(t, err)
	second, got := openStore(t, dir), make(chan error, 1)
	go func() {
		unlock, err := second.Lock(context.Background())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("locked twice: %v", err)
	default:
	}
	unlock()
	require.NoError(t, <-got)
}

func TestAHolderThatHasNotSignedIsNotNamed(t *testing.T) {
	dir := t.TempDir()
	unlock, err := openStore(t, dir).Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	writeFile(t, filepath.Join(dir, homeName, "lock"), []byte("\x1b[31mjunk"), 0o600)
	_, err = openStore(t, dir).Lock(ended(t))
	require.ErrorIs(t, err, ErrLocked)
	assert.ErrorContains(t, err, "(pid unknown)")
}

func TestTwoDeploysAtOnceBothSucceed(t *testing.T) {
	dir := t.TempDir()
	a, b := aged(t, 2*time.Hour), aged(t, time.Hour)
	stores, rules, results := []*Store{openStore(t, dir), openStore(t, dir)}, trusted(t), make(chan error, 2)
	for i, bundle := range []*Bundle{a, b} {
		go func() {
			_, err := Deploy(context.Background(), bundle, stores[i], nil, Options{Rules: rules})
			results <- err
		}()
	}
	require.NoError(t, <-results)
	require.NoError(t, <-results)
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir), "the newer one, in either order")
}
