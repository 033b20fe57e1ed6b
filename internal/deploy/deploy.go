// Package deploy is one deploy as a caller wants it: it finds the front that a
// certificate is for and what is known of it, decides whether the certificate is
// Mailu's at all, and hands it to the transaction of package hook with the rules
// and the guard that go with it. The command line, sync, renew and the agent all
// use it. It knows no flag and prints nothing: what there is to say is in the
// Result and in errors with their hints.
package deploy

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

// ErrUsage means that the configuration is wrong or leaves a choice open. Nothing
// was touched.
var ErrUsage = errors.New("usage")

// usageErr is an ErrUsage that says what is wrong and nothing else.
type usageErr struct{ text string }

func (e usageErr) Error() string   { return e.text }
func (e usageErr) Is(t error) bool { return t == ErrUsage }

func usageError(hint, format string, args ...any) error {
	return say.Hint(usageErr{fmt.Sprintf(format, args...)}, "%s", hint)
}

// Caller is who asks for a deploy, which decides how much is taken for granted.
type Caller int

// The callers.
const (
	Person Caller = iota // at the keyboard: gets what was asked for, also if it is older
	Hook                 // certbot, for every lineage of the host: passes over what is not Mailu's
	Timer                // sync, renew or watch: does what is due
)

// Options say where certificates go and what they must satisfy. The zero value
// finds the only front and is strict.
type Options struct {
	Caller    Caller
	Settings  func(string) string // DOCKER_HOST and the like
	Front     reload.Selector
	Pinned    string   // the only lineage that may take over unasked; "": any
	StateDir  string   // "": mailu.DefaultStateDir
	Certbot   string   // certbot's directory; "": mailu.DefaultCertbotDir
	CertsDir  string   // "": what the container says, else what is remembered, else /mailu/certs
	Hostnames []string // nil: what the container says, and so on

	Roots          *x509.CertPool // nil: the system's
	AllowUntrusted bool
	AppendRoot     AppendRoot

	DANE     tlsa.Mode
	Resolver *resolve.Resolver // nil with DANE off
	Grace    time.Duration     // before the installed certificate expires, DANE holds nothing back

	Keep     int           // generations; 0: three
	Timeout  time.Duration // of one deploy; a rollback may take as long again
	DryRun   bool
	Progress func(hook.Step) // told of each step as it begins; may be nil
}

// Result is what became of a deploy, complete whatever the error.
type Result struct {
	hook.Result
	Source source.Source
	Front  *mailu.Facts // nil: nobody got as far as finding it
	DANE   []tlsa.Host  // what the DNS said, if it was asked
	DryRun bool
	Also   []Ended[Result] // where several groups of fronts were meant: what became of the others, none of it worse
}

// Note adds what there is to know besides the outcome, once.
func (r *Result) Note(text string) {
	if text != "" && !slices.Contains(r.Warnings, text) {
		r.Warnings = append(r.Warnings, text)
	}
}

// Failed is the Result of a deploy that ended with err before it began.
func Failed(err error) Result {
	return Result{Result: hook.Result{Outcome: hook.OutcomeOf(err)}}
}

// Install installs the certificate at src in the front that it is for, or in each of
// those whose main hostname it covers where there are several. After a nil error the
// Outcome says what was done; errors are those of hook.Deploy and reload.Find, or an
// ErrUsage.
//
// For a Hook a certificate that covers the main hostname of no front is another
// site's: skipped, without an error.
func Install(ctx context.Context, src source.Source, o Options) (Result, error) {
	var first *Target // which finds out what the certificate covers
	var names []string
	covers := func(f mailu.Facts) bool {
		if len(f.Hostnames) == 0 {
			return false
		}
		names = append(names, f.Hostnames[0])
		return anyCovers(first.leaves, f.Hostnames[0])
	}
	all := Each(o, covers, func(o Options) (Result, error) {
		t := newTarget(o)
		defer t.Close()
		first = cmp.Or(first, t)
		t.result.Source = src
		err := t.within(ctx, func(ctx context.Context) error { return t.install(ctx, src) })
		return t.finish(err)
	})
	if len(all) > 0 {
		return joined(all)
	}
	return first.finish(first.isNobodys(names))
}

func (t *Target) install(ctx context.Context, src source.Source) error {
	offer, err := hook.Read(ctx, src)
	if err != nil {
		return err
	}
	t.leaves = offer.Leaves()
	bundle, readErr := offer.For(t.o.Hostnames)
	leaf, err := t.leafOf(bundle, readErr)
	if err != nil && len(offer.Pairs) == 1 {
		return err
	}
	t.result.Bundle = bundle
	if foreign, err := t.isForeign(ctx); foreign || err != nil {
		return err
	}
	if err := t.locate(ctx); err != nil {
		return err
	}
	if len(offer.Pairs) > 1 { // now it is known for which names
		if bundle, readErr = offer.For(t.Facts.Hostnames); readErr != nil {
			return readErr
		}
		leaf, t.result.Bundle = bundle.Leaf(), bundle
	}
	if bundle != nil {
		t.result.Source = bundle.Source
	}
	if t.o.DryRun {
		t.result.Note(told(offer, leaf))
	}
	if ours, err := t.isOurs(t.result.Source.CertFile, leaf); !ours || err != nil {
		return err
	}
	if readErr != nil {
		return readErr
	}
	if err := t.openStore(ctx); err != nil {
		return err
	}
	if bundle, err = t.withRoot(bundle); err != nil {
		return err
	}
	return t.deploy(ctx, bundle, t.options())
}

