package health

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// outside judges what an address of a name shows to the world. Ports that were not
// named are only judged if something answers there: not every server has them all.
func (j *judgement) outside(f *Front) {
	if f.Unresolved != nil {
		j.find(Unknown, PortsUnseen, "try another resolver: --resolver ADDR", "%v", f.Unresolved)
		return
	}
	if f.Asked == nil {
		j.find(Critical, PortSilent, "publish an A or AAAA record, or name the host that has one", "%s has no address", f.name())
		return
	}
	var answering, silent []mailu.Endpoint
	for _, e := range f.Endpoints {
		switch {
		case e.Answers():
			answering = append(answering, e)
		case f.Named || errors.Is(e.Err, mailu.ErrWithout) || errors.Is(e.Err, mailu.ErrSilent):
			silent = append(silent, e)
		}
	}
	first := f.Endpoints[0]
	switch {
	case len(answering) == 0 && !slices.ContainsFunc(f.Endpoints, func(e mailu.Endpoint) bool { return !noRoute(e.Err) }):
		j.find(Unknown, PortsUnseen, "look from a host that has a route there, or take the address out of the DNS", "%s cannot be reached from this host: %v", f.name(), first.Err)
		return
	case len(answering) == 0:
		j.find(Critical, PortSilent, "is the mail server up, and do its firewall and the network let this host through?", "no port of %s answers with TLS; %s: %v", f.name(), first.Port, first.Err)
		return
	}
	for _, e := range silent {
		what := "does not answer"
		if errors.Is(e.Err, mailu.ErrWithout) || errors.Is(e.Err, mailu.ErrSilent) {
			what = "answers without TLS"
		}
		j.find(Critical, PortSilent, "run mailu-hook status on the mail host; does its firewall let this host through?", "%s of %s %s: %v", e.Port, f.name(), what, e.Err)
	}
	j.agree(f, answering)
}

// noRoute reports whether an address was not reached because this host has no way
// to it, as without IPv6.
func noRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// agree compares the ports with one another, with the first address of the same name,
// and with the front on this host, as far as these are known.
func (j *judgement) agree(f *Front, answering []mailu.Endpoint) {
	first := answering[0]
	if i := slices.IndexFunc(answering, func(e mailu.Endpoint) bool { return e.Leaf != first.Leaf }); i >= 0 {
		j.find(Warning, OutOfStep, "run mailu-hook status on the mail host", "%s shows different certificates: %s %.8s, %s %.8s", f.name(), first.Port, first.Leaf, answering[i].Port, answering[i].Leaf)
	}
	if installed := Leaf(f.Directory.Chain); installed != nil && !first.Chain[0].Equal(installed) {
		j.find(Warning, NotServed, "something in between answers, or the name leads elsewhere: an old address, a proxy, another node",
			"%s shows another certificate than the front on this host: issued on %s, and not on %s", f.name(), say.Day(first.Chain[0].NotBefore), say.Day(installed.NotBefore))
	}
	for i := range j.look.Fronts {
		other := &j.look.Fronts[i]
		if other == f {
			return
		}
		if !other.Outside || !slices.Equal(other.Hostnames, f.Hostnames) {
			continue
		}
		for _, e := range other.Endpoints {
			if e.Answers() && e.Leaf != first.Leaf {
				j.find(Warning, OutOfStep, "renew the certificate at every address, or take the stale one out of the DNS", "%s shows another certificate (%.8s) than %s (%.8s)", f.name(), first.Leaf, other.name(), e.Leaf)
				return
			}
		}
	}
}

// At is how an address of a name is called, as mail servers log it.
func At(host, address string) string { return fmt.Sprintf("%s[%s]", host, address) }
