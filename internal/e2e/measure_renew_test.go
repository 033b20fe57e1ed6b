//go:build measure

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// measureRenew measures first issuances and renewals of the three clients from
// the same CA, which finds each of them at the same address.
func measureRenew(t *testing.T, r *report) {
	require.FileExists(t, legoCommand(), "internal/rig/setup.sh bench builds it")
	i := newIssuer(t, rig.CAOptions{})
	i.address = loopback()
	i.start(rig.FrontOptions{})
	require.NoError(t, i.front.Stop(t.Context())) // a certificate is installed, and nobody is asked
	rounds := max(1, r.rounds/3)
	tab := newTable(4, "Obtaining and renewing", `From a Pebble that does not sleep and says Retry-After: 1, by HTTP-01 on port 80 of
the client itself, each client with its own defaults but for that. A first
issuance registers an account; a renewal is forced. mailu-hook's wall time
includes its own look whether the CA will find the answer, and the installation
in the certs directory of a stopped front. It asks 250 ms after each step whether
that is done, and heeds Retry-After from then on; the others wait for it, or for
intervals of their own. Where a CA takes seconds for a step, all of them come
closer to each other. `+plural(rounds, "round")+`.`,
		"", "wall, ms", "over mailu-hook's", "CPU, ms", "peak memory, MiB")
	for _, names := range [][]string{{"mail.example.com"}, {"mail.example.com", "imap.example.com"}} {
		i.lead(i.address, names...)
		clients := []client{i.ours(names), i.lego(names), i.certbot(names)}
		for _, kind := range []struct {
			name string
			of   func(client) rival
		}{{"first issuance", client.first}, {"renewal", client.renewal}} {
			var rivals []rival
			for _, c := range clients {
				rivals = append(rivals, i.issuing(kind.of(c)))
			}
			all := alternate(t, rounds, rivals...)
			for _, f := range all {
				tab.row(f.name+", "+kind.name+", "+plural(len(names), "name"), f.wall, f.wall.over(all[0].wall), f.cpu, f.peak)
			}
		}
	}
	r.add(tab)
}

// client is an ACME client with all it keeps in one directory.
type client struct {
	name, dir  string
	env        []string
	run, again []string // commands: the first time, and to renew by force
}

func (c client) first() rival {
	return rival{name: c.name, env: c.env, argv: c.run, before: func() { os.RemoveAll(c.dir) }}
}

func (c client) renewal() rival { return rival{name: c.name, env: c.env, argv: c.again} }

// issuing makes sure that each run of the rival ends in one more certificate.
func (i *issuer) issuing(r rival) rival {
	issued := func() int {
		n, err := i.acme.Issued()
		require.NoError(i.t, err)
		return n
	}
	before, prepare := 0, r.before
	r.before = func() {
		if before = issued(); prepare != nil {
			prepare()
		}
	}
	r.after = func() { require.Equal(i.t, before+1, issued(), "certificates, after %s", r.name) }
	return r
}

func (i *issuer) ours(names []string) client {
	run := []string{binary, "renew", "--agree-tos", "--challenge", "standalone", "--listen", i.address + ":80"}
	for _, name := range names {
		run = append(run, "--hostname", name)
	}
	return client{name: "mailu-hook", dir: i.state, env: i.env, run: run, again: append(slices.Clone(run), "--force", "--min-interval", "1s")}
}

func (i *issuer) lego(names []string) client {
	dir := filepath.Join(i.root, "lego")
	argv := []string{legoCommand(), "--path", dir, "--server", i.acme.DirectoryURL, "--accept-tos", "--email", "admin@example.com",
		"--http", "--http.port", i.address + ":80"}
	for _, name := range names {
		argv = append(argv, "--domains", name)
	}
	return client{name: "lego", dir: dir, env: []string{"LEGO_CA_CERTIFICATES=" + i.acme.DirectoryCAFile},
		run: append(slices.Clone(argv), "run"), again: append(slices.Clone(argv), "renew", "--days", "1000", "--no-random-sleep")}
}

func (i *issuer) certbot(names []string) client {
	dir := filepath.Join(i.root, "certbot")
	argv := func(command ...string) []string {
		return append(slices.Concat([]string{"certbot"}, command), "--config-dir", filepath.Join(dir, "config"),
			"--work-dir", filepath.Join(dir, "work"), "--logs-dir", filepath.Join(dir, "logs"), "--server", i.acme.DirectoryURL, "--non-interactive")
	}
	run := append(argv("certonly", "--standalone"), "--agree-tos", "--register-unsafely-without-email", "--http-01-address", i.address, "--http-01-port", "80")
	for _, name := range names {
		run = append(run, "--domain", name)
	}
	return client{name: "certbot", dir: dir, env: []string{"REQUESTS_CA_BUNDLE=" + i.acme.DirectoryCAFile},
		run: run, again: argv("renew", "--force-renewal", "--no-random-sleep-on-renew")}
}
