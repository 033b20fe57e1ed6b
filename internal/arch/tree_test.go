// Package arch holds the tree to what ARCHITECTURE.md says of it: which package
// may import which, who may import a third-party module, who may print, and that
// every name in the document exists. It holds nothing but tests, and reads
// source instead of running it.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root   = "../.."
	module = "mailu-hook"
)

// source is one Go file.
type source struct {
	name string // within its package
	*ast.File
}

// pkg is a package of the module by the path of its directory, "." for main.
type pkg struct {
	path  string
	files []source // without tests, on every system and with every build tag
}

// imports are what a file imports, our own packages without the module's path.
func (s source) imports() []string {
	var all []string
	for _, spec := range s.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		all = append(all, strings.TrimPrefix(path, module+"/"))
	}
	return all
}

func (p pkg) imports() []string {
	var all []string
	for _, f := range p.files {
		all = append(all, f.imports()...)
	}
	return all
}

var parsed = sync.OnceValues(func() (map[string]pkg, error) {
	all := map[string]pkg{}
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); d.IsDir() && (base == "testdata" || len(base) > 2 && base[0] == '.') {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		path, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		p := all[path]
		p.path = path
		if !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			p.files = append(p.files, source{filepath.Base(name), file})
		}
		all[path] = p
		return nil
	})
	return all, err
})

// tree is every package of the module.
func tree(t *testing.T) map[string]pkg {
	t.Helper()
	all, err := parsed()
	require.NoError(t, err)
	require.Contains(t, all, ".")
	return all
}

// document is a file of the repository.
func document(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(data)
}
