package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/say"
	"mailu-hook/internal/webroot"
)

// caFlags declares the flags that choose the CA and where its accounts are kept.
func caFlags(fs *pflag.FlagSet) {
	fs.String("server", acme.LetsEncrypt, "`URL` of the CA's ACME directory")
	fs.Bool("staging", false, "use Let's Encrypt's staging server, whose certificates nobody trusts")
	fs.String("ca-file", "", "`FILE` with the roots that the directory's own TLS is held to, for a CA of your own")
	fs.String("state-dir", acme.DefaultStateDir, "`DIR` for accounts, certificates and what is to be done when")
}

func challengeFlags(fs *pflag.FlagSet) {
	fs.String("challenge", "", "`WAY` to answer the CA: front, webroot, standalone, tls-alpn or dns (default: front, if one runs)")
	fs.String("webroot", "", "`DIR` that another web server shows on port 80 of the names")
	fs.String("listen", "", "`ADDR` for standalone and tls-alpn (default: :80 and :443)")
	fs.String("dns-provider", "", "`NAME` of who changes the DNS: "+strings.Join(acme.DNSProviders(), ", "))
	fs.Bool("no-self-check", false, "let the CA look without having looked before")
}

func certificateFlags(fs *pflag.FlagSet) {
	fs.String("key-type", string(acme.EC256), "`TYPE` of the key: ec256, ec384, rsa2048 or rsa4096")
	fs.Bool("reuse-key", false, "keep the key at each renewal (default: if a TLSA record 3 1 1 of it is published)")
	fs.Bool("next-key", false, "prepare a key for a later renewal, which uses it once its TLSA record, see 'tlsa --next', was seen for two TTLs")
	fs.String("profile", "", "`NAME` of the CA's profile, at Let's Encrypt classic, tlsserver or shortlived")
	fs.String("preferred-chain", "", "`NAME` of the issuer that the chain should end at, where the CA offers several")
	fs.String("eab-kid", "", "`ID` of the external account, where the CA wants one")
	fs.String("eab-hmac-file", "", "`FILE` with the HMAC key of the external account")
	fs.Bool("must-cover", true, "obtain all names or nothing; else go on without those that fail, never without the main one")
}

// directory is the URL of the CA's directory.
func (c *call) directory() (string, error) {
	staging, _ := c.fs.GetBool("staging")
	dry, _ := c.fs.GetBool("dry-run")
	given := c.text("server")
	at, err := url.Parse(given)
	switch {
	case given == acme.LetsEncrypt && (staging || dry):
		return acme.LetsEncryptStaging, nil
	case staging:
		return "", usageError("--staging is Let's Encrypt's: leave out either it or --server")
	case err != nil || at.Scheme != "https" || at.Hostname() == "":
		return "", usageError("--server: %s is no https:// URL", say.Foreign(given))
	default:
		return given, nil
	}
}

// request is the certificate that is wanted.
func (r *renewal) request() (want acme.Request, err error) {
	want = acme.Request{
		Names:          acme.CanonicalNames(r.target.facts.Hostnames),
		Key:            acme.KeyType(r.c.text("key-type")),
		Profile:        r.c.text("profile"),
		PreferredChain: r.c.text("preferred-chain"),
		ReuseKey:       r.flag("reuse-key"),
		Subset:         !r.flag("must-cover"),
	}
	if !slices.Contains(acme.KeyTypes, want.Key) {
		return want, usageError("--key-type: %s is none of ec256, ec384, rsa2048, rsa4096", say.Foreign(string(want.Key)))
	}
	want.Directory, err = r.c.directory()
	return want, err
}

// client is how to talk to the CA, as the flags have it.
func (c *call) client() (o acme.Options, err error) {
	o = acme.Options{UserAgent: "mailu-hook/" + version(), Email: c.text("email"), Log: c.log}
	o.AgreeTOS, _ = c.fs.GetBool("agree-tos")
	o.DryRun, _ = c.fs.GetBool("dry-run")
	if o.Directory, err = c.directory(); err == nil {
		o.Roots, err = c.pool("ca-file")
	}
	if err == nil {
		o.EAB, err = c.externalAccount()
	}
	return o, err
}

func (c *call) externalAccount() (*acme.ExternalAccount, error) {
	kid, file := c.text("eab-kid"), c.text("eab-hmac-file")
	if kid == "" && file == "" {
		return nil, nil
	}
	if kid == "" || file == "" {
		return nil, usageError("an external account takes both --eab-kid ID and --eab-hmac-file FILE")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError("--eab-hmac-file: %v", err)
	}
	return &acme.ExternalAccount{KeyID: kid, HMAC: strings.TrimSpace(string(data))}, nil
}

// pool reads the certificates in the file that a flag names, nil if it names none.
func (c *call) pool(flag string) (*x509.CertPool, error) {
	name := c.text(flag)
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError("--%s: %v", flag, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, usageError("--%s: %s holds no certificate in PEM", flag, name)
	}
	return pool, nil
}

