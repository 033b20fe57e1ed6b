package arch

import (
	"go/ast"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every name in backquotes in ARCHITECTURE.md is that of a package, a file, a
// command, or something that a package declares: hook.Deploy, hook.Store.Switch.
func TestEveryNameInARCHITECTUREExists(t *testing.T) {
	all := tree(t)
	names := map[string]bool{"main": true}
	for at, p := range all {
		names[at], names[path.Base(at)] = true, true
		for _, f := range p.files {
			for _, name := range members(f) {
				names[path.Base(at)+"."+name] = true
				if command, found := strings.CutSuffix(name, "Command"); found && at == "internal/cli" {
					names[command] = true
				}
			}
		}
	}
	found := quoted.FindAllStringSubmatch(document(t, "ARCHITECTURE.md"), -1)
	require.Greater(t, len(found), 50)
	for _, match := range found {
		name := match[1]
		if path.Ext(name) != "" && strings.Contains(name, "/") || strings.HasSuffix(name, ".go") {
			files, err := filepath.Glob(filepath.Join(root, name))
			require.NoError(t, err)
			assert.NotEmpty(t, files, "there is no file %s", name)
			continue
		}
		assert.True(t, names[name], "nothing is called %s", name)
	}
}

// members are what a file declares, methods and the fields and methods of types
// included: Deploy, Store.Switch.
func members(f source) []string {
	names := declared(f)
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv != nil {
				names = append(names, receiver(decl)+"."+decl.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				if spec, ok := spec.(*ast.TypeSpec); ok {
					for _, field := range fields(spec.Type) {
						names = append(names, spec.Name.Name+"."+field)
					}
				}
			}
		}
	}
	return names
}

func receiver(f *ast.FuncDecl) string {
	of := f.Recv.List[0].Type
	if pointer, ok := of.(*ast.StarExpr); ok {
		of = pointer.X
	}
	if name, ok := of.(*ast.Ident); ok {
		return name.Name
	}
	return "" // of a generic type
}

// fields are those of a struct, or the methods of an interface.
func fields(of ast.Expr) (names []string) {
	var list *ast.FieldList
	switch of := of.(type) {
	case *ast.StructType:
		list = of.Fields
	case *ast.InterfaceType:
		list = of.Methods
	default:
		return nil
	}
	for _, field := range list.List {
		for _, name := range field.Names {
			names = append(names, name.Name)
		}
	}
	return names
}
