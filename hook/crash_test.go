package hook

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func crash(t *testing.T, s *scene, at Step) {
	t.Helper()
	s.crashAt = at
	_, _ = s.deploy(t, s.new)
	s.crashAt = ""
}

func TestWhatACrashLeavesIsRememberedAndFinished(t *testing.T) {
	for step, installed := range map[Step]bool{StepSwitch: false, StepReload: true, StepVerify: true, StepSettle: true} {
		t.Run(string(step), func(t *testing.T) {
			s := newScene(t)
			crash(t, s, step)
			want := s.old
			if installed {
				want = s.new
			}
			assert.Equal(t, want.Fingerprint(), onDisk(t, s.dir))
			state := remembered(t, s.dir)
			require.NotNil(t, state.Pending, "noted before the switch")
			assert.Equal(t, s.new.Fingerprint(), state.Pending.Leaf)
			assert.Equal(t, s.new.Lineage, state.Pending.Lineage)
			assert.Contains(t, state.Pending.Reason, "did not finish")
			assert.Equal(t, s.new.Lineage, state.Lineages[0].Lineage)

			_, err := s.deploy(t, s.new)
			require.NoError(t, err)
			assert.Equal(t, s.all(s.new), s.shown())
			assert.Nil(t, remembered(t, s.dir).Pending)
		})
	}
}

func TestACrashBeforeStagingLeavesNothing(t *testing.T) {
	for _, step := range []Step{StepLook, StepValidate, StepStage} {
		s := newScene(t)
		before := snapshot(t, s.dir)
		crash(t, s, step)
		assert.Equal(t, before, snapshot(t, s.dir))
	}
}

func TestACrashDuringRollbackIsFinished(t *testing.T) {
	s := newScene(t)
	s.f.refuses = s.new.Fingerprint()
	crash(t, s, StepRollback)
	assert.Equal(t, s.new.Fingerprint(), onDisk(t, s.dir))
	assert.NotNil(t, remembered(t, s.dir).Pending)
}

func TestKillNineAtAnyMomentLeavesAMatchingPair(t *testing.T) {
	certbot := t.TempDir()
	var lives []string
	for n, name := range []string{"a.example.com", "b.example.com"} {
		live, err := issue(t, mint.Leaf{NotBefore: time.Now().Add(-time.Duration(2+n) * time.Hour)}).WriteLineage(certbot, name, 1)
		require.NoError(t, err)
		lives = append(lives, live)
	}
	last := aged(t, time.Hour)
	for steps := 1; steps <= 24; steps += 2 { // the helper goes on while the signal is on its way
		dir := t.TempDir()
		writePair(t, dir, aged(t, 3*time.Hour))
		helper, out := startHelper(t, "deploy", dir, lives[0], lives[1])
		for range steps {
			nextLine(t, out)
		}
		kill(helper)
		onDisk(t, dir) // is a pair that a server can load

		r := install(t, dir, last)
		assert.Equal(t, last.Fingerprint(), onDisk(t, dir))
		assert.Empty(t, r.Warnings)
		left, err := filepath.Glob(filepath.Join(dir, homeName, "tmp-*"))
		require.NoError(t, err)
		assert.Empty(t, left)
		assert.Nil(t, remembered(t, dir).Pending)
	}
}