// lockState waits for the state directory as long as a deploy may take.
func lockState(ctx context.Context, c *call, state *acme.State) (unlock func(), err error) {
	err = c.limited(ctx, "timeout", func(ctx context.Context) (err error) {
		unlock, err = state.Lock(ctx)
		return err
	})
	return unlock, err
}

// chooseMethod is how challenges are answered: as said, or as the other flags
// imply, or by the front; whether that runs matters only once one is due.
func (r *renewal) chooseMethod() (acme.Method, error) {
	method := acme.Method(r.c.text("challenge"))
	switch {
	case method != "":
	case r.c.text("dns-provider") != "":
		method = acme.DNS
	case r.c.text("webroot") != "":
		method = acme.Webroot
	default:
		method = acme.Front
	}
	switch method {
	case acme.Webroot:
		if info, err := os.Stat(r.c.text("webroot")); err != nil || !info.IsDir() {
			return "", usageError("--challenge webroot takes --webroot DIR, the directory that the web server shows, and %s is none", say.Foreign(r.c.text("webroot")))
		}
	case acme.DNS:
		if name := r.c.text("dns-provider"); !slices.Contains(acme.DNSProviders(), name) {
			return "", usageError("--challenge dns takes --dns-provider NAME, one of %s, and %s is none", strings.Join(acme.DNSProviders(), ", "), say.Foreign(name))
		}
	case acme.Front, acme.Standalone, acme.TLSALPN:
	default:
		return "", usageError("--challenge: %s is none of front, webroot, standalone, tls-alpn, dns", say.Foreign(string(method)))
	}
	return method, nil
}

// solver makes ready to answer challenges. done ends that.
func (r *renewal) solver(ctx context.Context) (s acme.Solver, done func(), err error) {
	noCheck, server := r.flag("no-self-check"), r.c.text("resolver")
	resolver := acme.Resolver(server)
	switch r.method {
	case acme.Front:
		return r.frontSolver(ctx, resolver, noCheck)
	case acme.Webroot:
		root, err := webroot.Open(r.c.text("webroot"))
		if err != nil {
			return nil, nil, say.Hint(usageErr{err.Error()}, "name the directory that the web server shows: --webroot DIR")
		}
		return acme.HTTP(root, resolver, noCheck), root.Close, nil
	case acme.Standalone:
		server := acme.NewServer(firstNonEmpty(r.c.text("listen"), ":80"))
		return acme.HTTP(server, resolver, noCheck), server.Close, nil
	case acme.TLSALPN:
		server := acme.NewServer(firstNonEmpty(r.c.text("listen"), ":443"))
		return acme.ALPN(server, resolver, noCheck), server.Close, nil
	}
	for name, value := range maps.All(r.c.file) {
		if acme.IsProviderVariable(name) && os.Getenv(name) == "" {
			os.Setenv(name, value) // where lego looks for them
		}
	}
	s, err = acme.DNSProvider(r.c.text("dns-provider"), server, noCheck)
	if err != nil {
		err = say.Hint(usageErr{err.Error()}, "%s", say.HintOf(err))
	}
	return s, func() {}, err
}

const closeLimit = 10 * time.Second // for taking the override out of the front, also when the time is up

func (r *renewal) frontSolver(ctx context.Context, resolver *net.Resolver, noCheck bool) (acme.Solver, func(), error) {
	if r.target.front == nil {
		return nil, nil, r.noFront()
	}
	if err := r.placeholder(ctx); err != nil {
		return nil, nil, err
	}
	r.tell("letting the front answer challenges")
	challenges, err := r.target.front.ServeChallenges(ctx)
	if err != nil {
		return nil, nil, err
	}
	done := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		if err := challenges.Close(ctx); err != nil {
			r.note(err.Error())
		}
	}
	return acme.HTTP(challenges, resolver, noCheck), done, nil
}

// noFront explains why no front can answer, which matters only once a certificate
// is due.
func (r *renewal) noFront() error {
	why := r.target.note
	if r.target.unasked != nil {
		why = r.target.unasked.Error()
	}
	return say.Hint(fmt.Errorf("no front can answer the CA's challenge: %s", why), "start Mailu, or choose --challenge standalone, webroot, tls-alpn or dns")
}

// placeholder brings TLS up in a front that has no certificate at all: without,
// it includes no override, and answers nobody.
func (r *renewal) placeholder(ctx context.Context) error {
	installed, err := r.store.Installed()
	if err != nil || installed.Leaf != nil {
		return err
	}
	if r.flag("dry-run") {
		return say.Hint(errors.New("the front has no certificate yet, and a dry run installs no placeholder"), "run without --dry-run, with --staging if you like, or choose another --challenge")
	}
	r.tell("the front has no certificate: installing a placeholder")
	bundle, err := hook.Placeholder(r.want.Names)
	if err != nil {
		return err
	}
	o, err := r.options()
	if err != nil {
		return err
	}
	o.Rules.AllowUntrusted, o.Guard = true, nil
	return r.c.limited(ctx, "timeout", func(ctx context.Context) error {
		err := r.install(ctx, bundle, o)
		if err != nil {
			err = fmt.Errorf("installing a placeholder: %w", err)
		}
		return err
	})
}
