package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path/filepath"

	"mailu-hook/internal/deploy"
	"mailu-hook/internal/disk"
	"mailu-hook/internal/source"
)

func installCommand() command {
	return command{
		name:    "install",
		args:    "[SOURCE]",
		summary: "Install a certificate by hand, and prove that it is served",
		about: `Does what the deploy hook does, for any source, even if it is older than what
is installed. Running it twice does nothing the second time. If the front does
not take the certificate, the old one is put back, and the exit status is 4.

SOURCE is a directory as certbot, acme.sh, lego, Caddy, dehydrated or others
keep it, a PEM file with certificate, chain and key, a PKCS#12 file, Traefik's
acme.json, or - for PEM on standard input. It is recognized by its content:
--dry-run says as what. Of several certificates the one that covers most of the
front's hostnames is taken. sync reads the same source again.`,
		examples: `  mailu-hook install /etc/letsencrypt/live/mail.example.com
  mailu-hook install /srv/traefik/acme.json --dry-run
  mailu-hook install mail.p12 --password-file /etc/mailu-hook/password
  ssh ca cat mail.pem | mailu-hook install -`,
		options: func() action { return &installOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type installOptions struct {
	lineage, cert, key, chain, password string
	deployOptions
}

func (o *installOptions) add(fs *flags) {
	fs.StringVar(&o.lineage, "lineage", "", "`DIR` the same as SOURCE")
	fs.StringVar(&o.cert, "cert", "", "`FILE` the certificate and its chain, in PEM")
	fs.StringVar(&o.key, "key", "", "`FILE` the private key, in PEM")
	fs.StringVar(&o.chain, "chain", "", "`FILE` the chain, if it is not in the file of --cert")
	fs.StringVar(&o.password, "password-file", "", "`FILE` the password of a PKCS#12 file; sync reads it again (default: what "+source.PasswordVariable+" holds)")
	o.deployOptions.add(fs)
}

func (o *installOptions) run(ctx context.Context, i *invocation) (result, error) {
	src, err := o.source(i)
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

// source is the one place that the arguments name.
func (o *installOptions) source(i *invocation) (src source.Source, err error) {
	place := o.lineage
	if len(i.args) == 1 {
		if i.given("lineage", place) {
			return src, usageError("name either SOURCE or --lineage DIR, which mean the same")
		}
		place = i.args[0]
	}
	files := o.cert != "" || o.key != "" || o.chain != ""
	if files && len(i.args) == 0 && !i.given("lineage", place) {
		place = ""
	}
	switch {
	case i.given("password-file", o.password) && (files || place == "" || place == "-"):
		return src, usageError("--password-file is for a PKCS#12 file, which SOURCE names")
	case place == "" && o.cert != "" && o.key != "":
		src = source.Files(o.cert, o.key)
		src.IssuersFile = o.chain
		return src, nil
	case files || place == "":
		return src, usageError("name either a SOURCE, or both --cert FILE and --key FILE")
	case place == "-":
		data, err := io.ReadAll(io.LimitReader(i.stdin, disk.MaxFile+1))
		if err != nil || len(data) > disk.MaxFile {
			return src, usageError("standard input is no certificate with its key: %v", cmp.Or(err, errors.New("it is too large")))
		}
		return source.Shown("standard input", data), nil
	}
	if src, err = sourceAt(place, "SOURCE"); err == nil && o.password != "" {
		src.Password, err = filepath.Abs(o.password)
	}
	return src, err
}
