package acme

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"mailu-hook/internal/say"
)

// label is compiled on first use, like all patterns with counts here: otherwise
// every run of the program would pay for it, including those that end at once.
var label = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
})

// CheckNames finds names that no CA would issue for, before a CA is asked and counts
// the refusal. private stands for a private CA, which may know names that the
// Internet does not. Each error has a hint.
func CheckNames(names []string, method Method, profile string, private bool) error {
	if len(names) == 0 {
		return say.Hint(fmt.Errorf("there is no name to order a certificate for"), "set it: --hostname mail.example.com")
	}
	for _, name := range names {
		if err := checkName(name, method, profile, private); err != nil {
			return err
		}
	}
	for _, name := range names {
		_, parent, _ := strings.Cut(name, ".")
		if wild := "*." + parent; name != wild && slices.Contains(names, wild) {
			return say.Hint(fmt.Errorf("%s is redundant: %s covers it, and CAs refuse to issue for both", say.Foreign(name), say.Foreign(wild)), "leave one of the two out of --hostname")
		}
	}
	return nil
}

func checkName(name string, method Method, profile string, private bool) error {
	refuse := func(hint, format string, args ...any) error {
		return say.Hint(fmt.Errorf("%s: %s", say.Foreign(name), fmt.Sprintf(format, args...)), "%s", hint)
	}
	const other = "correct HOSTNAMES in mailu.env, or set the names with --hostname"
	if ip, err := netip.ParseAddr(name); err == nil {
		switch {
		case ip.Zone() != "":
			return refuse(other, "an address with a zone is valid on one link only")
		case method == DNS: // RFC 8738, section 7
			return refuse("choose --challenge front, standalone or tls-alpn", "an IP address cannot be validated with dns-01")
		case profile == "" && !private:
			return refuse("set the profile; for Let's Encrypt: --profile shortlived", "CAs issue for an IP address only with a profile that allows it")
		}
		return nil
	}
	bare, wild := strings.CutPrefix(name, "*.")
	if wild && method != DNS { // RFC 8555, section 7.1.3: http-01 and tls-alpn-01 validate a single host
		return refuse("use --challenge dns --dns-provider NAME, or list each host", "a wildcard needs dns-01")
	}
	for part := range strings.SplitSeq(bare, ".") {
		if !label().MatchString(part) {
			return refuse(other, "not a valid host name")
		}
	}
	if len(bare) > 253 {
		return refuse(other, "longer than a host name may be")
	}
	if private {
		return nil
	}
	if !strings.Contains(bare, ".") {
		return refuse(other, "not a public name: it has no dot")
	}
	return nil
}
