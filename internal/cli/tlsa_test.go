package cli

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// resolves gives the world a resolver that knows a signed zone with these
// records.
func (w *world) resolves(records ...string) *rig.Zone {
	w.t.Helper()
	rig.Need(w.t, rig.NeedDNS)
	zone, err := rig.StartZone(w.t.Context(), w.t.TempDir(), rig.ZoneOptions{Signed: true, Records: append([]string{"mail 1 IN A 127.0.0.1"}, records...)})
	require.NoError(w.t, err)
	w.t.Cleanup(zone.Close)
	resolver, err := rig.StartResolver(w.t.Context(), w.t.TempDir(), zone)
	require.NoError(w.t, err)
	w.t.Cleanup(resolver.Close)
	w.env["MAILU_HOOK_RESOLVER"] = resolver.Addr
	return zone
}

// toPublish are the lines of a zone file that are not comments.
func toPublish(zone string) []string {
	var lines []string
	for line := range strings.Lines(zone) {
		if !strings.HasPrefix(line, ";") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestWhatTLSAPrintsCanBePublishedAsItIsAndThenMatches(t *testing.T) {
	w := newWorld(t)
	w.resolves()
	args := []string{"tlsa", "--lineage", w.lineage, "--hostname", "mail.example.com"}
	r := w.run(args...)
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.Contains(t, r.stdout, "\n; mail.example.com: none\n")
	lines := toPublish(r.stdout)
	leaf, issuer, root := dane.OfLeaf(w.pair.Cert).String(), dane.OfIssuer(w.ca.Issuer).String(), dane.OfIssuer(w.ca.Root).String()
	assert.Equal(t, []string{"_25._tcp.mail.example.com. IN TLSA " + leaf, "_25._tcp.mail.example.com. IN TLSA " + issuer}, lines)
	assert.Contains(t, r.stdout, "the root CN=mint root is not sent, so its record cannot match")
	assert.Contains(t, r.stdout, "\n; _25._tcp.mail.example.com. IN TLSA "+root+"\n")

	w.resolves(append([]string{"$TTL 60"}, lines...)...)
	r = w.run(args...)
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.Regexp(t, `\n; mail.example.com: match \([23] 1 1 [0-9a-f]{64}, TTL (1m0s|59s)\)\n$`, r.stdout)
}

func TestTLSATellsEachStateAndItsExitStatus(t *testing.T) {
	w := newWorld(t)
	other, _ := w.issue("other", mint.Leaf{})
	zone := w.resolves("_25._tcp.mail 1 IN TLSA "+dane.OfLeaf(other.Cert).String(), "old 1 IN A 127.0.0.1", "_25._tcp.old 1 IN TLSA 0 0 1 "+strings.Repeat("00", 32), "bare 1 IN A 127.0.0.1")
	cert := filepath.Join(w.lineage, "fullchain.pem")
	for name, c := range map[string]struct {
		hosts  string
		args   []string
		states []string
		status int
		says   string
	}{
		"mismatch":      {"mail.example.com", nil, []string{"mismatch"}, exitRejected, "hint: publish this in addition to what is there: _25._tcp.mail.example.com. IN TLSA " + dane.OfLeaf(w.pair.Cert).String()},
		"none":          {"bare.example.com", nil, []string{"none"}, exitOK, ""},
		"unusable":      {"old.example.com", nil, []string{"unusable"}, exitOK, ""},
		"insecure":      {"mail.example.com", []string{"--resolver", zone.Addr}, []string{"insecure"}, exitOK, ""}, // its own server vouches for nothing
		"unknown":       {"mail.example.net", nil, []string{"unknown"}, exitError, "error: looking up the published records: "},
		"the worst":     {"bare.example.com,mail.example.net,mail.example.com", nil, []string{"none", "unknown", "mismatch"}, exitRejected, "the TLSA records of mail.example.com do not match"},
		"no such host":  {"nowhere.example.com", nil, []string{"none"}, exitOK, ""},
		"two addresses": {"mail.example.com,192.0.2.1,2001:db8::1", nil, []string{"mismatch"}, exitRejected, ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"tlsa", "--cert", cert, "--hostname", c.hosts}, c.args...)
			r := w.run(append(args, "--output", "json")...)
			assert.Equal(t, c.status, r.status, r.stderr)
			assert.Contains(t, r.stderr, c.says)
			var states []string
			for _, p := range r.document(t)["published"].([]any) {
				states = append(states, p.(map[string]any)["state"].(string))
			}
			assert.Equal(t, c.states, states)
			text := w.run(args...)
			assert.Equal(t, c.status, text.status)
			assert.Equal(t, r.stderr, text.stderr)
			for _, state := range c.states {
				assert.Regexp(t, `(?m)^; \S+: `+state+`( |$)`, text.stdout)
			}
		})
	}
}

