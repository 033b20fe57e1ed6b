package arch

import (
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// arrows lead from each file of a package to the files that declare what it
// names: to its functions, types, variables and constants, and from a method to
// its type.
func arrows(p pkg) map[string]map[string]bool {
	home := map[string]string{}
	for _, f := range p.files {
		for _, name := range declared(f) {
			home[name] = f.name
		}
	}
	all := map[string]map[string]bool{}
	for _, f := range p.files {
		all[f.name] = map[string]bool{}
		for _, ident := range f.Unresolved { // within the file
			if to := home[ident.Name]; to != "" && to != f.name {
				all[f.name][to] = true
			}
		}
	}
	return all
}

// declared are the names that a file adds to its package.
func declared(f source) []string {
	var names []string
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				names = append(names, decl.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// circle is a way along arrows that ends where it began; nil if there is none.
func circle(all map[string]map[string]bool) []string {
	const open, done = 1, 2
	state := map[string]int{}
	var visit func(way []string, at string) []string
	visit = func(way []string, at string) []string {
		way = append(way, at)
		state[at] = open
		for _, to := range slices.Sorted(maps.Keys(all[at])) {
			if state[to] == open {
				return append(way[slices.Index(way, to):], to)
			}
			if state[to] == done {
				continue
			}
			if found := visit(way, to); found != nil {
				return found
			}
		}
		state[at] = done
		return nil
	}
	for _, from := range slices.Sorted(maps.Keys(all)) {
		if state[from] != done {
			if found := visit(nil, from); found != nil {
				return found
			}
		}
	}
	return nil
}

func TestFilesOfTheCommandLineNameOneAnotherInOneDirection(t *testing.T) {
	assert.Empty(t, strings.Join(circle(arrows(tree(t)["internal/cli"])), " -> "))
}

// A command is a file that nobody but the list of commands knows.
func TestCommandsKnowTheFrameAndNotOneAnother(t *testing.T) {
	p := tree(t)["internal/cli"]
	var commands []string
	for _, f := range p.files {
		if slices.ContainsFunc(declared(f), func(name string) bool { return strings.HasSuffix(name, "Command") }) {
			commands = append(commands, f.name)
		}
	}
	require.Greater(t, len(commands), 9)
	for from, to := range arrows(p) {
		for file := range to {
			assert.False(t, from != "cli.go" && slices.Contains(commands, file), "%s names what %s declares", from, file)
		}
	}
}
