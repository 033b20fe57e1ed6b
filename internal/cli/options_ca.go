package cli

import (
	"net/url"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/internal/say"
)

// caOptions choose the CA.
type caOptions struct {
	server, caFile string
	staging        bool
}

func (o *caOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.server, "server", acme.LetsEncrypt, "`URL` ACME directory of the CA")
	fs.BoolVar(&o.staging, "staging", false, "use Let's Encrypt's staging server, whose certificates no client trusts")
	fs.StringVar(&o.caFile, "ca-file", "", "`FILE` CA certificates to trust when connecting to --server (for a private CA)")
}

// read is how to talk to the CA. A dry run uses Let's Encrypt's staging server.
func (o *caOptions) read(i *invocation, dry bool) (acme.Options, error) {
	c := acme.Options{UserAgent: "mailu-hook/" + version(), Directory: o.server, Log: i.log}
	at, err := url.Parse(o.server)
	switch {
	case o.server == acme.LetsEncrypt && (o.staging || dry):
		c.Directory = acme.LetsEncryptStaging
	case o.staging:
		return c, usageError("--staging is Let's Encrypt's: use either --staging or --server")
	case err != nil || at.Scheme != "https" || at.Hostname() == "":
		return c, usageError("--server: %s is not an https:// URL", say.Foreign(o.server))
	}
	c.Roots, err = readPool("ca-file", o.caFile)
	return c, err
}
