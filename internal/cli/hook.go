package cli

import (
	"context"
	"io"
	"path/filepath"

	"mailu-hook/internal/deploy"
	"mailu-hook/internal/source"
)

func hookCommand() command {
	return command{
		summary: "Install a renewed certificate into Mailu's front and prove that it is served",
		about: `As certbot's deploy hook it needs no arguments: certbot names the renewed
lineage in RENEWED_LINEAGE. It goes to each front whose main hostname it covers;
lineages of other sites are skipped.

The certificate is checked, switched into place with one rename, and loaded by
nginx and dovecot; then every TLS port is asked for it. If a port does not
show it, the old pair is put back, reloaded and verified in the same way.
certbot drops a hook's exit status and output: look for the tag mailu-hook in
syslog.`,
		examples: `  ln -s /usr/local/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/
  certbot renew --deploy-hook mailu-hook
  RENEWED_LINEAGE=/etc/letsencrypt/live/mail.example.com mailu-hook --dry-run`,
		options: func() action { return &hookOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type hookOptions struct{ deployOptions }

// renewedLineage is how certbot tells a deploy hook what was renewed.
const renewedLineage = "RENEWED_LINEAGE"

func (o *hookOptions) run(ctx context.Context, i *invocation) (result, error) {
	dir := i.settings(renewedLineage)
	if dir == "" {
		_, _ = io.WriteString(i.stderr, usageText(i.command, i.all)) // the error says the rest
		return nil, usageError("RENEWED_LINEAGE is not set: certbot sets it when it calls a hook; by hand, use mailu-hook install --lineage DIR")
	}
	if !filepath.IsAbs(dir) {
		return nil, usageError("RENEWED_LINEAGE is %q, which is not an absolute path", dir)
	}
	d, err := o.read(i, deploy.Hook)
	if err != nil {
		return nil, err
	}
	d.Pinned = i.settings(variable("lineage"))
	r, err := deploy.Install(ctx, source.Lineage(dir), d)
	return newDeployed(r, deployed{unattended: true, hooked: true}), err
}
