package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestPageKeepsTo80ColumnsAndLosesNoWord(t *testing.T) {
	for name, text := range map[string]string{
		"short":    "installed",
		"words":    strings.Repeat("serves it on 25, 443, ", 20),
		"one word": strings.Repeat("/path", 50),
		"unicode":  strings.Repeat("„Umlaute äöü“ ", 30),
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			(&page{out: &out}).quote(text)
			said := ""
			for line := range strings.Lines(out.String()) {
				assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 80)
				said += strings.TrimLeft(line, "| ")
			}
			squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
			assert.Equal(t, squeeze(text), squeeze(said))
		})
	}
}

func TestPageShowsPathsByTheirShortNames(t *testing.T) {
	var out strings.Builder
	p := &page{out: &out}
	p.shorten("/tmp/demo123", "$DEMO")
	p.command("ls /tmp/demo123/mailu")
	assert.Equal(t, "    $ ls $DEMO/mailu\n", out.String())
}

func TestOfHookPicksTheHookAndTheVerdict(t *testing.T) {
	const certbot = `Saving debug log to /x/letsencrypt.log
- - - -
Processing /x/renewal/mail.example.com.conf
Hook 'deploy-hook' reported error code 4
Hook 'deploy-hook' ran with error output:
 mailu-hook: error: refused
- - - -
Congratulations, all renewals succeeded: 
  /x/live/mail.example.com/fullchain.pem (success)
`
	assert.Equal(t, `Hook 'deploy-hook' reported error code 4
Hook 'deploy-hook' ran with error output
 mailu-hook: error: refused
Congratulations, all renewals succeeded
`, ofHook(certbot))
}
