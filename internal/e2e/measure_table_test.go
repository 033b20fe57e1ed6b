//go:build measure

package e2e

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// sample is one quantity, measured once a round.
type sample []float64

func (s sample) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// String is the median, with minimum and maximum beside it.
func (s sample) String() string {
	if len(s) == 0 {
		return "—"
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median()), number(slices.Min(s)), number(slices.Max(s)))
}

// over is how s compares with other, round by round: what both met in a round
// cancels out.
func (s sample) over(other sample) sample {
	ratios := make(sample, len(s))
	for i := range s {
		ratios[i] = s[i] / other[i]
	}
	return ratios
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// growth tells how a cost grows with the sizes that it was measured at: the
// steepest slope between two neighbours on paper that is logarithmic in both
// directions, where 1 is linear. It is not the slope over all sizes, because a
// constant part hides the growth among the small ones; and it is that of the
// minima, which what else the machine does touches least.
func growth(sizes []int, costs []sample) string {
	steepest := math.Inf(-1)
	for i := 1; i < len(sizes); i++ {
		rise := math.Log(slices.Min(costs[i]) / slices.Min(costs[i-1]))
		steepest = max(steepest, rise/math.Log(float64(sizes[i])/float64(sizes[i-1])))
	}
	order := "worse than linear: a bug"
	switch {
	case steepest < 0.1:
		order = "none"
	case steepest < 0.9:
		order = "less than linear"
	case steepest < 1.2: // what is n log n looks like it, and is no worry
		order = "linear"
	}
	return fmt.Sprintf("%.2f, %s", steepest, order)
}

// table is a heading, a note, and a table in Markdown.
type table struct {
	place       int // in the report, from 1
	title, note string
	rows        []string
}

func newTable(place int, title, note string, head ...string) *table {
	t := &table{place: place, title: title, note: note}
	cells := make([]any, len(head))
	for i, h := range head {
		cells[i] = h
	}
	t.row(cells...)
	t.rows = append(t.rows, "|---"+strings.Repeat("|--:", len(head)-1)+"|\n")
	return t
}

func (t *table) row(cells ...any) {
	row := "|"
	for _, cell := range cells {
		row += fmt.Sprintf(" %v |", cell)
	}
	t.rows = append(t.rows, row+"\n")
}

func (t *table) String() string {
	return fmt.Sprintf("## %s\n\n%s\n\n%s\n", t.title, t.note, strings.Join(t.rows, ""))
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
