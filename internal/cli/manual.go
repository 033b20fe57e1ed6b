package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// manual is the manual page of the program, in roff (man(7)), from what help says:
// the commands with the flags of their own, and then the flags that several share.
func manual(all []command, release string) string {
	m := &page{}
	fmt.Fprintf(m, ".TH MAILU\\-HOOK 8 \"\" \"mailu\\-hook %s\" \"System Administration\"\n.nh\n.ad l\n", escape(release))
	m.section("NAME")
	fmt.Fprintf(m, "mailu\\-hook \\- %s\n", escape(lowerFirst(all[0].summary)))
	m.section("SYNOPSIS")
	for _, cmd := range all {
		fmt.Fprintf(m, ".B %s\n.br\n", escape(usageLine(cmd)))
	}
	m.section("DESCRIPTION")
	m.paragraphs(all[0].about)
	shared := sharedGroups(all)
	m.flagsOf(all[0], shared)
	m.section("COMMANDS")
	for _, cmd := range all[1:] {
		m.command(cmd, shared)
	}
	for _, g := range shared {
		m.section(strings.ToUpper(g.title) + " FLAGS")
		m.flags(g.flags)
	}
	m.section("EXIT STATUS")
	m.verbatim(exitHelp)
	m.section("ENVIRONMENT")
	m.paragraphs("Each flag has a variable, for example " + prefix + "CERTS_DIR for --certs-dir. A flag takes precedence over the environment, that over the file, and that over what the front container says. DOCKER_HOST, DOCKER_CONTEXT and the like work as for the docker command.")
	m.section("FILES")
	for _, file := range [][2]string{{defaultConfig, "settings, one KEY=value a line"}, {"/mailu/certs/.mailu-hook", "what the front serves, and the generations before"}, {"/var/lib/mailu-hook", "what is remembered of deploys; accounts, certificates and schedule of renew"}} {
		fmt.Fprintf(m, ".TP\n.I %s\n%s\n", escape(file[0]), escape(file[1]))
	}
	m.section("EXAMPLES")
	m.verbatim(all[0].examples)
	m.section("SEE ALSO")
	m.WriteString(".BR certbot (1),\n.BR docker (1),\n.BR systemd.timer (5)\n")
	return m.String()
}

// page is a manual page that is being written.
type page struct{ strings.Builder }

func (m *page) section(title string) { fmt.Fprintf(m, ".SH %s\n", escape(title)) }

func (m *page) command(cmd command, shared []group) {
	fmt.Fprintf(m, ".SS %s\n", escape(strings.TrimPrefix(usageLine(cmd), "mailu-hook ")))
	m.paragraphs(cmd.summary + ".")
	m.paragraphs(cmd.about)
	m.flagsOf(cmd, shared)
	if cmd.exits != "" {
		m.WriteString(".PP\nExit status:\n")
		m.verbatim(cmd.exits)
	}
	if cmd.examples != "" {
		m.WriteString(".PP\nExamples:\n")
		m.verbatim(cmd.examples)
	}
}

// flagsOf explains the flags of a command's own, and names the groups of the others.
func (m *page) flagsOf(cmd command, shared []group) {
	fs, _, _ := newFlags(cmd)
	own, titles := fs.beside(shared)
	m.flags(own)
	if titles != nil {
		fmt.Fprintf(m, ".PP\nAnd the flags below: %s.\n", escape(strings.Join(titles, ", ")))
	}
}

func (m *page) flags(flags []*pflag.Flag) {
	for _, f := range flags {
		argument, usage := described(f)
		fmt.Fprintf(m, ".TP\n\\fB%s\\fR", escape("--"+f.Name))
		if argument != "" {
			fmt.Fprintf(m, " \\fI%s\\fR", escape(argument))
		}
		fmt.Fprintf(m, "\n%s\n", escape(usage))
	}
}

// paragraphs fills text; lines that are indented stay as they are.
func (m *page) paragraphs(text string) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(paragraph, "  ") {
			m.verbatim(paragraph)
			continue
		}
		fmt.Fprintf(m, ".PP\n%s\n", escape(paragraph))
	}
}

func (m *page) verbatim(text string) {
	fmt.Fprintf(m, ".PP\n.nf\n%s\n.fi\n", escape(strings.TrimRight(text, "\n")))
}

// escape makes text safe in roff: a hyphen that can be copied, and no line that is
// taken for a request.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }
