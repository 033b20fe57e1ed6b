package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTallyPassesOnlyWhatAllPassed(t *testing.T) {
	const pass = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
	for name, c := range map[string]struct {
		in   string
		ok   bool
		want []string
	}{
		"all passed": {pass + `{"Action":"pass","Package":"p","Elapsed":1.5}`, true,
			[]string{"pass  p ", "1.5s\n", "1 passed, 0 failed, 0 skipped\n"}},
		"one skipped": {pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"needs docker\n"}
			{"Action":"skip","Package":"p","Test":"TestB"}`, false,
			[]string{"--- skip p TestB\nneeds docker\n", "1 passed, 0 failed, 1 skipped\n"}},
		"one failed": {pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"not equal\n"}
			{"Action":"fail","Package":"p","Test":"TestB"}`, false,
			[]string{"--- fail p TestB\nnot equal\n", "1 passed, 1 failed, 0 skipped\n"}},
		"does not compile": {pass + `{"ImportPath":"q","Action":"build-output","Output":"undefined: x\n"}
			{"Action":"fail","Package":"q"}`, false, []string{"undefined: x\n", "1 passed, 0 failed"}},
		"killed while running": {pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"panic: timed out\n"}
			{"Action":"fail","Package":"p"}`, false, []string{"panic: timed out\n"}},
		"package without tests": {pass + `{"Action":"skip","Package":"q"}`, true, []string{"1 passed, 0 failed, 0 skipped\n"}},
		"nothing":               {"", false, []string{"0 passed, 0 failed, 0 skipped\n"}},
		"the go command speaks": {pass + "go: downloading x", true, []string{"go: downloading x"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			ok, err := tally(strings.NewReader(c.in+"\n"), &out)
			require.NoError(t, err)
			assert.Equal(t, c.ok, ok)
			for _, want := range c.want {
				assert.Contains(t, out.String(), want)
			}
		})
	}
}

func TestPassingTestsAreSilent(t *testing.T) {
	var out strings.Builder
	_, err := tally(strings.NewReader(`{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
`), &out)
	require.NoError(t, err)
	assert.Equal(t, "1 passed, 0 failed, 0 skipped\n", out.String())
}

func TestTenSlowestTestsAreNamedAndParentsAreNot(t *testing.T) {
	var in, out strings.Builder
	for i := range 14 {
		fmt.Fprintf(&in, `{"Action":"pass","Package":"p","Test":"TestA/%c","Elapsed":%d}`+"\n", 'a'+i, i)
	}
	fmt.Fprintln(&in, `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":99}`)
	_, err := tally(strings.NewReader(in.String()), &out)
	require.NoError(t, err)
	assert.Equal(t, 10, strings.Count(out.String(), "s p TestA/"))
	assert.Contains(t, out.String(), "slowest:\n    13.0s p TestA/n\n    12.0s p TestA/m\n")
	assert.NotContains(t, out.String(), "99.0s")
}
