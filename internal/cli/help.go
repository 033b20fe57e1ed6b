package cli

import (
	"context"

	"mailu-hook/internal/say"
	"mailu-hook/internal/survey"
)

func helpCommand() command {
	return command{
		name:    "help",
		args:    "[COMMAND]",
		summary: "Explain the program or one of its commands",
		options: func() action { return &helpOptions{} },
	}
}

type helpOptions struct{ man bool }

func (o *helpOptions) add(fs *flags) {
	fs.BoolVar(&o.man, "man", false, "print the manual page of the program instead, for man -l -")
}

func (o *helpOptions) run(_ context.Context, i *invocation) (result, error) {
	if o.man {
		return asInstalled(manual(i.all, release), survey.Program()), nil
	}
	if len(i.args) == 0 || i.args[0] == "" {
		return asInstalled(helpText(i.all[0], i.all), survey.Program()), nil
	}
	cmd, ok := named(i.all, i.args[0])
	if !ok {
		return nil, usageError("there is no command %s%s", say.Foreign(i.args[0]), didYouMean(i.args[0], commandNames(i.all)))
	}
	return asInstalled(helpText(cmd, i.all), survey.Program()), nil
}