// told is what a source was taken for, and which of its certificates was chosen.
func told(offer hook.Offer, leaf *x509.Certificate) string {
	text := "the source is " + offer.Kind
	if n := len(offer.Pairs); n > 1 {
		text += fmt.Sprintf(" with %d certificates, of which the one for %s was chosen", n, say.Names(leaf.DNSNames))
	}
	return text
}

func anyCovers(leaves []*x509.Certificate, name string) bool {
	return slices.ContainsFunc(leaves, func(leaf *x509.Certificate) bool { return len(hook.Missing(leaf, []string{name})) == 0 })
}

// leafOf is the leaf that was to be installed. Whether it is Mailu's can be told
// even of a pair that was rejected, as long as it could be read; a damaged
// lineage of another site is none of our business.
func (t *Target) leafOf(b *hook.Bundle, readErr error) (*x509.Certificate, error) {
	var rejected *hook.Rejection
	switch {
	case readErr == nil:
		return b.Leaf(), nil
	case t.o.Caller == Hook && errors.As(readErr, &rejected) && rejected.Leaf != nil:
		return rejected.Leaf, nil
	}
	return nil, readErr
}

// isOurs compares the leaf with the front's hostnames. One that does not cover
// the main name is another site's, which for a hook is no error.
func (t *Target) isOurs(file string, leaf *x509.Certificate) (bool, error) {
	names := t.Facts.Hostnames
	if len(names) == 0 {
		if t.o.Caller == Hook {
			return false, usageError("add to /etc/mailu-hook.conf the line MAILU_HOOK_HOSTNAME=mail.example.com",
				"no hostname of the mail server is known, so nothing was installed: this host may have certificates of other sites")
		}
		t.result.Note("no hostname of the mail server is known, so the names were not checked")
		return true, nil
	}
	missing := hook.Missing(leaf, names)
	if beyond := hook.Beyond(leaf, names); len(missing) < len(names) && len(beyond) > 0 {
		t.result.Note("its key, which the front can read, also speaks for " + say.Names(beyond))
	}
	switch {
	case len(missing) == 0:
	case missing[0] != names[0]:
		t.result.Note("does not cover " + say.Names(missing))
	case t.o.Caller == Hook:
		t.result.Warnings = nil // notes about Mailu do not belong in the report on another site
		t.passOver(names[:1])
		return false, nil
	default:
		return false, uncovered(file, leaf, fmt.Sprintf("%s, the main hostname of the mail server", names[0]))
	}
	return true, nil
}

// isNobodys ends the run for a certificate that is for none of several fronts, whose
// main hostnames are names.
func (t *Target) isNobodys(names []string) error {
	if t.o.Caller == Hook {
		t.passOver(names)
		return nil
	}
	return uncovered(t.result.Source.CertFile, t.leaves[0], "the main hostname of any mail server here: "+say.Names(names))
}

func uncovered(file string, leaf *x509.Certificate, what string) error {
	return &hook.Rejection{
		File: file, Leaf: leaf,
		Fact:   fmt.Sprintf("it does not cover %s (it covers %s)", what, covered(leaf)),
		Remedy: "name the right lineage, or give the mail server's name with --hostname",
	}
}

func covered(leaf *x509.Certificate) string {
	if len(leaf.DNSNames) == 0 {
		return "no name"
	}
	return say.Names(leaf.DNSNames)
}

// isForeign recognizes another site's lineage by one question to the engine:
// what the fronts said of themselves last time is still true as long as their
// containers exist. Hosts with many sites call the hook for each of them.
func (t *Target) isForeign(ctx context.Context) (bool, error) {
	if t.o.Caller != Hook {
		return false, nil
	}
	if err := t.openEngine(); err != nil {
		return false, err
	}
	limited, cancel := t.engineTime(ctx)
	defer cancel()
	var fronts []mailu.Facts
	var names []string
	for _, c := range reload.Candidates(limited, t.engine, t.o.Front) {
		facts, known := Remembered(t.o.StateDir, c.CertsDir)
		if !known || facts.ID != c.ID || t.override(&facts) != nil || anyCovers(t.leaves, facts.Hostnames[0]) {
			return false, nil // then everything has to be found out
		}
		fronts, names = append(fronts, facts), append(names, facts.Hostnames[0])
	}
	switch len(fronts) {
	case 0:
		return false, nil
	case 1:
		t.result.Front = &fronts[0]
	}
	t.passOver(names)
	return true, nil
}

// passOver skips a certificate that covers none of the main hostnames.
func (t *Target) passOver(names []string) {
	t.result.Outcome = hook.OutcomeSkipped
	t.result.Reason = "not Mailu's: it does not cover " + names[0]
	if len(names) > 1 {
		t.result.Reason = "not Mailu's: it covers none of " + say.Names(names)
	}
}
