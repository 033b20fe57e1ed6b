package cli

import (
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/tlsa"
)

func daneFlags(fs *pflag.FlagSet) {
	fs.String("dane", string(tlsa.Auto), "`MODE`: auto holds a certificate back while validated TLSA records of a hostname do not match it; require also while they cannot be checked; off does not look")
	fs.Duration("dane-grace", 72*time.Hour, "install anyway when the current certificate expires within this `TIME`")
	resolverFlags(fs)
}

func resolverFlags(fs *pflag.FlagSet) {
	fs.String("resolver", "", "`ADDR` of the DNS resolver (default: those in /etc/resolv.conf)")
	fs.Bool("trust-ad", false, "trust the AD flag of a resolver that is not on this host")
}

// resolver is the one that the flags name.
func (c *call) resolver() (*resolve.Resolver, error) {
	trust, _ := c.fs.GetBool("trust-ad")
	r, err := resolve.New(c.text("resolver"), trust)
	if err != nil && c.text("resolver") != "" {
		err = usageError("--resolver: %v", err)
	}
	return r, err
}

// dane is what --dane says.
func (c *call) dane() (tlsa.Mode, error) {
	mode, err := tlsa.ParseMode(c.text("dane"))
	if err != nil {
		return "", usageError("--dane: %v", err)
	}
	return mode, nil
}

// guard is what --dane asks for.
func (d *deployment) guard() (hook.Guard, error) {
	mode, err := d.c.dane()
	if err != nil || mode == tlsa.Off {
		return nil, err
	}
	resolver, err := d.c.resolver()
	if err != nil {
		return nil, err
	}
	return tlsa.Guard(mode, resolver, d.target.facts.Hostnames, func(hosts []tlsa.Host) { d.dane = hosts }), nil
}
