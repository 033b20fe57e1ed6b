package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// page prints the demo as something to read: at most 80 columns, and paths
// by their short names.
type page struct {
	out    io.Writer
	short  []string // pairs for strings.NewReplacer
	quoted string   // the last quote, whole
	blank  bool     // whether an empty line came last
}

const width = 80

// shorten makes the page print name in place of path.
func (p *page) shorten(path, name string) { p.short = append(p.short, path, name) }

func (p *page) title(s string) {
	p.gap()
	fmt.Fprintf(p.out, "%s\n%s\n", s, strings.Repeat("-", utf8.RuneCountInString(s)))
	p.blank = false
}

// gap prints an empty line, but never two.
func (p *page) gap() {
	if !p.blank {
		fmt.Fprintln(p.out)
	}
	p.blank = true
}

func (p *page) text(s string) { p.print("    ", "        ", s) }

func (p *page) command(s string) { p.print("    $ ", "        ", s) }

// quote prints what another program said.
func (p *page) quote(s string) {
	p.quoted = s
	for line := range strings.Lines(strings.TrimRight(s, "\n")) {
		p.print("    | ", "    |   ", strings.TrimRight(line, "\n"))
	}
}

// claim prints what was found to hold; what does not is an error.
func (p *page) claim(s string, err error) error {
	if err != nil {
		return fmt.Errorf("claimed, but not so: %s: %w", s, err)
	}
	p.print("    ok: ", "        ", s)
	return nil
}

// said reports whether the last quote contains a text.
func (p *page) said(text string) error {
	if !strings.Contains(p.quoted, text) {
		return fmt.Errorf("nothing says %q", text)
	}
	return nil
}

// print wraps a line between words where it can.
func (p *page) print(first, next, s string) {
	p.blank = false
	s = strings.NewReplacer(p.short...).Replace(s)
	indent := first
	for {
		room := width - utf8.RuneCountInString(indent)
		line, rest := wrap(s, room)
		fmt.Fprintln(p.out, indent+line)
		if rest == "" {
			return
		}
		indent, s = next, rest
	}
}

func wrap(s string, room int) (line, rest string) {
	runes := []rune(s)
	if len(runes) <= room {
		return s, ""
	}
	line = string(runes[:room+1])
	if i := strings.LastIndexByte(line, ' '); i > 0 && strings.TrimSpace(line[:i]) != "" {
		return line[:i], strings.TrimLeft(s[i:], " ")
	}
	return string(runes[:room]), string(runes[room:])
}

var protocols = map[int]string{
	25: "SMTP, STARTTLS", 110: "POP3, STLS", 143: "IMAP, STARTTLS", 443: "HTTPS", 465: "SMTPS",
	587: "submission, STARTTLS", 993: "IMAPS", 995: "POP3S", 4190: "ManageSieve, STARTTLS",
}

// table prints, for each port, which certificate it serves.
func (p *page) table(when string, shown leaves) {
	p.gap()
	fmt.Fprintf(p.out, "    %-6s  %4s  %-21s  %-12s  %s\n", when, "port", "protocol", "leaf sha256", "not after")
	for _, port := range slices.Sorted(maps.Keys(shown)) {
		leaf := shown[port]
		fmt.Fprintf(p.out, "    %-6s  %4d  %-21s  %-12s  %s\n", "", port, protocols[port],
			digest(leaf)[:12], leaf.NotAfter.UTC().Format(time.DateTime))
	}
	p.blank = false
	p.gap()
}
