package reload

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
)

// twins is a group of two fronts, each with an inside of its own. Their ports
// cannot be asked.
func twins(t *testing.T, insides ...*daemons) (Group, []*engine) {
	t.Helper()
	var g Group
	var engines []*engine
	for i, d := range insides {
		f, fake := frontOf(t, d)
		f.Container = []string{"mailu-front-1", "mailu-front-2"}[i]
		f.in.name = f.Container
		g, engines = append(g, f), append(engines, fake)
	}
	return g.named(), engines
}

func TestEveryFrontOfAGroupIsToldAndSettled(t *testing.T) {
	g, fakes := twins(t, &daemons{ps: []string{psWhole}}, &daemons{ps: []string{psWhole}})
	require.NoError(t, g.Reload(t.Context(), keeps))
	require.NoError(t, g.Explain(t.Context()))
	g.PauseWatcher()()
	require.NoError(t, g.Settle(t.Context(), time.Time{}))
	for _, fake := range fakes {
		assert.Subset(t, fake.ran(), []string{"nginx -t -q", "killall -HUP nginx", "killall -HUP dovecot", "doveconf -c /etc/dovecot/proxy.conf -h protocols", "chmod 644 /run/nginx.pid"})
	}
}

func TestRefusalOfOneFrontIsOneOfTheGroup(t *testing.T) {
	g, _ := twins(t, &daemons{ps: []string{psWhole}}, &daemons{ps: []string{psWhole}, statuses: map[string]int{"nginx": 1}})
	var refusal *mailu.Refusal
	err := g.Reload(t.Context(), keeps)
	require.True(t, errors.As(err, &refusal))
	assert.ErrorContains(t, err, "nginx in mailu-front-2: exit status 1")
}

func TestPortsOfAGroupSayWhoseTheyAre(t *testing.T) {
	g, _ := twins(t, &daemons{ps: []string{psWhole}}, &daemons{ps: []string{psWhole}})
	answers := g.Look(t.Context())
	require.Len(t, answers, 12)
	seen := map[mailu.Port]bool{}
	for _, e := range answers {
		seen[e.Port] = true
	}
	assert.Len(t, seen, 12, "no two ports are the same")
	assert.Equal(t, "port 25 (smtp) of mailu-front-1", answers[0].Port.String())
	assert.Equal(t, "port 25 (smtp) of mailu-front-2", answers[6].Port.String())
	assert.Len(t, g.Await(t.Context(), func(mailu.Endpoint) bool { return true }), 12)

	alone, _ := twins(t, &daemons{ps: []string{psWhole}})
	assert.Equal(t, "port 25 (smtp)", alone.Look(t.Context())[0].Port.String())
}

func TestFactsOfAGroupAreThoseOfAllItsFronts(t *testing.T) {
	g, _ := twins(t, &daemons{ps: []string{psWhole}}, &daemons{ps: []string{psWhole}})
	g[1].Hostnames = []string{"mail.example.com", "mail.example.org"}
	facts := g.Facts()
	assert.Equal(t, []string{"mail.example.com", "smtp.example.com", "mail.example.org"}, facts.Hostnames)
	assert.Len(t, facts.Ports, 12)
	assert.Equal(t, "/mailu/certs", facts.CertsDir)
	assert.Equal(t, []string{"mail.example.com", "smtp.example.com"}, g[0].Hostnames, "the fronts keep theirs")
}

func TestGroupIsIdleIfOneOfItsFrontsIs(t *testing.T) {
	for states, want := range map[[2]string]string{
		{"running", "running"}:   "",
		{"running", "paused"}:    "paused",
		{"exited", "restarting"}: "restarting",
		{"exited", "exited"}:     "exited",
	} {
		g := Group{{State: states[0]}, {State: states[1]}}
		got := ""
		if f := g.Idle(); f != nil {
			got = f.State
		}
		assert.Equal(t, want, got, states)
	}
}

func TestEachFrontOfAGroupRunsOrNotByItself(t *testing.T) {
	g, fakes := twins(t, &daemons{ps: []string{psWhole}}, &daemons{ps: []string{psWhole}})
	fakes[0].containers = map[string]string{frontID: answer(t, inState("exited"))}
	for of, want := range map[string]bool{"mailu-front-1": false, "mailu-front-2": true, "": false, "gone": false} {
		runs, err := g.Running(t.Context(), of)
		require.NoError(t, err)
		assert.Equal(t, want, runs, of)
	}
}

func TestOnlyFrontsThatRunAreActive(t *testing.T) {
	g := Group{{State: "running"}, {State: "paused"}, {State: "running"}, {State: "restarting"}}
	assert.Equal(t, Group{g[0], g[2]}, g.Active())
	assert.Nil(t, g[1:2].Active())
}

func TestMountsAreNamedInAlphabeticalOrder(t *testing.T) {
	f := describe(nowhere(t), fixture(t, mounting("/b:/certs/key.pem", "/a:/certs/cert.pem", "/c:/certs")))
	assert.ErrorContains(t, f.Suitable(), "/certs/cert.pem and /certs/key.pem is mounted as a single file")
}
