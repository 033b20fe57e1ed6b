package survey

import (
	"context"
	"slices"
	"sync"

	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/probe"
	"mailu-hook/internal/resolve"
)

const mostAddresses = 16 // of a name

// Outside is what names show to the world.
type Outside struct {
	Hosts    []string
	Ports    []mailu.Port // nil: all that a front can have
	Resolver *resolve.Resolver
}

// Look asks every address of every name.
func (o Outside) Look(ctx context.Context) []health.Front {
	byHost := make([][]health.Front, len(o.Hosts))
	var asking sync.WaitGroup
	for i, host := range o.Hosts {
		asking.Go(func() { byHost[i] = o.lookAt(ctx, host) })
	}
	asking.Wait()
	var all []health.Front
	for _, fronts := range byHost {
		all = append(all, fronts...)
	}
	return all
}

func (o Outside) lookAt(ctx context.Context, host string) []health.Front {
	base := health.Front{Outside: true, Named: o.Ports != nil}
	base.Hostnames, base.Ports, base.Container = []string{host}, o.Ports, host
	if o.Ports == nil {
		base.Ports = mailu.AllPorts()
	}
	addresses, err := o.Resolver.Addresses(ctx, host)
	if err != nil || len(addresses) == 0 {
		base.Unresolved = err
		return []health.Front{base}
	}
	addresses = addresses[:min(len(addresses), mostAddresses)]
	fronts := make([]health.Front, len(addresses))
	var asking sync.WaitGroup
	for i, addr := range addresses {
		asking.Go(func() {
			f := base
			f.Container, f.Asked = health.At(host, addr.String()), []string{addr.String()}
			f.Endpoints = probe.New(f.Facts, addr.String()).Look(ctx)
			fronts[i] = f
		})
	}
	asking.Wait()
	return fronts
}

// compare tells the addresses of a name what the front of that name on this host has
// installed.
func compare(outside, inside []health.Front) {
	for i := range outside {
		for _, f := range inside {
			if slices.ContainsFunc(f.Hostnames, func(name string) bool { return mailu.CanonicalName(name) == outside[i].Hostnames[0] }) {
				outside[i].Directory.Chain = f.Directory.Chain
			}
		}
	}
}
