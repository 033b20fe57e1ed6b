// Command mailu-hook installs renewed certificates into a Mailu mail server
// and proves that they are served. See README.md, or run mailu-hook help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"mailu-hook/internal/cli"
)

func main() {
	end := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		end = append(end, syscall.SIGHUP)
	}
	signal.Ignore(syscall.SIGPIPE) // that nobody reads the output must not end a deploy half-way
	ctx, stop := signal.NotifyContext(context.Background(), end...)
	code := cli.Run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
