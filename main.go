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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
