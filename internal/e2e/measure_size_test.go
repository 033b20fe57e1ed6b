//go:build measure

package e2e

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

const mebi = 1 << 20

// measureSize measures what the programs weigh, and what it costs to start them.
func measureSize(t *testing.T, r *report) {
	sizes := map[string]string{
		"mailu-hook": program(t, binary), "lego": program(t, legoCommand()), "certbot": certbotPackages(),
	}
	tab := newTable(6, "Size and start", "`mailu-hook version`, `lego --version`, `certbot --version`.",
		"", "installed size", "start, wall, ms", "over mailu-hook's", "CPU, ms", "peak memory, MiB")
	all := alternate(t, r.rounds,
		rival{name: "mailu-hook", argv: []string{binary, "version"}},
		rival{name: "lego", argv: []string{legoCommand(), "--version"}},
		rival{name: "certbot", argv: []string{"certbot", "--version"}})
	for _, f := range all {
		tab.row(f.name, sizes[f.name], f.wall, f.wall.over(all[0].wall), f.cpu, f.peak)
	}
	r.add(tab)
	measureParts(t, r)
}

// parts are the features of the program, by the packages that only they need. The
// first that fits counts.
var parts = []struct {
	name     string
	prefixes []string
}{
	{"mailu-hook's own code", []string{"mailu-hook/", "main."}},
	{"Docker client, with what it links", []string{"github.com/docker/", "github.com/moby/", "github.com/containerd/", "github.com/distribution/", "github.com/opencontainers/",
		"github.com/felixge/", "github.com/go-logr/", "go.opentelemetry.io/"}},
	{"renew: lego, its DNS providers and JOSE", []string{"github.com/go-acme/", "github.com/go-jose/", "github.com/cenkalti/"}},
	{"DNS messages, for DANE and dns-01", []string{"github.com/miekg/"}},
	{"watch: fsnotify", []string{"github.com/fsnotify/"}},
	{"metrics: Prometheus and protobuf", []string{"github.com/prometheus/", "google.golang.org/protobuf", "github.com/beorn7/", "github.com/munnerz/", "github.com/cespare/"}},
	{"PKCS#12", []string{"software.sslmate.com/"}},
	{"command line flags", []string{"github.com/spf13/"}},
	{"Go's extended library", []string{"golang.org/", "vendor/golang.org/"}},
	{"other modules", []string{"github.com/", "gopkg.in/", "google.golang.org/", "go.uber.org/"}},
	{"Go's standard library and runtime", []string{""}},
}

// measureParts builds the program with its symbols, and adds up the code of each
// feature. Data and the linker's tables (lines, types) are shared by all.
func measureParts(t *testing.T, r *report) {
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "mailu-hook")
	build := exec.Command("go", "build", "-trimpath", "-o", file, ".")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	symbols, err := exec.Command("go", "tool", "nm", "-size", file).Output()
	require.NoError(t, err)
	sizes, all := make([]float64, len(parts)), 0.0
	for line := range strings.Lines(string(symbols)) {
		f := strings.Fields(line) // address, size, kind, name
		if len(f) < 4 || !strings.ContainsAny(f[2], "tT") || f[3] == "runtime.text" {
			continue
		}
		size, err := strconv.ParseFloat(f[1], 64)
		require.NoError(t, err, line)
		name := strings.TrimPrefix(f[3], "type:.eq.")
		i := slices.IndexFunc(parts, func(p struct {
			name     string
			prefixes []string
		}) bool {
			return slices.ContainsFunc(p.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		})
		sizes[i], all = sizes[i]+size, all+size
	}
	shipped, err := os.Stat(binary)
	require.NoError(t, err)
	tab := newTable(6, "Size by feature", "By `go tool nm -size` of a build with symbols: machine code of the packages of a feature.", "", "MiB")
	for i, p := range parts {
		tab.row(p.name, number(sizes[i]/mebi))
	}
	tab.row("data, and tables of lines and types, of all", number(max(0, float64(shipped.Size())-all)/mebi))
	r.add(tab)
}

// program describes an executable file.
func program(t *testing.T, file string) string {
	info, err := os.Stat(file)
	require.NoError(t, err)
	f, err := elf.Open(file)
	require.NoError(t, err)
	defer f.Close()
	links, symbols := "static", "stripped"
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		links = "dynamic"
	}
	if f.Section(".symtab") != nil {
		symbols = "not stripped"
	}
	return fmt.Sprintf("%s MiB, %s, %s", number(float64(info.Size())/mebi), links, symbols)
}

// certbotPackages sums up certbot and the Python packages that it depends on,
// without the interpreter.
func certbotPackages() string {
	kib, packages := 0, 0
	names := []string{"certbot"}
	for i := 0; i < len(names); i++ {
		out, _ := exec.Command("dpkg-query", "-W", "-f", "${Installed-Size} ${Depends}", names[i]).Output()
		size, depends, _ := strings.Cut(string(out), " ")
		n, err := strconv.Atoi(size)
		if err != nil {
			continue // a virtual package, or none of Debian's
		}
		kib, packages = kib+n, packages+1
		for dependency := range strings.SplitSeq(depends, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(dependency), " ")
			if strings.HasPrefix(name, "python3-") && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return fmt.Sprintf("%s MiB, %s, without Python itself", number(float64(kib)/1024), plural(packages, "Debian package"))
}

// measureFunctions runs the benchmarks that the packages have of their own.
func measureFunctions(t *testing.T, r *report) {
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-count", strconv.Itoa(min(5, r.rounds)),
		"-p", "1", "./hook", "./reload", "./acme", "./internal/dane")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	tab := newTable(7, "Functions", "By `go test -bench . -benchmem`, "+plural(min(5, r.rounds), "run")+" each.", "", "µs", "KiB allocated", "allocations")
	var order []string
	found := map[string]*[3]sample{}
	pkg := ""
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "pkg:" {
			pkg = filepath.Base(f[1])
		}
		if len(f) != 8 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(f[0], "Benchmark"), "-") // -2: the number of processors
		name = pkg + ": " + strings.ReplaceAll(name, "_", " ")
		if found[name] == nil {
			order, found[name] = append(order, name), &[3]sample{}
		}
		for i, unit := range []float64{1000, 1024, 1} {
			v, err := strconv.ParseFloat(f[2+2*i], 64)
			require.NoError(t, err, line)
			found[name][i] = append(found[name][i], v/unit)
		}
	}
	for _, name := range order {
		tab.row(name, found[name][0], found[name][1], found[name][2])
	}
	r.add(tab)
}
