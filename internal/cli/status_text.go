package cli

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

const (
	narrowest = 40
	usual     = 80 // also of what is not a terminal
	widest    = 120
)

// screen is text of a width, with colours or without.
type screen struct {
	strings.Builder
	width  int
	colour bool
}

func (s *status) text() string {
	terminal := isTerminal(s.c.stdout)
	sc := &screen{width: usual, colour: terminal && s.c.env("NO_COLOR") == "" && s.c.env("TERM") != "dumb"}
	if terminal {
		sc.width = min(max(terminalWidth(s.c.stdout), narrowest), widest)
	}
	s.draw(sc)
	return sc.String()
}

func (s *status) draw(sc *screen) {
	if len(s.findings) == 0 {
		sc.say(health.OK, s.summary(), "")
	}
	for _, f := range s.findings {
		sc.say(f.Severity, f.Text, f.Remedy)
	}
	for i := range s.look.Fronts {
		s.drawFront(sc, &s.look.Fronts[i])
	}
}

var paints = map[health.Severity]string{health.OK: "32", health.Warning: "33", health.Critical: "31", health.Unknown: "35"}

// say writes a finding: its severity, the fact, and below it the remedy.
func (sc *screen) say(severity health.Severity, text, remedy string) {
	word := strings.ToUpper(severity.String())
	const indent = 10
	lines := wrap(text, sc.width-indent)
	lead := fmt.Sprintf("%-*s", indent, word)
	if sc.colour {
		lead = "\x1b[1;" + paints[severity] + "m" + lead + "\x1b[0m"
	}
	fmt.Fprintf(sc, "%s%s\n", lead, strings.Join(lines, "\n"+strings.Repeat(" ", indent)))
	if remedy != "" {
		lines = wrap(remedy, sc.width-indent-4)
		fmt.Fprintf(sc, "%*sdo: %s\n", indent, "", strings.Join(lines, "\n"+strings.Repeat(" ", indent+4)))
	}
}

