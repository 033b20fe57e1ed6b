package hook

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
)

// newPairOfFronts is a scene with two fronts: port 443 is that of "b", the others are of
// "a".
func newPairOfFronts(t *testing.T) *scene {
	s := newScene(t)
	for _, p := range s.f.ports {
		p.Of = "a"
	}
	s.port(443).Of = "b"
	return s
}

func TestOneOfSeveralFrontsThatStoppedIsNoRefusal(t *testing.T) {
	s := newPairOfFronts(t)
	s.f.down = "b"
	s.port(443).follows = keeps("")
	r, err := s.deploy(t, s.new)
	assertPending(t, s, r, err)
	assert.ErrorContains(t, err, "b: the front stopped running during the deploy")
}

func TestOneOfSeveralFrontsThatAnswersWronglyIsARefusalWhateverBecameOfTheOthers(t *testing.T) {
	s := newPairOfFronts(t)
	s.f.down = "b"
	s.port(443).follows = keeps("")
	old := s.port(993).shows
	s.port(993).follows = keeps(old)
	_, err := s.deploy(t, s.new)
	require.Error(t, err)
	assert.Equal(t, s.old.Fingerprint(), onDisk(t, s.dir))
}

func TestAFrontThatAnswersHasNotStoppedWhateverTheEngineSays(t *testing.T) {
	s := newPairOfFronts(t)
	s.f.down = "a"
	s.port(993).follows = keeps(s.port(993).shows)
	_, err := s.deploy(t, s.new)
	require.ErrorIs(t, err, ErrRolledBack)
	assert.Equal(t, s.old.Fingerprint(), onDisk(t, s.dir))
}

func TestOneOfSeveralFrontsThatIsStartingIsWaitedFor(t *testing.T) {
	s := newPairOfFronts(t)
	s.port(443).shows = "" // and shows the new one once it has started
	r, err := s.deploy(t, s.new)
	require.NoError(t, err)
	for _, e := range r.Endpoints {
		assert.Equal(t, s.new.Fingerprint(), e.Leaf, "%v", e.Port)
	}

	s.port(443).shows, s.port(443).follows = "", keeps("")
	again, err := s.deploy(t, s.new)
	require.Error(t, err, "installed, and served by one of two, is not served")
	assert.NotEqual(t, OutcomeUnchanged, again.Outcome)
}

func TestOneOfSeveralFrontsThatCannotBeAskedLeavesTheDeployPending(t *testing.T) {
	s := newScene(t)
	s.o.Unasked = errors.New("the front b is paused")
	for range 2 { // also when there is nothing to do for the other
		r, err := s.deploy(t, s.new)
		assertPending(t, s, r, err)
		require.ErrorIs(t, err, s.o.Unasked)
		assert.True(t, mailu.AnyAnswers(r.Endpoints))
		for _, e := range r.Endpoints {
			assert.Equal(t, s.new.Fingerprint(), e.Leaf)
		}
	}
}
