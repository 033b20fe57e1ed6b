// Package cli is the command line of mailu-hook: it turns arguments,
// environment and configuration file into options, joins the packages that do
// the work, and turns their results into text, JSON and exit statuses. No other
// package prints, and no other knows an exit status.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mailu-hook/internal/say"
)

// Environ reads one variable of the environment, "" when it is not set.
type Environ func(name string) string

// command is one command of the program: a file of this package each, listed
// in commands.
type command struct {
	name     string
	args     string // what the usage line shows after the name
	summary  string // one sentence, for the list of commands and its own help
	about    string // paragraphs: what it does, and what happens on failure
	examples string
	exits    string                   // explains its exit statuses; "": they are those of a deploy
	formats  []string                 // that --output takes; nil: text and json
	failed   func(*call, error) error // reports an error of its; nil: as a deploy does
	flags    func(*pflag.FlagSet)     // declares its flags
	run      func(context.Context, *call) error
}

// commands lists them in the order of help. To add one, write its file and
// name it here.
func commands() []command {
	return []command{
		hookCommand(), installCommand(), syncCommand(), rollbackCommand(),
		renewCommand(), accountCommand(), statusCommand(), tlsaCommand(),
		versionCommand(), helpCommand(), completionCommand(),
	}
}

// call is one invocation of a command.
type call struct {
	command
	args           []string // after the flags
	fs             *pflag.FlagSet
	env            Environ
	settings       Environ           // env, and below it the configuration file
	file           map[string]string // the configuration file
	stdout, stderr io.Writer
	log            *slog.Logger
}

// Run runs the program with args (without its name) and returns its exit
// status. Everything it prints goes to stdout and stderr. When ctx is cancelled
// it undoes what is half done, and returns soon.
func Run(ctx context.Context, args []string, env Environ, stdout, stderr io.Writer) int {
	all := commands()
	cmd := all[0]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] && c.name != "" })
		if i < 0 {
			return conclude(stderr, usageError("there is no command %s; 'mailu-hook help' lists them", say.Foreign(args[0])))
		}
		cmd, args = all[i], args[1:]
	}
	c := &call{command: cmd, env: env, settings: env, stdout: stdout, stderr: stderr, fs: newFlagSet(cmd)}
	err := c.parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		writeHelp(stdout, cmd)
		return exitOK
	case err == nil:
		err = c.runWith(ctx)
	}
	return conclude(stderr, c.fail(err))
}

func (c *call) runWith(ctx context.Context) error {
	n := len(strings.Fields(c.command.args))
	switch {
	case len(c.args) > n && c.name == "":
		return usageError("a command comes first: mailu-hook %s [flags]", say.Foreign(c.args[0]))
	case len(c.args) > n:
		return usageError("unexpected argument %s", say.Foreign(c.args[n]))
	}
	return c.run(ctx, c)
}

func newFlagSet(cmd command) *pflag.FlagSet {
	fs := pflag.NewFlagSet(cmd.name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetInterspersed(cmd.name != "")
	fs.Usage = func() {}
	fs.SetOutput(io.Discard)
	if cmd.flags != nil {
		cmd.flags(fs)
	}
	return fs
}

func (c *call) parse(args []string) error {
	if err := c.fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return usageError("%v", err)
	}
	c.args = c.fs.Args()
	if c.fs.Lookup("config") == nil { // a command without settings
		return nil
	}
	if err := c.applySettings(); err != nil {
		return err
	}
	return c.openLog()
}

// conclude prints what went wrong, if it was not printed yet, and returns the
// exit status that says so.
func conclude(stderr io.Writer, err error) int {
	if err != nil && !reported(err) {
		writeError(stderr, err)
	}
	return exitStatus(err)
}

func writeError(w io.Writer, err error) {
	fmt.Fprintf(w, "mailu-hook: error: %s\n", say.OneLine(err.Error()))
	if hint := say.HintOf(err); hint != "" {
		fmt.Fprintf(w, "mailu-hook: hint: %s\n", say.OneLine(hint))
	}
}
