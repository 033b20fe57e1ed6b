package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tests are the names of all tests of the module.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	names := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if base := d.Name(); err == nil && d.IsDir() && len(base) > 2 && base[0] == '.' {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		data, err := os.ReadFile(name)
		for _, match := range declared.FindAllSubmatch(data, -1) {
			names[string(match[1])] = true
		}
		return err
	}))
	return names
}

// Each finding has a row in docs/findings.md with at least one test, and each test
// that a row names exists.
func TestEveryFindingNamesItsTests(t *testing.T) {
	known, rows := tests(t), map[string]bool{}
	for line := range strings.Lines(document(t, "docs/findings.md")) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !regexp.MustCompile(`^ [A-Z]\d+ $`).MatchString(cells[1]) {
			continue
		}
		finding := strings.TrimSpace(cells[1])
		rows[finding] = true
		named := quoted.FindAllStringSubmatch(cells[3], -1)
		assert.NotEmpty(t, named, finding)
		for _, name := range named {
			assert.True(t, known[name[1]], "%s: there is no test %s", finding, name[1])
		}
	}
	for group, last := range map[string]int{"A": 5, "B": 9, "C": 11, "D": 17, "E": 13, "S": 13, "R": 14} {
		for n := range last {
			finding := fmt.Sprint(group, n+1)
			assert.True(t, rows[finding], "docs/findings.md has no row %s", finding)
		}
	}
}
