package cli

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mailu-hook/internal/report"
)

// Environ reads one variable of the environment, "" when it is not set.
type Environ func(name string) string

// command is one command of the program: a file of this package each, and a row
// in commands.
type command struct {
	name     string // "" for the bare program
	args     string // what the usage line shows after the name
	summary  string // one sentence, for the list of commands and its own help
	about    string // paragraphs: what it does, and what happens on failure
	examples string
	exits    string        // explains its exit statuses; "": they are those of a deploy
	options  func() action // a fresh set of options, at their defaults
	formats  []string      // that --output takes, the default first; nil: the command takes no settings
	// failed makes a result of an error that came before there was one, so that
	// --output json prints a document then too. nil: there is nothing to print.
	failed func(error) (result, error)
}

// action is the options of a command and what it does with them.
type action interface {
	add(*flags) // declares its flags
	// run returns what it found, also beside an error, and prints nothing.
	run(context.Context, *invocation) (result, error)
}

// part is options that several commands share; help shows them as a group.
type part interface{ add(*pflag.FlagSet) }

// invocation is what a command works with besides its options.
type invocation struct {
	command
	args     []string // after the flags
	out      *outputOptions
	environ  []string          // as it was given
	settings Environ           // the environment, and below it the configuration file
	file     map[string]string // the configuration file alone
	log      *slog.Logger
	stdin    io.Reader
	stdout   io.Writer // of a command that does not end; others return what there is to print
	stderr   io.Writer // for progress on a terminal, and for usage
	hooked   bool      // an ACME client called: no command was named
	words    []string  // and how, if by arguments
	all      []command
}

// result is what a command found.
type result interface {
	// tell renders it in one of the command's formats. err is how the command
	// ended; "" means that there is nothing to print beside it.
	tell(format string, err error, on report.Screen) string
}

// text is a result that has no other form.
type text string

func (t text) tell(string, error, report.Screen) string { return string(t) }

const defaultConfig = "/etc/mailu-hook.conf"

// outputOptions are those of every command that takes settings.
type outputOptions struct {
	formats             []string
	format              string
	logLevel, logFormat string
	config              string
}

func (o *outputOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.format, "output", o.formats[0], "`FORMAT` how to print the result: "+oneOf(o.formats))
	fs.StringVar(&o.logLevel, "log-level", "warn", "`LEVEL` least level that is logged to stderr: "+oneOf(logLevels))
	fs.StringVar(&o.logFormat, "log-format", logFormats[0], "`FORMAT` how to write the log: "+oneOf(logFormats))
	fs.StringVar(&o.config, "config", "", "`FILE` settings to read (default: "+defaultConfig+", if it exists)")
	offer(fs, "output", o.formats)
	offer(fs, "log-level", logLevels)
	offer(fs, "log-format", logFormats)
}

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

// oneOf lists choices as a sentence does.
func oneOf(choices []string) string {
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

// flags are the flags of one command, in the groups that help shows.
type flags struct {
	*pflag.FlagSet
	groups []group
}

// group is the flags of one part. The command's own, which come first, have no
// title.
type group struct {
	title string
	flags []*pflag.Flag
}

// newFlags makes the options of a command, and the flags that fill them. Those of
// its output stay as they are for a command that takes no settings.
func newFlags(cmd command) (fs *flags, options action, out *outputOptions) {
	fs = &flags{FlagSet: pflag.NewFlagSet(cmd.name, pflag.ContinueOnError)}
	fs.SortFlags = false
	fs.SetInterspersed(cmd.name != "")
	fs.Usage = func() {}
	fs.SetOutput(io.Discard)
	options, out = cmd.options(), &outputOptions{formats: cmd.formats}
	options.add(fs)
	if cmd.formats != nil {
		fs.group("Output", out)
	}
	return fs, options, out
}

// group declares the flags of a part under a title.
func (f *flags) group(title string, p part) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	own.SortFlags = false
	p.add(own)
	g := group{title: title}
	own.VisitAll(func(flag *pflag.Flag) { g.flags = append(g.flags, flag) })
	f.AddFlagSet(own)
	f.groups = append(f.groups, g)
}

// inGroups returns all flags: those of no part first, without a title.
func (f *flags) inGroups() []group {
	grouped := map[*pflag.Flag]bool{}
	for _, g := range f.groups {
		for _, flag := range g.flags {
			grouped[flag] = true
		}
	}
	var own group
	f.VisitAll(func(flag *pflag.Flag) {
		if !grouped[flag] {
			own.flags = append(own.flags, flag)
		}
	})
	if own.flags == nil {
		return f.groups
	}
	return append([]group{own}, f.groups...)
}

// sharedGroups are the titled groups of all commands, each as the first command that
// takes it declares it.
func sharedGroups(all []command) (shared []group) {
	for _, cmd := range all {
		fs, _, _ := newFlags(cmd)
		for _, g := range fs.groups {
			if !slices.ContainsFunc(shared, func(s group) bool { return s.title == g.title }) {
				shared = append(shared, g)
			}
		}
	}
	return shared
}

// beside returns the flags that are not in the shared groups in just this form, and
// the titles of the groups that have the others.
func (f *flags) beside(shared []group) (own []*pflag.Flag, titles []string) {
	for _, g := range f.inGroups() {
		n := slices.IndexFunc(shared, func(s group) bool { return s.title == g.title })
		if n < 0 {
			own = append(own, g.flags...)
			continue
		}
		titles = append(titles, g.title)
		for _, flag := range g.flags {
			same := func(s *pflag.Flag) bool {
				return s.Name == flag.Name && s.Usage == flag.Usage && s.DefValue == flag.DefValue
			}
			if !slices.ContainsFunc(shared[n].flags, same) {
				own = append(own, flag)
			}
		}
	}
	return own, titles
}

// choicesKey is where a flag keeps the words that it takes.
const choicesKey = "choices"

// offer makes completion offer the words that a flag takes.
func offer[T ~string](fs *pflag.FlagSet, flag string, words []T) {
	list := make([]string, len(words))
	for i, word := range words {
		list[i] = string(word)
	}
	_ = fs.SetAnnotation(flag, choicesKey, list) // it fails only for a flag that does not exist
}

// choicesOf are the words that a flag takes, nil if it takes anything.
func choicesOf(f *pflag.Flag) []string { return slices.Clone(f.Annotations[choicesKey]) }
