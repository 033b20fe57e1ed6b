package report

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

// The widths of a screen, in columns.
const (
	Narrowest = 40
	Usual     = 80 // also of what is not a terminal
	Widest    = 120
)

// Screen is what people read a text on. The zero value is 80 columns wide and
// has no colors.
type Screen struct {
	Width int
	Color bool
}

// canvas is the text that is made for a screen.
type canvas struct {
	strings.Builder
	Screen
}

func text(r *Report, on Screen) string {
	on.Width = min(max(cmp.Or(on.Width, Usual), Narrowest), Widest)
	c := &canvas{Screen: on}
	r.draw(c)
	return c.String()
}

func (r *Report) draw(c *canvas) {
	if len(r.Findings) == 0 {
		c.say(health.OK, r.Summary(), "")
	}
	for _, f := range r.Findings {
		c.say(f.Severity, f.Text, f.Remedy)
	}
	for i := range r.Fronts {
		r.drawFront(c, &r.Fronts[i])
	}
}

var paints = map[health.Severity]string{health.OK: "32", health.Warning: "33", health.Critical: "31", health.Unknown: "35"}

// say writes a finding: its severity, the fact, and below it the remedy.
func (c *canvas) say(severity health.Severity, text, remedy string) {
	word := strings.ToUpper(severity.String())
	const indent = 10
	lines := wrap(text, c.Width-indent)
	lead := fmt.Sprintf("%-*s", indent, word)
	if c.Color {
		lead = "\x1b[1;" + paints[severity] + "m" + lead + "\x1b[0m"
	}
	fmt.Fprintf(c, "%s%s\n", lead, strings.Join(lines, "\n"+strings.Repeat(" ", indent)))
	if remedy != "" {
		lines = wrap(remedy, c.Width-indent-4)
		fmt.Fprintf(c, "%*sdo: %s\n", indent, "", strings.Join(lines, "\n"+strings.Repeat(" ", indent+4)))
	}
}

// wrap breaks text into lines of at most width columns, but at least 20. It breaks
// only at spaces, so that paths and commands can be copied. Text from outside the
// program is made safe to show.
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

func (r *Report) drawFront(c *canvas, f *health.Front) {
	title := cmp.Or(f.Container, "the front, as last seen")
	if f.Project != "" {
		title += " (project " + f.Project + ")"
	}
	fmt.Fprintf(c, "\n%s\n", strings.Join(wrap(say.Plain(title)+": "+condition(f), c.Width), "\n"))
	if rows := r.rows(f); len(rows) > 0 {
		c.WriteString("\n")
		c.table(rows)
	}
	c.WriteString("\n")
	for _, line := range r.details(f) {
		lines := wrap(line[1], c.Width-13)
		fmt.Fprintf(c, "%-13s%s\n", line[0], strings.Join(lines, "\n"+strings.Repeat(" ", 13)))
	}
}

// condition is the state of the container in one line.
func condition(f *health.Front) string {
	switch {
	case f.Outside && f.Asked == nil:
		return "no address"
	case f.Outside:
		return "as the world sees it"
	case f.State == "" && f.Endpoints != nil:
		return "not found; ports probed at " + strings.Join(f.Asked, " and ")
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

// details are the lines below the table: a word and what belongs to it.
func (r *Report) details(f *health.Front) (lines [][2]string) {
	add := func(word, format string, args ...any) {
		lines = append(lines, [2]string{word, fmt.Sprintf(format, args...)})
	}
	if len(f.Hostnames) > 0 && !f.Outside {
		add("names", "%s", say.Names(f.Hostnames))
	}
	for _, l := range f.Lineages {
		if len(l.Chain) > 0 {
			add("lineage", "%s", l.Path)
		}
	}
	if last := f.Memory.Last; last != nil {
		add("last deploy", "%s, %s", say.Time(last.At), last.Outcome)
	}
	if p := f.Memory.Pending; p != nil && f.Deploys(r.At) {
		add("deploying", "since %s, until %s at the latest", say.Time(p.Since), say.Time(p.Deadline))
	} else if p != nil {
		next := ""
		if !p.Next.IsZero() {
			next = ", next attempt at " + say.Time(p.Next)
		}
		add("pending", "since %s%s", say.Time(p.Since), next)
	}
	if held := first(f.Memory.RolledBackFrom); held != "" {
		add("held back", "%.8s, because it was rolled back by hand", held)
	}
	if r, ok := f.Renewal(r.Schedule); ok {
		add("next", "%s renews from %s on (%s)", r.By, say.Day(r.From), r.Timer)
	}
	for _, n := range f.Nodes {
		add("node", "%s", nodeLine(n))
	}
	for _, h := range f.DANE {
		if state := h.State(); state != tlsa.None {
			add("DANE", "%s: %s", h.Name, state)
		}
	}
	return lines
}

// nodeLine is what another host says of itself.
func nodeLine(n hook.Node) string {
	what := "has no front"
	switch {
	case n.Pending != "":
		what = "is not done: " + say.Plain(n.Pending)
	case n.Front != "":
		what = fmt.Sprintf("%s serves %.8s", say.Plain(n.Front), n.Leaf)
	}
	return fmt.Sprintf("%s at %s: %s", n.Name, say.Time(n.At), what)
}

// row is a line of the table: cells by column, or a note instead of those from the
// fourth on.
type row struct {
	cells   [9]string
	percent string // what is left, to be added to the column left
	note    string
}

const left = 5 // the column LEFT

// alignLeft adds the percentages to the column LEFT, one below the other.
func alignLeft(rows []row) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r.cells[left]))
	}
	for i, r := range rows {
		if r.percent != "" {
			rows[i].cells[left] = fmt.Sprintf("%-*s %5s", width, r.cells[left], r.percent)
		}
	}
}

// columns are the heads of the table. On a narrow screen those with the highest
// rank are dropped first; rank 0 always stays.
var columns = [len(row{}.cells)]struct {
	head string
	rank int
}{{"", 0}, {"DAEMON", 3}, {"SHOWS", 0}, {"LEAF", 2}, {"EXPIRES", 5}, {"LEFT", 0}, {"NAMES", 1}, {"CHAIN", 1}, {"ISSUER", 6}}

func (r *Report) rows(f *health.Front) []row {
	var rows []row
	for _, l := range f.Lineages {
		if len(l.Chain) > 0 {
			rows = append(rows, r.row(f, "lineage", "", lineageRelation(f, l), l.Chain))
		}
	}
	if f.Directory.Chain != nil {
		rows = append(rows, r.row(f, "installed", "", "", f.Directory.Chain))
	}
	for _, e := range f.Endpoints {
		rows = append(rows, r.portRow(f, e))
	}
	alignLeft(rows)
	return rows
}

func (r *Report) portRow(f *health.Front, e mailu.Endpoint) row {
	where := fmt.Sprintf("%4d %s", e.Number, e.Protocol)
	if !e.Answers() {
		return row{cells: [9]string{where, f.Daemon(e.Number), string(health.None)}, note: say.OneLine(e.Err.Error())}
	}
	return r.row(f, where, f.Daemon(e.Number), string(f.Shows(e)), e.Chain)
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

func (r *Report) row(f *health.Front, where, daemon, shows string, chain []*x509.Certificate) row {
	leaf, life := chain[0], r.LifeOf(chain)
	return row{
		cells: [9]string{where, daemon, shows, pki.Fingerprint(leaf)[:8], say.Day(life.End()), health.Left(life.Left(r.At)),
			coverage(leaf, f.Hostnames), strings.ReplaceAll(r.chainWord(chain), "_", " "), issuer(leaf)},
		percent: health.Percent(life.Fraction(r.At)),
	}
}

// table writes the rows under their heads, in as many columns as fit.
func (c *canvas) table(rows []row) {
	var widths [len(columns)]int
	for i, col := range columns {
		widths[i] = len(col.head)
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row.cells[i]))
		}
	}
	shown := fitting(widths, c.Width)
	var heads row
	for i, col := range columns {
		heads.cells[i] = col.head
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
		fmt.Fprintln(c, strings.TrimRight(cut(line, c.Width), " "))
	}
}

// fitting drops columns until the rest is no wider than width.
func fitting(widths [len(columns)]int, width int) []int {
	for rank := 6; ; rank-- {
		var shown []int
		total := -2
		for i, col := range columns {
			if col.rank <= rank {
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

func issuer(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if name == "" {
		name = leaf.Issuer.String()
	}
	name = say.Plain(name)
	if runes := []rune(name); len(runes) > 24 {
		name = string(runes[:23]) + "…"
	}
	return name
}
