//go:build measure

package e2e

import (
	"cmp"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// report collects the tables of the parts, which end in no order.
type report struct {
	mu     sync.Mutex
	rounds int
	tables []*table
}

func (r *report) add(t *table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tables = append(r.tables, t)
}

// TestMeasure measures mailu-hook beside what people use, and writes a report to
// BENCH_FILE, else to its own log. Run it by make bench, with -parallel 1 and on
// an idle machine. BENCH_ROUNDS sets the number of rounds; a part is chosen by
// -run TestMeasure/renew. It asserts that each competitor did its work, and
// nothing about time.
func TestMeasure(t *testing.T) {
	rig.Need(t, rig.NeedDocker, rig.NeedImage, rig.NeedPebble, rig.NeedCertbot)
	r := &report{rounds: 15}
	if set := os.Getenv("BENCH_ROUNDS"); set != "" {
		var err error
		r.rounds, err = strconv.Atoi(set)
		require.NoError(t, err)
		require.Positive(t, r.rounds)
	}
	load := said("cat", "/proc/loadavg")
	t.Cleanup(func() { // the parts have ended only now
		if !t.Failed() {
			r.write(t, load)
		}
	})
	for name, part := range map[string]func(*testing.T, *report){
		"served": measureServed, "watch": measureWatch, "nothing": measureNothing, "renew": measureRenew,
		"growth": measureGrowth, "fronts": measureFronts, "size": measureSize, "functions": measureFunctions,
	} {
		t.Run(name, func(t *testing.T) { part(t, r) })
	}
}

func (r *report) write(t *testing.T, load string) {
	slices.SortFunc(r.tables, func(a, b *table) int { return cmp.Compare(a.place, b.place) })
	var s strings.Builder
	fmt.Fprintf(&s, `# Benchmarks

Written by `+"`make bench`"+` on %s. Each figure is a median of %d rounds with minimum and
maximum in parentheses, unless its table says otherwise. In each round every
competitor runs once, one after the other; a ratio is the median of the ratios
round by round.

`, time.Now().UTC().Format(time.DateOnly), r.rounds)
	for _, line := range machine() {
		fmt.Fprintf(&s, "- %s\n", line)
	}
	fmt.Fprintf(&s, "- Load at the start: %s\n\n", load)
	for _, table := range r.tables {
		fmt.Fprintln(&s, table)
	}
	text := strings.TrimSpace(s.String()) + "\n"
	file := os.Getenv("BENCH_FILE")
	if file == "" {
		t.Log(text)
		return
	}
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// machine is what the figures were measured on.
func machine() []string {
	in := func(argv ...string) string {
		return said(slices.Concat([]string{"docker", "run", "--rm", "--pull", "never", "--entrypoint", argv[0], rig.FrontImage()}, argv[1:])...)
	}
	return []string{
		fmt.Sprintf("%d × %s, %s memory", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal")),
		fmt.Sprintf("Linux %s, Docker %s, %s", said("uname", "-r"), said("docker", "version", "--format", "{{.Server.Version}}"), runtime.Version()),
		fmt.Sprintf("front %s: %s, dovecot %s", rig.FrontImage(), in("nginx", "-v"), in("dovecot", "--version")),
		fmt.Sprintf("%s, %s, Pebble %s", said("certbot", "--version"), said(legoCommand(), "--version"), pebbleVersion()),
		said(binary, "version") + ", commit " + said("git", "describe", "--always", "--dirty"),
	}
}

// field is what follows a name and a colon in a file.
func field(file, name string) string {
	data, _ := os.ReadFile(file) // what is not there is unknown
	if found := regexp.MustCompile(`(?m)^` + name + `\s*:\s*(.*)$`).FindSubmatch(data); found != nil {
		return string(found[1])
	}
	return "unknown"
}

func cached(program string) string {
	root, err := rig.RepositoryRoot()
	if err != nil {
		return program
	}
	return filepath.Join(root, ".cache", "bin", program)
}

func legoCommand() string { return cached("lego") }

func pebbleVersion() string {
	info, err := buildinfo.ReadFile(cached("pebble"))
	if err != nil {
		return "unknown"
	}
	return info.Main.Version
}
