package report

import (
	"fmt"
	"strings"
	"time"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Nagios is one line as monitoring plugins print it: the verdict, and after a
// bar the seconds that each certificate has left, with its thresholds
// (Monitoring Plugins Development Guidelines, "Plugin Output for Nagios").
func Nagios(r *Report) string {
	text := say.Plain(r.Summary())
	if n := len(r.Findings); n > 1 {
		text += fmt.Sprintf(" (and %d more)", n-1)
	}
	line := fmt.Sprintf("MAILU TLS %s - %s", strings.ToUpper(r.Worst().String()), strings.ReplaceAll(text, "|", "/"))
	if data := r.perfdata(); len(data) > 0 {
		line += " | " + strings.Join(data, " ")
	}
	return line + "\n"
}

func (r *Report) perfdata() (data []string) {
	for i := range r.Fronts {
		f := &r.Fronts[i]
		prefix := ""
		if len(r.Fronts) > 1 {
			prefix = f.Container + "_"
		}
		for _, c := range certificates(f) {
			leaf, life := c.chain[0], r.LifeOf(c.chain)
			seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
			data = append(data, fmt.Sprintf("%s%s=%ds;%d:;%d:;;%d", prefix, c.label,
				seconds(life.Left(r.At)), seconds(r.Options.Warn.Of(leaf)), seconds(r.Options.Crit.Of(leaf)), seconds(pki.Lifetime(leaf))))
		}
	}
	return data
}
