package cli

import (
	"fmt"
	"strings"
	"time"

	"mailu-hook/internal/health"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// nagios is one line as monitoring plugins print it: the verdict, and after a
// bar the seconds that each certificate has left, with its thresholds
// (Monitoring Plugins Development Guidelines, "Plugin Output for Nagios").
func (s *status) nagios() string {
	text := say.Plain(s.summary())
	if n := len(s.findings); n > 1 {
		text += fmt.Sprintf(" (and %d more)", n-1)
	}
	line := fmt.Sprintf("MAILU TLS %s - %s", strings.ToUpper(health.Worst(s.findings).String()), strings.ReplaceAll(text, "|", "/"))
	if data := s.perfdata(); len(data) > 0 {
		line += " | " + strings.Join(data, " ")
	}
	return line + "\n"
}

func (s *status) perfdata() (data []string) {
	for i := range s.look.Fronts {
		f := &s.look.Fronts[i]
		prefix := ""
		if len(s.look.Fronts) > 1 {
			prefix = f.Container + "_"
		}
		for _, c := range s.certificates(f) {
			leaf := c.leaf
			seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
			data = append(data, fmt.Sprintf("%s%s=%ds;%d:;%d:;;%d", prefix, c.label,
				seconds(leaf.NotAfter.Sub(s.look.At)), seconds(s.options.Warn.Of(leaf)), seconds(s.options.Crit.Of(leaf)), seconds(pki.Lifetime(leaf))))
		}
	}
	return data
}
