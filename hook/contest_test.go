package hook

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
)

// The rules of the contract, "Which certificate is Mailu's", one by one.
func TestWhichCertificateWins(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	both := []string{"a.example.com", "b.example.com"}
	claim := func(source string, issued, expires time.Duration, names ...string) Claim {
		if names == nil {
			names = both
		}
		pair := issue(t, mint.Leaf{Names: names, NotBefore: now.Add(-issued), NotAfter: now.Add(expires)})
		return Claim{Leaf: pair.Cert, Source: source}
	}
	const mail, web = "/le/live/mail", "/le/live/web"
	fresh := claim(mail, 10*day, 80*day)
	late := claim(mail, 70*day, 20*day)
	gone := late
	gone.Gone = true
	goneFresh := fresh
	goneFresh.Gone = true
	sameDay := claim(mail, 10*day, 80*day)
	older := claim(mail, 40*day, 50*day)
	for name, c := range map[string]struct {
		installed *Claim
		candidate Claim
		change    func(*Contest)
		takes     bool
		reason    string
	}{
		"nothing installed":                        {nil, fresh, nil, true, ""},
		"the same again":                           {&fresh, fresh, nil, true, ""},
		"an expired one":                           {ptr(claim(mail, 90*day, -time.Hour)), claim(web, 20*day, 70*day, "a.example.com"), nil, true, ""},
		"its source's renewal":                     {&fresh, claim(mail, time.Hour, 90*day), nil, true, ""},
		"a reissue with the same start":            {&fresh, sameDay, nil, true, ""},
		"what its source holds, though older":      {&fresh, older, nil, true, ""},
		"a renewal that covers fewer names":        {&fresh, claim(mail, time.Hour, 90*day, "a.example.com"), nil, false, "does not cover b.example.com"},
		"another site's wildcard for the main one": {&late, claim(web, time.Hour, 90*day, "*.example.com"), nil, true, ""},
		"another source, newer, too early":         {&fresh, claim(web, time.Hour, 90*day), nil, false, "from /le/live/mail and not due for renewal until"},
		"another source, newer, in the last third": {&late, claim(web, time.Hour, 90*day), nil, true, ""},
		"another source, not newer":                {&late, claim(web, 75*day, 15*day), nil, false, "not newer"},
		"another source, the first one gone":       {&goneFresh, claim(web, time.Hour, 90*day), nil, true, ""},
		"another source, gone but not newer":       {&gone, claim(web, 75*day, 15*day), nil, false, "not newer"},
		"another source, of copied files":          {ptr(claim("", 10*day, 80*day)), claim(web, time.Hour, 90*day), nil, true, ""},
		"another source that covers more":          {ptr(claim(mail, 10*day, 80*day, "a.example.com")), claim(web, 20*day, 70*day), nil, true, ""},
		"another source that covers other names":   {ptr(claim(mail, 10*day, 80*day, "b.example.com")), claim(web, time.Hour, 90*day, "a.example.com"), nil, false, "does not cover b.example.com"},
		"what was rolled back from":                {&fresh, sameDay, func(c *Contest) { c.RolledBackFrom = []string{pki.Fingerprint(sameDay.Leaf)} }, false, "rolled back"},
		"the renewal after a rollback":             {&older, fresh, func(c *Contest) { c.RolledBackFrom = []string{pki.Fingerprint(sameDay.Leaf)} }, true, ""},
		"another than the pinned source":           {&late, claim(web, time.Hour, 90*day), func(c *Contest) { c.Pinned = mail }, false, "names another source, /le/live/mail"},
		"the pinned source":                        {&fresh, claim(web, 20*day, 70*day), func(c *Contest) { c.Pinned = web }, true, ""},
		"the pinned source that covers fewer":      {&fresh, claim(web, time.Hour, 90*day, "a.example.com"), func(c *Contest) { c.Pinned = web }, false, "does not cover"},
		"by hand, fewer names":                     {&fresh, claim(web, 20*day, 70*day, "a.example.com"), func(c *Contest) { c.ByHand = true }, true, ""},
		"by hand, what was rolled back from":       {&fresh, sameDay, func(c *Contest) { c.ByHand, c.RolledBackFrom = true, []string{pki.Fingerprint(sameDay.Leaf)} }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			contest := Contest{Installed: c.installed, Candidate: c.candidate, Names: both, Now: now}
			if c.change != nil {
				c.change(&contest)
			}
			takes, reason := contest.Decide()
			assert.Equal(t, c.takes, takes, reason)
			assert.Contains(t, reason, c.reason)
			assert.Equal(t, takes, reason == "", "a reason exactly where it stays")
		})
	}
}

func ptr(c Claim) *Claim { return &c }
