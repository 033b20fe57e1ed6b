package cli

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// A host with ten Mailus and fifty lineages, as certbot renew calls the hook for each.
// What the engine is asked is counted, as that is what hosts with many sites wait for.
func TestTenMailusAndFiftyLineagesEachGoWhereTheyBelong(t *testing.T) {
	const projects, lineages = 10, 50
	w := newWorld(t)
	delete(w.env, "MAILU_HOOK_CERTS_DIR")
	var fronts []container
	for i := range projects {
		fronts = append(fronts, w.project(fmt.Sprintf("mailu%d", i), fmt.Sprintf("mail.site%d.example", i)))
	}
	asked := w.engine(fronts...)

	pairs := make([]*mint.Pair, lineages)
	lives := make([]string, lineages)
	for i := range lineages { // every fifth is of a Mailu
		name := fmt.Sprintf("www.site%d.example", i)
		if i%5 == 0 {
			name = fmt.Sprintf("mail.site%d.example", i/5)
		}
		pairs[i], lives[i] = w.issue(name, mint.Leaf{Names: []string{name}})
	}
	requests := func(i int) (took int32, r ran) {
		w.lineage = lives[i]
		before := asked.Load()
		r = w.hook()
		require.Equal(t, exitOK, r.status, r.stderr)
		return asked.Load() - before, r
	}
	for i := 0; i < lineages; i += 5 {
		requests(i)
	}
	for i := range lineages {
		took, r := requests(i)
		if i%5 == 0 {
			assert.Contains(t, r.stdout, "nothing to do", lives[i])
			assert.EqualValues(t, 1+projects+2, took, "requests for %s: a list and an inspection of each front, and of the one that it is for", lives[i])
			continue
		}
		assert.Contains(t, r.stdout, "not Mailu's", lives[i])
		assert.EqualValues(t, 1, took, "requests for %s, which belongs nowhere", lives[i])
	}
	for i, front := range fronts {
		assert.True(t, front.holds(pairs[5*i]), front.name)
	}
}
