package arch

import (
	"go/ast"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var quoted = regexp.MustCompile("`([^`\n]+)`")

// layers are the rows of the table of packages in ARCHITECTURE.md, the top one
// first, and the rigs, which stand beside them.
func layers(t *testing.T) (rows [][]string, rigs []string) {
	t.Helper()
	_, text, found := strings.Cut(document(t, "ARCHITECTURE.md"), "\n## Packages\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		var row []string
		for _, match := range quoted.FindAllStringSubmatch(cells[1], -1) {
			row = append(row, match[1])
		}
		switch {
		case row == nil: // the head of the table
		case strings.HasPrefix(strings.TrimSpace(cells[2]), "Rigs"):
			rigs = append(rigs, row...)
		default:
			rows = append(rows, row)
		}
	}
	require.Greater(t, len(rows), 5)
	require.NotEmpty(t, rigs)
	return rows, rigs
}

func TestEveryPackageStandsInTheTableOfLayers(t *testing.T) {
	rows, rigs := layers(t)
	said := append(slices.Concat(rows...), rigs...)
	var are []string
	for path := range tree(t) {
		if path == "." {
			path = "main"
		}
		are = append(are, path)
	}
	assert.ElementsMatch(t, are, said, "ARCHITECTURE.md, Packages")
}

func TestPackagesImportOnlyWhatStandsBelowThem(t *testing.T) {
	rows, rigs := layers(t)
	level := map[string]int{}
	for n, row := range rows {
		for _, path := range row {
			level[path] = n
		}
	}
	all := tree(t)
	for path, p := range all {
		if path == "." {
			path = "main"
		}
		for _, imported := range p.imports() {
			_, ours := all[imported]
			switch {
			case !ours:
			case slices.Contains(rigs, path):
				assert.NotContains(t, level, imported, "rigs share no code with the program: %s imports %s", path, imported)
			default:
				assert.NotContains(t, rigs, imported, "%s imports a rig", path)
				assert.Greater(t, level[imported], level[path], "%s imports %s, which does not stand below it", path, imported)
			}
		}
	}
}

// The engines of the program know nothing of one another, a deploy nothing of
// CAs, and what judges and tells asks nobody.
func TestWhatAPackageMayNotKnow(t *testing.T) {
	all := tree(t)
	for path, banned := range map[string][]string{
		"hook":             {"reload", "acme", "net", "net/http", "os/exec"},
		"reload":           {"hook", "acme", "os/exec"},
		"acme":             {"hook", "reload"},
		"internal/deploy":  {"acme", "net", "net/http"},
		"internal/health":  {"reload", "acme", "context", "os", "net", "net/http", "os/exec", "internal/resolve"},
		"internal/report":  {"reload", "acme", "context", "net", "net/http", "os/exec", "internal/resolve"},
		"internal/dane":    {"context", "os", "net"},
		"internal/mailu":   {"context", "net", "net/http", "os/exec"},
		"internal/pki":     {"context", "os", "net", "net/http", "os/exec"},
		"internal/tlsa":    {"os", "net", "net/http", "os/exec"},
		"internal/renewal": {"net", "net/http"},
		"internal/survey":  {"internal/deploy", "internal/renewal"},
		"internal/resolve": {"hook", "reload", "acme", "os/exec"},
		"internal/probe":   {"hook", "reload", "acme", "os", "os/exec"},
		"internal/source":  {"hook", "reload", "acme", "net", "net/http", "os/exec"},
		"internal/webroot": {"net", "net/http", "os/exec"},
		"internal/disk":    {"net", "net/http", "os/exec"},
		"internal/say":     {"os", "net", "net/http", "os/exec"},
	} {
		require.Contains(t, all, path)
		for _, imported := range all[path].imports() {
			assert.NotContains(t, banned, imported, "%s imports %s", path, imported)
		}
	}
}

// A module that we did not write is imported in one place, so that another can
// take its place.
func TestEachModuleHasOneImporter(t *testing.T) {
	importers := map[string][]string{
		"github.com/containerd/errdefs":      {"reload"},
		"github.com/docker/docker":           {"reload"},
		"github.com/docker/go-connections":   {"reload"},
		"github.com/go-acme/lego/v4":         {"acme"},
		"github.com/fsnotify/fsnotify":       {"internal/watch"},
		"github.com/miekg/dns":               {"internal/resolve"},
		"github.com/prometheus":              {"internal/report"},
		"golang.org/x/crypto/x509roots":      {"."},
		"software.sslmate.com/src/go-pkcs12": {"internal/source"},
		"github.com/spf13/pflag":             {"internal/cli"},
		"golang.org/x/net/idna":              {"internal/mailu"},
		"golang.org/x/sys/unix":              {"internal/cli", "internal/disk", "internal/watch"}, // the terminal's width; openat and flock; systemd's clock
	}
	are := map[string]map[string]bool{}
	for path, p := range tree(t) {
		for _, imported := range p.imports() {
			if domain, _, _ := strings.Cut(imported, "/"); !strings.Contains(domain, ".") {
				continue // the standard library, or ours
			}
			of := imported
			for known := range importers {
				if strings.HasPrefix(imported+"/", known+"/") {
					of = known
				}
			}
			if are[of] == nil {
				are[of] = map[string]bool{}
			}
			are[of][path] = true
		}
	}
	for of, by := range are {
		assert.Equal(t, importers[of], slices.Sorted(maps.Keys(by)), of)
	}
	for of := range importers {
		assert.Contains(t, are, of, "nothing imports it")
	}
}

func TestOnlyTheCommandLinePrintsAndExits(t *testing.T) {
	_, rigs := layers(t)
	for path, p := range tree(t) {
		if path == "." || slices.Contains(rigs, path) {
			continue
		}
		for _, f := range p.files {
			for _, use := range printing(f) {
				if path == "internal/cli" && strings.HasPrefix(use, "fmt.Fprint") {
					continue // to the streams that main gave it
				}
				assert.Fail(t, path+"/"+f.name+" uses "+use)
			}
		}
	}
}

// printing lists what a file uses that writes to the process's own streams, or
// ends the process.
func printing(f source) []string {
	forbidden := map[string]*regexp.Regexp{
		"os":  regexp.MustCompile(`^(Exit|Stdin|Stdout|Stderr)$`),
		"fmt": regexp.MustCompile(`^Print`),
		"log": regexp.MustCompile(`^(Print|Fatal|Panic)`),
	}
	var used []string
	ast.Inspect(f.File, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if of, ok := n.X.(*ast.Ident); ok && of.Obj == nil && forbidden[of.Name] != nil && forbidden[of.Name].MatchString(n.Sel.Name) {
				used = append(used, of.Name+"."+n.Sel.Name)
			}
		case *ast.CallExpr:
			if of, ok := n.Fun.(*ast.Ident); ok && of.Obj == nil && slices.Contains([]string{"panic", "print", "println"}, of.Name) {
				used = append(used, of.Name)
			}
		}
		return true
	})
	return used
}

// Another engine is another file.
func TestOnlyTheFilesOfAnEngineKnowItsClient(t *testing.T) {
	for _, f := range tree(t)["reload"].files {
		for _, imported := range f.imports() {
			if strings.Contains(imported, "docker") {
				assert.True(t, strings.HasPrefix(f.name, "docker"), "reload/%s imports %s", f.name, imported)
			}
		}
	}
}
