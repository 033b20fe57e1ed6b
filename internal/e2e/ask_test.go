package e2e

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestStatusAndTLSAAskAHostFromOutside(t *testing.T) {
	rig.Need(t, rig.NeedDNS)
	l, serving := startServing(t, rig.FrontOptions{})
	ip, err := l.front.IP(t.Context())
	require.NoError(t, err)
	stale, other := loopback(), l.issue(mint.Leaf{})
	pair, err := tls.X509KeyPair(other.Chain, other.KeyPEM)
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", net.JoinHostPort(stale, "443"), &tls.Config{Certificates: []tls.Certificate{pair}})
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}()
		}
	}()
	mail := "mail 1 IN A " + ip
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{Name: "example.com", Signed: true, Records: []string{mail, "_25._tcp.mail 1 IN TLSA " + leafRecord(serving), "none 1 IN TXT nothing"}})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	resolver, err := rig.StartResolver(t.Context(), t.TempDir(), zone)
	require.NoError(t, err)
	t.Cleanup(resolver.Close)
	engine := "DOCKER_HOST=unix:///var/run/docker.sock"
	l.env = append(l.env, "MAILU_HOOK_DANE=auto", "MAILU_HOOK_RESOLVER="+resolver.Addr, "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_PROJECT=")
	codes := func(s statusDocument) (all []string) {
		for _, f := range s.Findings {
			all = append(all, f.Code)
		}
		return all
	}

	seen := l.status(nil, "--ask", mailName)
	assert.Empty(t, codes(seen))
	assert.Equal(t, "ok", seen.Status)
	require.Len(t, seen.Fronts, 1)
	assert.Equal(t, mailName+"["+ip+"]", seen.Fronts[0].Container)
	assert.Equal(t, []string{"port_silent"}, codes(l.status(nil, "--ask", mailName, "--ports", "25,110")), "110 is closed, and was asked for")
	assert.Equal(t, []string{"port_silent"}, codes(l.status(nil, "--ask", "none.example.com")), "it has no address")
	r := l.run(nil, "status", "--ask", mailName, "--output", "prometheus")
	assert.Contains(t, r.stdout, `mailu_hook_port_up{container="`+mailName+`[`+ip+`]",port="993",protocol="imaps"} 1`)
	assert.Contains(t, l.run(nil, "status", "--ask", mailName, "--output", "nagios").stdout, "MAILU TLS OK - "+mailName+"["+ip+"] serves "+mailName+" on 6 ports until ")
	assert.Contains(t, l.run(nil, "status", "--ask", mailName).stdout, mailName+"["+ip+"]: as the world sees it")

	r = l.run(nil, "tlsa", "--ask", mailName)
	assert.Equal(t, 0, r.code)
	assert.Contains(t, r.stdout, "_25._tcp."+mailName+". IN TLSA "+leafRecord(serving))
	require.NoError(t, zone.Replace(t.Context(), "_25._tcp.mail 1 IN TLSA "+leafRecord(other)))
	require.NoError(t, resolver.WaitFor(t.Context(), "_25._tcp."+mailName, "TLSA", leafRecord(other)[6:]))
	assert.Equal(t, 3, l.run(nil, "tlsa", "--ask", mailName).code)
	assert.Equal(t, []string{"tlsa_mismatch"}, codes(l.status(nil, "--ask", mailName)))

	// A name that also leads to a stale address, compared with the front here.
	require.NoError(t, zone.Replace(t.Context(), mail, "mail 1 IN A "+stale, "_25._tcp.mail 1 IN TLSA "+leafRecord(serving)))
	require.NoError(t, resolver.WaitFor(t.Context(), mailName, "A", stale))
	require.NoError(t, resolver.WaitFor(t.Context(), "_25._tcp."+mailName, "TLSA", leafRecord(serving)[6:]))
	assert.Contains(t, codes(l.status(nil, "--ask", mailName)), "out_of_step")
	both := l.status([]string{engine}, "--ask", mailName, "--container", l.front.Name, "--ignore", "sync_timer_missing,not_adopted")
	assert.Subset(t, codes(both), []string{"out_of_step", "not_served"})
	assert.Len(t, both.Fronts, 3)
}