func TestTLSATakesWhatIsInstalledUnlessToldOtherwise(t *testing.T) {
	w := newWorld(t)
	w.resolves()
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.install().status)
	r := w.run("tlsa", "--output", "json")
	require.Equal(t, exitOK, r.status, r.stderr)
	doc := r.document(t)
	assert.Equal(t, filepath.Join(w.certs, "cert.pem"), doc["cert"])
	assert.Equal(t, w.pair.SHA256(), doc["leaf_sha256"])
	first := doc["records"].([]any)[0].(map[string]any)
	assert.Equal(t, map[string]any{
		"host": "mail.example.com", "of": "leaf", "sent": true, "subject": "CN=mail.example.com",
		"record": dane.OfLeaf(w.pair.Cert).String(), "line": "_25._tcp.mail.example.com. IN TLSA " + dane.OfLeaf(w.pair.Cert).String(),
	}, first)
}

func TestTheRecordOfTheNextKeyIsPrintedAndLookedFor(t *testing.T) {
	w := newWorld(t)
	next, _ := w.issue("next", mint.Leaf{})
	record := dane.OfLeaf(next.Cert).String()
	zone := w.resolves("_25._tcp.mail 1 IN TLSA " + dane.OfLeaf(w.pair.Cert).String())
	w.env["MAILU_HOOK_STATE_DIR"] = t.TempDir()
	dir := filepath.Join(w.env["MAILU_HOOK_STATE_DIR"], "renewal", "mail.example.com")
	args := []string{"tlsa", "--next", "--hostname", "mail.example.com"}

	r := w.run(args...)
	assert.Equal(t, exitError, r.status)
	assert.Contains(t, r.stderr, "no key is prepared")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "next.pem"), next.KeySEC1PEM, 0o600))
	assert.Equal(t, exitError, w.run(args...).status)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "next.pem"), next.KeyPEM, 0o600))
	r = w.run(args...)
	assert.Equal(t, exitOK, r.status, r.stderr)
	assert.Equal(t, []string{"_25._tcp.mail.example.com. IN TLSA " + record}, toPublish(r.stdout))
	assert.Contains(t, r.stdout, "; mail.example.com: not published (")

	require.NoError(t, zone.Replace(t.Context(), "_25._tcp.mail 1 IN TLSA "+dane.OfLeaf(w.pair.Cert).String(), "_25._tcp.mail 1 IN TLSA "+record))
	require.Eventually(t, func() bool { return strings.Contains(w.run(args...).stdout, "; mail.example.com: published ("+record) }, 10*time.Second, 100*time.Millisecond)
}

func TestTheADFlagOfAResolverElsewhereCountsOnlyWhenTrusted(t *testing.T) {
	w := newWorld(t)
	w.resolves("_25._tcp.mail 1 IN TLSA " + dane.OfLeaf(w.pair.Cert).String())
	elsewhere := relay(t, w.env["MAILU_HOOK_RESOLVER"])
	args := []string{"tlsa", "--cert", filepath.Join(w.lineage, "fullchain.pem"), "--hostname", "mail.example.com", "--resolver", elsewhere}
	assert.Contains(t, w.run(args...).stdout, "; mail.example.com: insecure (")
	assert.Contains(t, w.run(append(args, "--trust-ad")...).stdout, "; mail.example.com: match (")
	w.env["MAILU_HOOK_TRUST_AD"] = "true"
	assert.Contains(t, w.run(args...).stdout, "; mail.example.com: match (")
}

// relay passes on what is asked at an address of this host that is not loopback,
// and returns that address.
func relay(t *testing.T, resolver string) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	i := slices.IndexFunc(addrs, func(a net.Addr) bool {
		network, ok := a.(*net.IPNet)
		return ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast()
	})
	require.GreaterOrEqual(t, i, 0, "needs an address besides loopback, such as Docker's bridge")
	conn, err := net.ListenPacket("udp", net.JoinHostPort(addrs[i].(*net.IPNet).IP.String(), "0"))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			question := slices.Clone(buffer[:n])
			go func() {
				upstream, err := net.Dial("udp", resolver)
				if err != nil {
					return
				}
				defer upstream.Close()
				_, _ = upstream.Write(question)
				answer := make([]byte, 4096)
				if n, err := upstream.Read(answer); err == nil {
					_, _ = conn.WriteTo(answer[:n], from)
				}
			}()
		}
	}()
	return conn.LocalAddr().String()
}
