package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

// frontOptions choose the front and its directory.
type frontOptions struct {
	certsDir, container, project string
	hostnames                    []string
	timeout                      time.Duration
}

func (o *frontOptions) add(fs *pflag.FlagSet) { o.declare(fs, deployTexts) }

// frontTexts explain what differs between the commands that take frontOptions.
type frontTexts struct {
	container, project, timeout string
	limit                       time.Duration
}

var deployTexts = frontTexts{
	container: "`NAME` the front container (default: that of the Compose service \"front\")",
	project:   "`NAME` Compose project of the front: only this one of several",
	timeout:   "time limit; a rollback may take as long again", limit: 30 * time.Second,
}

// frontPart is frontOptions with texts of a command's own.
type frontPart struct {
	*frontOptions
	texts frontTexts
}

func (p frontPart) add(fs *pflag.FlagSet) { p.declare(fs, p.texts) }

func (o *frontOptions) declare(fs *pflag.FlagSet, t frontTexts) {
	fs.StringVar(&o.certsDir, "certs-dir", "", "`DIR` directory on this host that the front mounts at /certs (default: what the container says, else "+mailu.DefaultCertsDir+")")
	fs.StringVar(&o.container, "container", "", t.container)
	fs.StringVar(&o.project, "project", "", t.project)
	fs.StringSliceVar(&o.hostnames, "hostname", nil, "`NAME` hostname that the certificate must cover; repeatable, the main one first (default: the front's HOSTNAMES)")
	fs.DurationVar(&o.timeout, "timeout", t.limit, t.timeout)
}

func (o *frontOptions) selector() reload.Selector {
	return reload.Selector{Container: o.container, Project: o.project}
}

// positive refuses a time limit that leaves no time.
func positive(flag string, d time.Duration) error {
	if d <= 0 {
		return usageError("--%s must be positive, not %s", flag, d)
	}
	return nil
}

// certificateOptions are what a certificate must satisfy, and how much of it is
// sent.
type certificateOptions struct {
	roots          string
	allowUntrusted bool
	appendRoot     string
}

func (o *certificateOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.roots, "roots", "", "`FILE` CA certificates to trust instead of the system's")
	fs.BoolVar(&o.allowUntrusted, "allow-untrusted", false, "install a chain that leads to no trusted root (staging, a private CA)")
	fs.StringVar(&o.appendRoot, "append-root", "", "`FILE` root certificate to send as well (auto: the trusted one), for TLSA records that name the root")
}

// stateOptions say where things are kept on this host.
type stateOptions struct{ stateDir, certbotDir string }

func (o *stateOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.stateDir, "state-dir", mailu.DefaultStateDir, "`DIR` what is remembered of deploys, and renew's accounts and certificates")
	fs.StringVar(&o.certbotDir, "letsencrypt-dir", mailu.DefaultCertbotDir, "`DIR` certbot's directory; renew leaves the names that certbot manages to it")
}

// sourceAt is the source at a place that was named by a flag or an argument. What is
// remembered of it has to hold in any other working directory.
func sourceAt(place, by string) (source.Source, error) {
	place, err := filepath.Abs(place)
	if err != nil {
		return source.Source{}, usageError("%s: %v", by, err)
	}
	return source.At(place), nil
}

func sourcesAt(places []string, by string) ([]source.Source, error) {
	all := make([]source.Source, len(places))
	for i, place := range places {
		src, err := sourceAt(place, by)
		if err != nil {
			return nil, err
		}
		all[i] = src
	}
	return all, nil
}

// resolverOptions choose who is asked about the DNS.
type resolverOptions struct {
	resolver string
	trustAD  bool
}

func (o *resolverOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.resolver, "resolver", "", "`ADDR` DNS resolver to ask (default: those in /etc/resolv.conf)")
	fs.BoolVar(&o.trustAD, "trust-ad", false, "trust the AD flag of a resolver that is not on this host")
}

func (o *resolverOptions) open() (*resolve.Resolver, error) {
	r, err := resolve.New(o.resolver, o.trustAD)
	if err != nil && o.resolver != "" {
		err = usageError("--resolver: %v", err)
	}
	return r, err
}

// daneOptions say how much a deploy cares about DANE.
type daneOptions struct {
	mode  string
	grace time.Duration
	resolverOptions
}

func (o *daneOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.mode, "dane", string(tlsa.Auto), "`MODE` auto: hold back a certificate that does not match the validated TLSA records of a host; require: also one whose records cannot be checked; off: do not ask the DNS")
	offer(fs, "dane", tlsa.Modes)
	fs.DurationVar(&o.grace, "dane-grace", 72*time.Hour, "install anyway when the current certificate expires within this time")
	o.resolverOptions.add(fs)
}

// switchOptions are those of every command that switches what the front serves.
type switchOptions struct {
	front  frontOptions
	state  stateOptions
	dryRun bool
}

