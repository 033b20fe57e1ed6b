package cli

import "context"

func versionCommand() command {
	return command{
		name:    "version",
		summary: "Print the version",
		options: func() action { return &versionOptions{} },
	}
}

type versionOptions struct{}

func (*versionOptions) add(*flags) {}

func (*versionOptions) run(context.Context, *invocation) (result, error) {
	return text("mailu-hook " + version() + "\n"), nil
}
