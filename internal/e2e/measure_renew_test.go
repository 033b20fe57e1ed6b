//go:build measure

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// measureRenew measures first issuances and renewals of the three clients from
// the same CAs, which find each of them at the same address.
func measureRenew(t *testing.T, r *report) {
	require.FileExists(t, legoCommand(), "internal/rig/setup.sh bench builds it")
	rig.Need(t, rig.NeedStepCA)
	i := newIssuer(t, rig.CAOptions{})
	i.address = loopback()
	i.start(rig.FrontOptions{})
	require.NoError(t, i.front.Stop(t.Context())) // a certificate is installed, and nobody is asked
	step, err := rig.StartStepCA(t.Context(), t.TempDir(), i.acme.DNSAddr)
	require.NoError(t, err)
	t.Cleanup(step.Close)
	rounds := max(1, r.rounds/3)
	tab := newTable(4, "Obtaining and renewing", `By HTTP-01 on port 80 of the client itself, each client with its own defaults but for
that. Pebble does not sleep, and says Retry-After: 1; step-ca is done when it answers.
A first issuance registers an account; a renewal is forced. mailu-hook's wall time
includes its own look whether the CA will find the answer, and the installation in
the certs directory of a stopped front. It asks again after milliseconds whether a step
is done, then backs off and heeds Retry-After; the others wait for that, or for
intervals of their own. Where a CA takes seconds for a step, all of them come closer
to each other. `+plural(rounds, "round")+`.`,
		"", "wall, ms", "over mailu-hook's", "over lego's", "CPU, ms", "peak memory, MiB")
	for _, ca := range []acmeServer{{"Pebble", i.acme.DirectoryURL, i.acme.DirectoryCAFile, nil},
		{"step-ca", step.DirectoryURL, step.RootFile, []string{"MAILU_HOOK_SERVER=" + step.DirectoryURL, "MAILU_HOOK_CA_FILE=" + step.RootFile, "MAILU_HOOK_ROOTS=" + step.RootFile}}} {
		for _, count := range []int{1, 10} {
			names := []string{mailName}
			for n := 1; n < count; n++ {
				names = append(names, fmt.Sprintf("n%d.example.com", n))
			}
			i.lead(i.address, names...)
			clients := []client{i.ours(ca, names), i.lego(ca, names), i.certbot(ca, names)}
			for _, kind := range []struct {
				name string
				of   func(client) rival
			}{{"first issuance", client.first}, {"renewal", client.renewal}} {
				var rivals []rival
				for _, c := range clients {
					rivals = append(rivals, i.issuing(c, kind.of(c)))
				}
				all := alternate(t, rounds, rivals...)
				for _, f := range all {
					tab.row(ca.name+", "+f.name+", "+kind.name+", "+plural(len(names), "name"), f.wall, f.wall.over(all[0].wall), f.wall.over(all[1].wall), f.cpu, f.peak)
				}
			}
		}
	}
	r.add(tab)
}

// acmeServer is a CA, and what mailu-hook is told of it besides the issuer's own.
type acmeServer struct {
	name, directory, caFile string
	env                     []string
}

// client is an ACME client with all it keeps in one directory.
type client struct {
	name, dir  string
	chain      string // the file with what it obtained
	env        []string
	run, again []string // commands: the first time, and to renew by force
}

func (c client) first() rival {
	return rival{name: c.name, env: c.env, argv: c.run, before: func() { os.RemoveAll(c.dir) }}
}

func (c client) renewal() rival { return rival{name: c.name, env: c.env, argv: c.again} }

// issuing makes sure that each run of the client ends in another certificate.
func (i *issuer) issuing(c client, r rival) rival {
	var before []byte
	prepare := r.before
	r.before = func() {
		before, _ = os.ReadFile(c.chain)
		if prepare != nil {
			prepare()
		}
	}
	r.after = func() {
		after, err := os.ReadFile(c.chain)
		require.NoError(i.t, err)
		require.NotEqual(i.t, string(before), string(after), "after %s", r.name)
	}
	return r
}

func (i *issuer) ours(ca acmeServer, names []string) client {
	run := []string{binary, "renew", "--agree-tos", "--challenge", "standalone", "--listen", i.address + ":80"}
	for _, name := range names {
		run = append(run, "--hostname", name)
	}
	return client{name: "mailu-hook", dir: i.state, chain: filepath.Join(i.state, "live", mailName, "fullchain.pem"), env: slices.Concat(i.env, ca.env), run: run, again: append(slices.Clone(run), "--force", "--min-interval", "1s")}
}

func (i *issuer) lego(ca acmeServer, names []string) client {
	dir := filepath.Join(i.root, "lego")
	argv := []string{legoCommand(), "--path", dir, "--server", ca.directory, "--accept-tos", "--email", "admin@example.com",
		"--http", "--http.port", i.address + ":80"}
	for _, name := range names {
		argv = append(argv, "--domains", name)
	}
	return client{name: "lego", dir: dir, chain: filepath.Join(dir, "certificates", mailName+".crt"), env: []string{"LEGO_CA_CERTIFICATES=" + ca.caFile},
		run: append(slices.Clone(argv), "run"), again: append(slices.Clone(argv), "renew", "--days", "1000", "--no-random-sleep")}
}

func (i *issuer) certbot(ca acmeServer, names []string) client {
	dir := filepath.Join(i.root, "certbot")
	argv := func(command ...string) []string {
		return append(slices.Concat([]string{"certbot"}, command), "--config-dir", filepath.Join(dir, "config"),
			"--work-dir", filepath.Join(dir, "work"), "--logs-dir", filepath.Join(dir, "logs"), "--server", ca.directory, "--non-interactive")
	}
	run := append(argv("certonly", "--standalone"), "--agree-tos", "--register-unsafely-without-email", "--http-01-address", i.address, "--http-01-port", "80")
	for _, name := range names {
		run = append(run, "--domain", name)
	}
	return client{name: "certbot", dir: dir, chain: filepath.Join(dir, "config", "live", mailName, "fullchain.pem"), env: []string{"REQUESTS_CA_BUNDLE=" + ca.caFile},
		run: run, again: argv("renew", "--force-renewal", "--no-random-sleep-on-renew")}
}
