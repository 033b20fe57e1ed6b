// Package cli is the command line of mailu-hook: it turns arguments,
// environment and configuration file into options, calls the packages that do
// the work, and turns their results into text, JSON and exit statuses. No other
// package prints, and no other knows an exit status.
//
// A command is a file: a struct of options that declares its own flags, and a
// run that returns what it found. Printing is done here, once, for all of them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
	"mailu-hook/internal/survey"
)

// commands lists them in the order of help. To add one, write its file and
// name it here.
func commands() []command {
	return []command{
		hookCommand(), installCommand(), syncCommand(), rollbackCommand(), uninstallCommand(),
		renewCommand(), watchCommand(), accountCommand(), statusCommand(), tlsaCommand(),
		versionCommand(), helpCommand(), completionCommand(),
	}
}

// Run runs the program with args (without its name) and returns its exit
// status. environ is the environment as os.Environ has it. Everything it prints goes
// to stdout and stderr; stdin is read only where an argument says so. When ctx is
// cancelled it undoes what is half done, and returns soon.
func Run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	env := environment(environ)
	i := &invocation{settings: env, environ: environ, stdin: stdin, stdout: stdout, stderr: stderr, out: &outputOptions{}, all: commands()}
	i.command = i.all[0]
	r, err := i.within(ctx, args, env)
	err = i.hinted(err)
	if err != nil && r == nil && i.failed != nil {
		r, err = i.failed(err)
	}
	return finish(i, r, err, stdout)
}

// within runs the command in the longest time that it may take. Every step of it
// has a limit of its own; this is the last resort against what none of them can
// end, such as a file system that hangs.
func (i *invocation) within(ctx context.Context, args []string, env Environ) (result, error) {
	options, r, err := i.prepare(args, env)
	if options == nil {
		return r, err
	}
	ctx = source.WithPassword(ctx, i.settings(source.PasswordVariable))
	b, ok := options.(bounded)
	if !ok || b.longest() == 0 {
		return options.run(ctx, i)
	}
	type end struct {
		r   result
		err error
	}
	ended := make(chan end, 1)
	go func() {
		r, err := options.run(ctx, i)
		ended <- end{r, err}
	}()
	select {
	case e := <-ended:
		return e.r, e.err
	case <-time.After(b.longest() + grace):
		return nil, say.Hint(fmt.Errorf("%w: it has not ended within %s, long after its time was up", errHung, b.longest()+grace),
			"a file system or a device may hang (see dmesg); look with mailu-hook status")
	}
}

// bounded is an action that says how long it takes at most, a rollback included. 0
// means that it does not end by itself.
type bounded interface{ longest() time.Duration }

// grace is for what follows the end of a command's own time.
const grace = time.Minute

// prepare finds out which command is meant and how. The action is nil if there is
// nothing to run any more.
func (i *invocation) prepare(args []string, env Environ) (action, result, error) {
	switch {
	case slices.Equal(args, []string{"--version"}):
		args = []string{"version"}
	case len(args) == 0 || strings.HasPrefix(args[0], "-"):
		src, _ := renewedBy(env, nil) // an error is told when it runs
		i.hooked = src != nil
	case isHookWord(args[0]):
		i.hooked, i.words, args = true, args, nil
	}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		cmd, ok := named(i.all, args[0])
		if !ok {
			return nil, nil, usageError("there is no command %s%s", say.Foreign(args[0]), didYouMean(args[0], commandNames(i.all)))
		}
		i.command, args = cmd, args[1:]
	}
	fs, options, out := newFlags(i.command)
	err := fs.Parse(args)
	i.args, i.out = fs.Args(), out
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return nil, asInstalled(helpText(i.command, i.all), survey.Program()), nil
	case err != nil:
		return nil, nil, usageError("%v", err)
	case i.formats != nil:
		if err = i.applySettings(fs, env); err == nil {
			err = i.openLog()
		}
		if err == nil {
			i.warnOfMisspelt()
			i.warnOfOpenConfig()
		}
	}
	if err == nil {
		err = i.checkArguments()
	}
	if err != nil {
		return nil, nil, err
	}
	return options, nil, nil
}

func (i *invocation) checkArguments() error {
	n := len(strings.Fields(i.command.args))
	switch {
	case len(i.args) > n && i.name == "":
		return usageError("a command comes first: mailu-hook %s [flags]", say.Foreign(i.args[0]))
	case len(i.args) > n:
		return usageError("unexpected argument %s", say.Foreign(i.args[n]))
	}
	return nil
}