// wrap breaks text at blanks, and only there, as paths and commands are to be
// copied, into lines of at most width, and of 20 at least. What comes from
// elsewhere is made harmless on the way.
func wrap(text string, width int) []string {
	width = max(width, 20)
	var lines []string
	line := ""
	for _, word := range strings.Fields(say.OneLine(text)) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func (s *status) drawFront(sc *screen, f *health.Front) {
	title := firstNonEmpty(f.Container, "the front, as it is remembered")
	if f.Project != "" {
		title += " (project " + f.Project + ")"
	}
	fmt.Fprintf(sc, "\n%s\n", strings.Join(wrap(say.Plain(title)+": "+condition(f), sc.width), "\n"))
	if rows := s.rows(f); len(rows) > 0 {
		sc.WriteString("\n")
		sc.table(rows)
	}
	sc.WriteString("\n")
	for _, line := range s.details(f) {
		lines := wrap(line[1], sc.width-13)
		fmt.Fprintf(sc, "%-13s%s\n", line[0], strings.Join(lines, "\n"+strings.Repeat(" ", 13)))
	}
}

// condition is how the container is, in one line.
func condition(f *health.Front) string {
	switch {
	case f.State == "" && f.Endpoints != nil:
		return "not found; ports asked at " + strings.Join(f.Asked, " and ")
	case f.State == "":
		return "not found"
	}
	parts := []string{f.State}
	if f.Health != "" && f.Runs() {
		parts = append(parts, f.Health)
	}
	if f.Inside == nil {
		return strings.Join(parts, ", ")
	}
	pids := "pid files intact"
	for _, d := range f.Inside.Daemons {
		if d.Runs && d.Pid != mailu.PidIntact {
			pids = "pid files " + string(d.Pid)
		}
	}
	parts = append(parts, pids)
	if f.Inside.Configuring {
		parts = append(parts, "writing its configuration")
	}
	return strings.Join(parts, ", ")
}

// details are the lines below the table: a word and what there is to say of it.
func (s *status) details(f *health.Front) (lines [][2]string) {
	add := func(word, format string, args ...any) {
		lines = append(lines, [2]string{word, fmt.Sprintf(format, args...)})
	}
	if len(f.Hostnames) > 0 {
		add("names", "%s", quoteList(f.Hostnames))
	}
	for _, l := range f.Lineages {
		if len(l.Chain) > 0 {
			add("lineage", "%s", l.Path)
		}
	}
	if last := f.Memory.Last; last != nil {
		add("last deploy", "%s, %s", moment(last.At), last.Outcome)
	}
	if p := f.Memory.Pending; p != nil {
		next := ""
		if !p.Next.IsZero() {
			next = ", next attempt at " + moment(p.Next)
		}
		add("pending", "since %s%s", moment(p.Since), next)
	}
	if f.Memory.RolledBackFrom != "" {
		add("held back", "%.8s, which a person rolled back from", f.Memory.RolledBackFrom)
	}
	if r, ok := f.Renewal(s.look.Schedule); ok {
		add("next", "%s renews from %s on (%s)", r.By, date(r.From), r.Timer)
	}
	for _, d := range f.DANE {
		add("DANE", "%s: %s", d.Host, d.Verdict)
	}
	return lines
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// row is a line of the table: cells by column, or a note in place of those from
// the fourth on.
type row struct {
	cells [9]string
	note  string
}

// columns are the heads of the table. Those with a rank go when the screen is
// too narrow, the highest first.
var columns = [len(row{}.cells)]struct {
	head string
	rank int
}{{"", 0}, {"DAEMON", 3}, {"SHOWS", 0}, {"LEAF", 2}, {"EXPIRES", 5}, {"LEFT", 0}, {"NAMES", 1}, {"CHAIN", 1}, {"ISSUER", 6}}

func (s *status) rows(f *health.Front) []row {
	var rows []row
	for _, l := range f.Lineages {
		if len(l.Chain) > 0 {
			rows = append(rows, s.row(f, "lineage", "", lineageRelation(f, l), l.Chain))
		}
	}
	if f.Directory.Chain != nil {
		rows = append(rows, s.row(f, "installed", "", "", f.Directory.Chain))
	}
	for _, e := range f.Endpoints {
		rows = append(rows, s.portRow(f, e))
	}
	return rows
}

func (s *status) portRow(f *health.Front, e mailu.Endpoint) row {
	where := fmt.Sprintf("%4d %s", e.Number, e.Protocol)
	if !e.Answers() {
		return row{cells: [9]string{where, f.Daemon(e.Number), string(health.None)}, note: say.OneLine(e.Err.Error())}
	}
	return s.row(f, where, f.Daemon(e.Number), string(f.Shows(e)), e.Chain)
}

func lineageRelation(f *health.Front, l health.Lineage) string {
	switch installed := health.Leaf(f.Directory.Chain); {
	case installed == nil:
		return string(health.Uncompared)
	case l.Chain[0].Equal(installed):
		return string(health.Same)
	case l.Chain[0].NotBefore.After(installed.NotBefore):
		return "newer"
	}
	return string(health.Older)
}

func (s *status) row(f *health.Front, where, daemon, shows string, chain []*x509.Certificate) row {
	leaf := chain[0]
	left := health.Left(leaf.NotAfter.Sub(s.look.At))
	return row{cells: [9]string{where, daemon, shows, pki.Fingerprint(leaf)[:8], date(leaf.NotAfter),
		fmt.Sprintf("%-8s%5s", left, health.Percent(health.FractionLeft(leaf, s.look.At))),
		coverage(leaf, f.Hostnames), strings.ReplaceAll(chainWord(s.look, chain), "_", " "), issuer(leaf)}}
}

// table writes the rows under their heads, in as many columns as fit.
func (sc *screen) table(rows []row) {
	var widths [len(columns)]int
	for i, c := range columns {
		widths[i] = len(c.head)
		for _, r := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r.cells[i]))
		}
	}
	shown := fitting(widths, sc.width)
	var heads row
	for i, c := range columns {
		heads.cells[i] = c.head
	}
	for _, r := range slices.Insert(rows, 0, heads) {
		line := ""
		for _, i := range shown {
			if r.note != "" && i > 2 {
				line += r.note
				break
			}
			line += fmt.Sprintf("%-*s  ", widths[i], r.cells[i])
		}
		fmt.Fprintln(sc, strings.TrimRight(cut(line, sc.width), " "))
	}
}

// fitting drops columns until the rest is no wider than width.
func fitting(widths [len(columns)]int, width int) []int {
	for rank := 6; ; rank-- {
		var shown []int
		total := -2
		for i, c := range columns {
			if c.rank <= rank {
				shown, total = append(shown, i), total+widths[i]+2
			}
		}
		if total <= width || rank == 0 {
			return shown
		}
	}
}

func cut(line string, width int) string {
	if runes := []rune(strings.TrimRight(line, " ")); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return line
}
