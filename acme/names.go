package acme

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"

	"mailu-hook/internal/say"
)

// label is compiled at its first use, like all patterns here with counts: each run
// of the program would pay for it, also those that end at once.
var label = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
})

// CheckNames finds the names for which no CA could issue, before one is asked
// and counts the refusal. private is a CA of the user's own, which may know
// names that the Internet does not. Each error comes with its remedy.
func CheckNames(names []string, method Method, profile string, private bool) error {
	if len(names) == 0 {
		return say.Hint(fmt.Errorf("no name is known to order a certificate for"), "name it: --hostname mail.example.com")
	}
	for _, name := range names {
		if err := checkName(name, method, profile, private); err != nil {
			return err
		}
	}
	return nil
}

func checkName(name string, method Method, profile string, private bool) error {
	refuse := func(hint, format string, args ...any) error {
		return say.Hint(fmt.Errorf("%s: %s", say.Foreign(name), fmt.Sprintf(format, args...)), "%s", hint)
	}
	const other = "correct HOSTNAMES in mailu.env, or name the right ones with --hostname"
	if ip, err := netip.ParseAddr(name); err == nil {
		switch {
		case ip.Zone() != "":
			return refuse(other, "an address of one network only")
		case method == DNS: // RFC 8738, section 7
			return refuse("choose --challenge front, standalone or tls-alpn", "an IP address cannot be proved by DNS")
		case profile == "" && !private:
			return refuse("name the profile, at Let's Encrypt --profile shortlived", "CAs certify an IP address only under a profile that allows it")
		}
		return nil
	}
	bare, wild := strings.CutPrefix(name, "*.")
	if wild && method != DNS { // RFC 8555, section 7.1.3: http-01 and tls-alpn-01 prove one host
		return refuse("use --challenge dns --dns-provider NAME, or name each host", "a wildcard can be proved by DNS only")
	}
	for part := range strings.SplitSeq(bare, ".") {
		if !label().MatchString(part) {
			return refuse(other, "not a host name")
		}
	}
	if len(bare) > 253 {
		return refuse(other, "longer than a host name can be")
	}
	if private {
		return nil
	}
	if !strings.Contains(bare, ".") {
		return refuse(other, "not a name of the Internet: it has no dot")
	}
	if suffix, icann := publicsuffix.PublicSuffix(bare); icann && suffix == bare {
		return refuse(other, "a public suffix, under which others register their names")
	}
	return nil
}
