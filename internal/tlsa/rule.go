package tlsa

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/say"
)

// Mode is how much a deploy cares about DANE.
type Mode string

// The modes. The zero value is Auto.
const (
	Auto    Mode = "auto"    // a mismatch holds a certificate back
	Require Mode = "require" // so do records that cannot be checked
	Off     Mode = "off"     // the DNS is not asked
)

// Modes are all of them, the default first.
var Modes = []Mode{Auto, Require, Off}

// ParseMode reads a Mode; "" is Auto.
func ParseMode(text string) (Mode, error) {
	mode := Mode(text)
	if text == "" {
		mode = Auto
	}
	if !slices.Contains(Modes, mode) {
		return "", fmt.Errorf("%s is not one of auto, require, off", say.Foreign(text))
	}
	return mode, nil
}

// Guard holds a deploy back while senders that check DANE would not deliver to a
// server with that certificate. What it saw in the DNS it passes to saw, if that
// is not nil. For Off there is no guard.
func Guard(mode Mode, r *resolve.Resolver, hostnames []string, saw func([]Host)) hook.Guard {
	if mode == Off {
		return nil
	}
	return func(ctx context.Context, b *hook.Bundle) hook.Ruling {
		hosts := LookUp(ctx, r, MailHosts(hostnames), b.Chain)
		if saw != nil {
			saw(hosts)
		}
		return mode.Rule(hosts)
	}
}

// Rule decides what the DNS says about installing the chain that the hosts were
// compared with. One host that does not match holds everything back, because one
// certificate serves all.
func (m Mode) Rule(hosts []Host) hook.Ruling {
	var ruling hook.Ruling
	var wrong, lacking, unchecked, reasons []string
	for _, h := range hosts {
		switch h.State() {
		case Mismatch:
			wrong, lacking = append(wrong, h.Name), append(lacking, h.ZoneLine(h.Lacks))
		case Unusable:
			ruling.Warnings = append(ruling.Warnings, fmt.Sprintf("no TLSA record of %s is usable by mail servers: mailu-hook tlsa prints records that are", h.Name))
		case Unknown:
			unchecked, reasons = append(unchecked, h.Name), append(reasons, h.Err.Error())
		case Insecure:
			unchecked, reasons = append(unchecked, h.Name), append(reasons, fmt.Sprintf("the resolver did not validate those of %s (%s)", h.Name, h.Unvalidated()))
		}
		if h.Secure && h.Verdict != dane.None {
			ruling.Published = true
		}
		if h.Secure {
			ruling.TTL = max(ruling.TTL, h.TTL)
		}
	}
	if wrong != nil {
		ruling.Objection = Objection(wrong, lacking)
	}
	if unchecked != nil {
		ruling.Doubt = &hook.Rejection{
			Fact:   fmt.Sprintf("the TLSA records of %s could not be checked: %s", say.Names(unchecked), strings.Join(reasons, "; ")),
			Remedy: "use a validating resolver that runs on this host or that you trust: --resolver ADDR --trust-ad; or skip the check: --dane off",
		}
	}
	if m == Require && ruling.Objection == nil {
		ruling.Objection = ruling.Doubt
	}
	return ruling
}

// Objection is why a chain must not be served while the records of these hosts
// do not match it, and what to publish.
func Objection(hosts, lacking []string) *hook.Rejection {
	return &hook.Rejection{
		Fact:   fmt.Sprintf("the TLSA records of %s do not match it, so mail servers that check DANE would stop delivering", say.Names(hosts)),
		Remedy: "publish this in addition to what is there: " + strings.Join(lacking, "; "),
	}
}