func (o *switchOptions) add(fs *flags) {
	o.addDryRun(fs)
	fs.group("Front", &o.front)
	fs.group("State", &o.state)
}

func (o *switchOptions) addDryRun(fs *flags) {
	fs.BoolVar(&o.dryRun, "dry-run", false, "check and compare everything, change nothing")
}

// longest is a deploy, a rollback, and what settling takes.
func (o *switchOptions) longest() time.Duration { return 2*o.front.timeout + time.Minute }

func (o *switchOptions) read(i *invocation, caller deploy.Caller) (deploy.Options, error) {
	return deploy.Options{
		Caller: caller, Settings: i.settings, Front: o.front.selector(), CertsDir: o.front.certsDir, Hostnames: o.front.hostnames,
		StateDir: o.state.stateDir, Certbot: o.state.certbotDir,
		Timeout: o.front.timeout, DryRun: o.dryRun, Progress: newProgress(i).step,
	}, positive("timeout", o.front.timeout)
}

// deployOptions are those of every command that ends in a deploy.
type deployOptions struct {
	switchOptions
	certificate certificateOptions
	dane        daneOptions
	keep        int
}

func (o *deployOptions) add(fs *flags) {
	fs.IntVar(&o.keep, "keep", 3, "`NUMBER` generations to keep for rollback")
	o.addDryRun(fs)
	fs.group("Front", &o.front)
	fs.group("Certificate", &o.certificate)
	fs.group("DANE", &o.dane)
	fs.group("State", &o.state)
}

// read turns the options into those of a deploy. Files that they name are read
// here.
func (o *deployOptions) read(i *invocation, caller deploy.Caller) (d deploy.Options, err error) {
	if d, err = o.switchOptions.read(i, caller); err != nil {
		return d, err
	}
	if o.keep < 1 {
		return d, usageError("--keep must be at least 1, not %d: the live generation is one of them", o.keep)
	}
	d.Keep, d.AllowUntrusted, d.Grace = o.keep, o.certificate.allowUntrusted, o.dane.grace
	if d.Roots, err = readPool("roots", o.certificate.roots); err != nil {
		return d, err
	}
	if d.DANE, err = tlsa.ParseMode(o.dane.mode); err != nil {
		return d, usageError("--dane: %v", err)
	}
	if d.DANE != tlsa.Off {
		if d.Resolver, err = o.dane.open(); err != nil {
			return d, err
		}
	}
	d.AppendRoot, err = readAppendRoot(o.certificate.appendRoot)
	return d, err
}

// readPool reads the certificates in the file that a flag names, nil if it names
// none.
func readPool(flag, name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError("--%s: %v", flag, err)
	}
	pool, err := pki.Pool(data)
	if err != nil {
		return nil, usageError("--%s: %s: %v", flag, name, err)
	}
	return pool, nil
}

func readAppendRoot(name string) (deploy.AppendRoot, error) {
	switch name {
	case "":
		return deploy.AppendRoot{}, nil
	case "auto":
		return deploy.AppendRoot{Auto: true}, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return deploy.AppendRoot{}, usageError("--append-root: %v", err)
	}
	chain, err := pki.ParseChain(data)
	if err != nil {
		return deploy.AppendRoot{}, usageError("--append-root: %s: %v", name, err)
	}
	if len(chain) > 1 {
		return deploy.AppendRoot{}, usageError("--append-root: %s holds more than one certificate", name)
	}
	return deploy.AppendRoot{Root: chain[0]}, nil
}

// progress shows on a terminal what begins, and how long after the start.
type progress struct {
	i     *invocation
	began time.Time
	shown bool
}

func newProgress(i *invocation) *progress {
	return &progress{i, time.Now(), isTerminal(i.stderr) && !i.hooked}
}

func (p *progress) step(step hook.Step) {
	p.i.log.Debug("step begins", "step", step)
	p.tell(stepTexts[step])
}

func (p *progress) tell(text string) {
	if p.shown {
		fmt.Fprintf(p.i.stderr, "%7.3f s  %s\n", time.Since(p.began).Seconds(), say.OneLine(text))
	}
}

var stepTexts = map[hook.Step]string{
	hook.StepLook:     "asking the ports what they serve now",
	hook.StepValidate: "checking key and chain",
	hook.StepConsult:  "asking the DNS what senders expect (DANE)",
	hook.StepStage:    "writing a new generation",
	hook.StepSwitch:   "switching to it",
	hook.StepReload:   "reloading nginx, then dovecot",
	hook.StepVerify:   "asking every port for the new certificate",
	hook.StepSettle:   "all served; waiting for the front's own watcher to finish",
	hook.StepRollback: "refused: putting the old pair back",
}

// limited runs work in the time that a flag leaves.
func limited(ctx context.Context, flag string, limit time.Duration, work func(context.Context) (result, error)) (result, error) {
	if err := positive(flag, limit); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the time is up (--%s %s)", flag, limit))
	defer cancel()
	return work(ctx)
}
