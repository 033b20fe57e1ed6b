package cli

import (
	"context"
	"path/filepath"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
)

func installCommand() command {
	return command{
		name:    "install",
		summary: "Install a certificate by hand, and prove that it is served",
		about: `Does what the deploy hook does, for a lineage or for two files of your choice,
also when they are older than what is installed. Doing it twice does nothing
the second time. If the front does not take the certificate, the old one is
put back, and the exit status is 4.`,
		examples: `  mailu-hook install --lineage /etc/letsencrypt/live/mail.example.com
  mailu-hook install --cert fullchain.pem --key privkey.pem --dry-run
  mailu-hook install --lineage DIR --output json | jq .outcome`,
		flags: func(fs *pflag.FlagSet) {
			fs.String("lineage", "", "`DIR` with fullchain.pem and privkey.pem, as certbot's live/NAME")
			fs.String("cert", "", "`FILE` with the leaf and its chain, in PEM")
			fs.String("key", "", "`FILE` with the private key, in PEM")
			deployFlags(fs)
		},
		run: runInstall,
	}
}

func runInstall(ctx context.Context, c *call) error {
	lineage, cert, key := c.text("lineage"), c.text("cert"), c.text("key")
	switch {
	case lineage != "" && cert == "" && key == "":
		dir, err := filepath.Abs(lineage)
		if err != nil {
			return usageError("--lineage: %v", err)
		}
		return c.deploy(ctx, hook.LineageSource(dir), false)
	case lineage == "" && cert != "" && key != "":
		return c.deploy(ctx, hook.Source{CertFile: cert, KeyFile: key}, false)
	}
	return usageError("name either --lineage DIR, or both --cert FILE and --key FILE")
}
