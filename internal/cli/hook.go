package cli

import (
	"context"
	"io"

	"mailu-hook/internal/deploy"
)

func hookCommand() command {
	return command{
		summary: "Install a renewed certificate into Mailu's front and prove that it is served",
		about: `As the deploy hook of certbot, lego, acme.sh or dehydrated it needs no
arguments: the client says what it renewed (certbot by RENEWED_LINEAGE). It goes
to each front whose main hostname it covers; what is another site's is skipped.

The certificate is checked, switched into place with one rename, and loaded by
nginx and dovecot; then every TLS port is asked for it. If a port does not
show it, the old pair is put back, reloaded and verified in the same way.
certbot drops a hook's exit status and output: look for the tag mailu-hook in
syslog.`,
		examples: `  ln -s /usr/local/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/
  certbot renew --deploy-hook mailu-hook
  lego … renew --renew-hook mailu-hook
  acme.sh --install-cert -d mail.example.com --reloadcmd mailu-hook
  HOOK=/usr/local/bin/mailu-hook    # in the config of dehydrated`,
		options: func() action { return &hookOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type hookOptions struct{ deployOptions }

func (o *hookOptions) run(ctx context.Context, i *invocation) (result, error) {
	src, err := renewedBy(i.settings, i.words)
	switch {
	case err != nil:
		return nil, err
	case src == nil && i.words != nil:
		return text(""), nil // a hook of dehydrated that has nothing to deploy
	case src == nil:
		_, _ = io.WriteString(i.stderr, usageText(i.command, i.all)) // the error says the rest
		return nil, usageError("RENEWED_LINEAGE is not set: certbot sets it when it calls a hook; by hand, use mailu-hook install SOURCE")
	}
	d, err := o.read(i, deploy.Hook)
	if err != nil {
		return nil, err
	}
	d.Pinned = i.settings(variable("lineage"))
	r, err := deploy.Install(ctx, *src, d)
	return newDeployed(r, deployed{unattended: true, hooked: true}), err
}
