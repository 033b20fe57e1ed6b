// Command tally reads the events of `go test -json` on standard input and
// prints what people want to know of them: one line a package, all that a failed
// or skipped test said, and at the end the ten tests that took longest and
// `N passed, N failed, N skipped`. Subtests count. It fails if any test failed,
// if any was skipped, and if none ran: a suite that tests nothing must not pass
// in silence.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	ok, err := tally(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally: error:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// event is a line of `go test -json`; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // instead of Package, in build-output and build-fail
	Test       string
	Elapsed    float64
	Output     string
}

type counts struct {
	passed, failed, skipped, broken int
	took                            map[[2]string]float64 // seconds, by package and test
}

func tally(in io.Reader, out io.Writer) (ok bool, err error) {
	n := counts{took: map[[2]string]float64{}}
	said := map[[2]string][]string{}
	w := bufio.NewWriter(out)
	defer w.Flush()
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("reading test events: %w", err)
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			fmt.Fprintf(w, "%s", line) // not an event: a message of the go command
			continue
		}
		n.add(e, said, w)
		if e.Test == "" {
			w.Flush()
		}
	}
	n.slowest(w)
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped)
	return n.passed > 0 && n.failed == 0 && n.skipped == 0 && n.broken == 0, nil
}

func (n *counts) add(e event, said map[[2]string][]string, w io.Writer) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		said[key] = append(said[key], e.Output)
		return
	case "build-output":
		fmt.Fprint(w, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		n.addPackage(e, said, w)
	} else {
		n.took[key] = e.Elapsed
		n.addTest(e, said[key], w)
	}
	delete(said, key)
}

func (n *counts) addTest(e event, said []string, w io.Writer) {
	switch e.Action {
	case "pass":
		n.passed++
		return
	case "fail":
		n.failed++
	case "skip":
		n.skipped++
	}
	fmt.Fprintf(w, "--- %s %s %s\n", e.Action, e.Package, e.Test)
	fmt.Fprint(w, strings.Join(said, ""))
}

// addPackage treats a package without test files, which the go command calls
// skipped, as nothing at all. A package may fail with no failed test: it does
// not compile, it panicked, its time was up.
func (n *counts) addPackage(e event, said map[[2]string][]string, w io.Writer) {
	switch e.Action {
	case "skip":
		return
	case "fail":
		n.broken++
		for _, key := range unfinished(e.Package, said) {
			fmt.Fprint(w, strings.Join(said[key], ""))
			delete(said, key)
		}
	}
	fmt.Fprintf(w, "%-5s %-40s %6.1fs\n", e.Action, e.Package, e.Elapsed)
}

// slowest prints the tests that took longest. A test with subtests is left out: they
// are its time, and while they run in parallel go test does not count it.
func (n *counts) slowest(w io.Writer) {
	const most = 10
	var keys [][2]string
	parents := map[[2]string]bool{}
	for key := range n.took {
		for name := key[1]; strings.Contains(name, "/"); {
			name = name[:strings.LastIndexByte(name, '/')]
			parents[[2]string{key[0], name}] = true
		}
	}
	for key, took := range n.took {
		if !parents[key] && took >= 1 {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(n.took[b], n.took[a]), strings.Compare(a[1], b[1]))
	})
	for i, key := range keys[:min(len(keys), most)] {
		if i == 0 {
			fmt.Fprintln(w, "slowest:")
		}
		fmt.Fprintf(w, "  %6.1fs %s %s\n", n.took[key], key[0], key[1])
	}
}

// unfinished returns the tests of a failed package whose output was not
// printed yet: those that were running when it was killed, and the package.
func unfinished(pkg string, said map[[2]string][]string) [][2]string {
	var keys [][2]string
	for key := range said {
		if key[0] == pkg {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(b[1], a[1]) })
	return keys
}
