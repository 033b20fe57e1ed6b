package resolve

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

// Addresses are those of the A and AAAA records of a name, sorted; none if it has
// none. An error means that one of the two could not be asked for.
func (r *Resolver) Addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	kinds := []uint16{dns.TypeA, dns.TypeAAAA}
	answers, errs := make([]answer, len(kinds)), make([]error, len(kinds))
	var asking sync.WaitGroup
	for i, kind := range kinds {
		asking.Go(func() { answers[i], errs[i] = r.ask(ctx, name, kind) })
	}
	asking.Wait()
	var found []netip.Addr
	for i, a := range answers {
		if errs[i] != nil {
			return nil, errs[i]
		}
		for _, record := range a.records {
			var addr netip.Addr
			switch record := record.(type) {
			case *dns.A:
				addr, _ = netip.AddrFromSlice(record.A)
			case *dns.AAAA:
				addr, _ = netip.AddrFromSlice(record.AAAA)
			}
			if addr = addr.Unmap(); addr.IsValid() {
				found = append(found, addr)
			}
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found), nil
}
