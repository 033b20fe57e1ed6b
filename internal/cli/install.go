package cli

import (
	"context"
	"path/filepath"

	"mailu-hook/internal/deploy"
	"mailu-hook/internal/source"
)

func installCommand() command {
	return command{
		name:    "install",
		summary: "Install a certificate by hand, and prove that it is served",
		about: `Does what the deploy hook does, for a lineage or for two files of your choice,
even if they are older than what is installed. Running it twice does nothing
the second time. If the front does not take the certificate, the old one is
put back, and the exit status is 4.`,
		examples: `  mailu-hook install --lineage /etc/letsencrypt/live/mail.example.com
  mailu-hook install --cert fullchain.pem --key privkey.pem --dry-run
  mailu-hook install --lineage DIR --output json | jq .outcome`,
		options: func() action { return &installOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type installOptions struct {
	lineage, cert, key string
	deployOptions
}

func (o *installOptions) add(fs *flags) {
	fs.StringVar(&o.lineage, "lineage", "", "`DIR` directory with fullchain.pem and privkey.pem, such as certbot's live/NAME")
	fs.StringVar(&o.cert, "cert", "", "`FILE` the certificate and its chain, in PEM")
	fs.StringVar(&o.key, "key", "", "`FILE` the private key, in PEM")
	o.deployOptions.add(fs)
}

func (o *installOptions) run(ctx context.Context, i *invocation) (result, error) {
	src, err := o.source()
	if err != nil {
		return nil, err
	}
	d, err := o.read(i, deploy.Person)
	if err != nil {
		return nil, err
	}
	r, err := deploy.Install(ctx, src, d)
	return newDeployed(r, deployed{}), err
}

func (o *installOptions) source() (source.Source, error) {
	switch {
	case o.lineage != "" && o.cert == "" && o.key == "":
		dir, err := filepath.Abs(o.lineage)
		if err != nil {
			return source.Source{}, usageError("--lineage: %v", err)
		}
		return source.Lineage(dir), nil
	case o.lineage == "" && o.cert != "" && o.key != "":
		return source.Files(o.cert, o.key), nil
	}
	return source.Source{}, usageError("name either --lineage DIR, or both --cert FILE and --key FILE")
}
