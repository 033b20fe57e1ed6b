package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"mailu-hook/internal/deploy"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
	"mailu-hook/internal/survey"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

// lookOptions say what a report is about, and how it judges.
type lookOptions struct {
	front    frontOptions
	lineages []string
	roots    string
	state    stateOptions
	mode     string // of DANE
	dns      resolverOptions
	ask      []string
	ports    []int
	judgingOptions
}

func (o *lookOptions) look(ctx context.Context, i *invocation) (*report.Report, error) {
	if err := positive("timeout", o.front.timeout); err != nil {
		return nil, err
	}
	judging, err := o.judging(i)
	if err != nil {
		return nil, err
	}
	looking, err := o.looking(i)
	if err != nil {
		return nil, err
	}
	if looking.Engine != nil {
		defer looking.Engine.Close()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.front.timeout, fmt.Errorf("the time is up (--timeout %s)", o.front.timeout))
	defer cancel()
	look, err := survey.Look(ctx, looking)
	if err != nil {
		return nil, err
	}
	r := report.Of(look, judging)
	return &r, nil
}

// judging is what the options say of how to judge.
func (o *lookOptions) judging(i *invocation) (health.Options, error) {
	h, err := o.judgingOptions.read(i)
	if err != nil {
		return h, err
	}
	mode, err := tlsa.ParseMode(o.mode)
	if err != nil {
		return h, usageError("--dane: %v", err)
	}
	h.RequireDANE = mode == tlsa.Require
	h.Pinned = i.settings(variable("lineage"))
	return h, nil
}

// looking is what the options say of where to look. The caller closes the engine.
func (o *lookOptions) looking(i *invocation) (s survey.Options, err error) {
	s = survey.Options{
		Fronts: o.front.selector(), Lineages: o.lineages, StateDir: o.state.stateDir, Certbot: o.state.certbotDir, RootsFile: o.roots,
		Recall: func() mailu.Facts {
			facts := deploy.Recall(o.state.stateDir, o.front.certsDir)
			if len(o.front.hostnames) > 0 {
				facts.Hostnames = o.front.hostnames
			}
			return facts
		},
		Override: func(facts *mailu.Facts) error { return deploy.Override(facts, o.front.certsDir, o.front.hostnames) },
	}
	if o.mode != string(tlsa.Off) { // it was parsed before
		if s.Resolver, err = o.dns.open(); err != nil {
			return s, err
		}
	}
	if s.Roots, err = readPool("roots", o.roots); err != nil {
		return s, err
	}
	if s.Roots == nil {
		s.Roots, s.RootsErr = x509.SystemCertPool()
	}
	if len(o.ask) > 0 {
		if s.Outside, err = o.outside(); err != nil {
			return s, err
		}
		if o.front.container == "" && o.front.project == "" {
			return s, nil
		}
	} else if o.ports != nil {
		return s, usageError("--ports needs --ask HOST")
	}
	if s.Engine, err = reload.Open(i.settings); err != nil {
		err = say.Hint(usageError("%v", err), "%s", cmp.Or(say.HintOf(err), "check DOCKER_HOST"))
	}
	return s, err
}

// outside is what the options say of names to look at as the world sees them.
func (o *lookOptions) outside() (survey.Outside, error) {
	var out survey.Outside
	for _, name := range o.ask {
		host := mailu.CanonicalName(name)
		if !mailu.IsHostname(host) {
			return out, usageError("--ask: %s is not a host name, such as mail.example.com", say.Foreign(name))
		}
		if !slices.Contains(out.Hosts, host) {
			out.Hosts = append(out.Hosts, host)
		}
	}
	all := mailu.AllPorts()
	for _, number := range o.ports {
		i := slices.IndexFunc(all, func(p mailu.Port) bool { return p.Number == number })
		if i < 0 {
			return out, usageError("--ports: %d is not a TLS port of a mail server", number)
		}
		if !slices.Contains(out.Ports, all[i]) {
			out.Ports = append(out.Ports, all[i])
		}
	}
	var err error
	out.Resolver, err = o.dns.open()
	return out, err
}
