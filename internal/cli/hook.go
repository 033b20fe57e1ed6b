package cli

import (
	"context"
	"path/filepath"

	"mailu-hook/hook"
)

func hookCommand() command {
	return command{
		summary: "Install a renewed certificate into Mailu's front and prove that it is served",
		about: `As certbot's deploy hook it needs no arguments: certbot names the renewed
lineage in RENEWED_LINEAGE. A lineage that is not Mailu's is passed over.

The certificate is checked, switched into place with one rename, loaded by
nginx and dovecot, and then asked for on every TLS port. If a port does not
show it, the old pair is put back, reloaded and asked for in turn. certbot
drops a hook's exit status and output: look for the tag mailu-hook in syslog.`,
		examples: `  certbot renew --deploy-hook mailu-hook
  certbot renew --deploy-hook "mailu-hook --project mailu"
  RENEWED_LINEAGE=/etc/letsencrypt/live/mail.example.com mailu-hook --dry-run`,
		flags: deployFlags,
		run:   runHook,
	}
}

// renewedLineage is how certbot tells a deploy hook what was renewed.
const renewedLineage = "RENEWED_LINEAGE"

func runHook(ctx context.Context, c *call) error {
	dir := c.env(renewedLineage)
	if dir == "" {
		writeUsage(c.stderr, c.command)
		return usageError("RENEWED_LINEAGE is not set: as a hook, certbot sets it; by hand, use 'mailu-hook install --lineage DIR'")
	}
	if !filepath.IsAbs(dir) {
		return usageError("RENEWED_LINEAGE is %q, not an absolute path", dir)
	}
	return c.deploy(ctx, hook.LineageSource(dir), true)
}
