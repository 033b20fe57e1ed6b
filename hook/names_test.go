package hook

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"

	"mailu-hook/internal/mint"
)

func TestLeafCoversANameAsRFC9525Says(t *testing.T) {
	for name, c := range map[string]struct {
		sans   []string
		name   string
		covers bool
	}{
		"equal":                                {[]string{"mail.example.com"}, "mail.example.com", true},
		"second of two":                        {[]string{"a.example.com", "mail.example.com"}, "mail.example.com", true},
		"spaces around":                        {[]string{"mail.example.com"}, "\tmail.example.com ", true},
		"upper case asked":                     {[]string{"mail.example.com"}, "MAIL.Example.COM", true},
		"upper case issued":                    {[]string{"Mail.EXAMPLE.com"}, "mail.example.com", true},
		"trailing dot":                         {[]string{"mail.example.com"}, "mail.example.com.", true},
		"trailing dot issued":                  {[]string{"mail.example.com."}, "mail.example.com", false},
		"blank issued":                         {[]string{" mail.example.com"}, "mail.example.com", false},
		"other name":                           {[]string{"www.example.com"}, "mail.example.com", false},
		"parent":                               {[]string{"example.com"}, "mail.example.com", false},
		"suffix without a dot":                 {[]string{"example.com"}, "notexample.com", false},
		"U-label asked, A-label issued":        {[]string{"xn--mxl-tqa.example.com"}, "mäxl.example.com", false}, // another word
		"U-label of the A-label":               {[]string{"mail.xn--bcher-kva.example"}, "mail.bücher.example", true},
		"upper-case U-label":                   {[]string{"mail.xn--bcher-kva.example"}, "Mail.BÜCHER.example", true},
		"wildcard, one label":                  {[]string{"*.example.com"}, "mail.example.com", true},
		"wildcard, A-label":                    {[]string{"*.example.com"}, "bücher.example.com", true},
		"wildcard below a U-label":             {[]string{"*.xn--bcher-kva.example"}, "mail.bücher.example", true},
		"wildcard, two labels":                 {[]string{"*.example.com"}, "a.b.example.com", false},
		"wildcard, no label":                   {[]string{"*.example.com"}, "example.com", false},
		"wildcard, empty label":                {[]string{"*.example.com"}, ".example.com", false},
		"wildcard of a top-level domain":       {[]string{"*.com"}, "example.com", false},
		"partial wildcard":                     {[]string{"m*.example.com"}, "mail.example.com", false},
		"wildcard not leftmost":                {[]string{"mail.*.com"}, "mail.example.com", false},
		"wildcard alone":                       {[]string{"*"}, "localhost", false},
		"the wildcard itself is what is asked": {[]string{"*.example.com"}, "*.example.com", true},
		"underscore":                           {[]string{"_x.example.com"}, "_x.example.com", true},
		"empty name":                           {[]string{"mail.example.com"}, " ", false},
		"an address is no name":                {[]string{"192.0.2.1"}, "192.0.2.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := issue(t, mint.Leaf{Names: c.sans}).Cert
			missing := Missing(leaf, []string{c.name})
			if c.covers {
				assert.Empty(t, missing)
			} else {
				assert.Equal(t, []string{c.name}, missing)
			}
		})
	}
}

func TestAddressesAreComparedAsAddresses(t *testing.T) {
	leaf := issue(t, mint.Leaf{Names: []string{"mail.example.com"}, IPs: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")}}).Cert
	asked := []string{"192.0.2.1", "2001:DB8:0::1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8::2"}
	assert.Equal(t, []string{"192.0.2.2", "2001:db8::2"}, Missing(leaf, asked))
}

func TestMissingKeepsOrderAndSpelling(t *testing.T) {
	leaf := issue(t, mint.Leaf{}).Cert
	assert.Equal(t, []string{"Z.example.com", "a.example.com"}, Missing(leaf, []string{"Z.example.com", "mail.example.com", "a.example.com"}))
	assert.Empty(t, Missing(leaf, nil))
}

func TestCommonNameDoesNotCount(t *testing.T) {
	leaf := issue(t, mint.Leaf{Names: []string{"mail.example.com"}, IPs: nil}).Cert
	leaf.DNSNames = nil
	assert.Equal(t, "mail.example.com", leaf.Subject.CommonName)
	assert.Equal(t, []string{"mail.example.com"}, Missing(leaf, []string{"mail.example.com"}))
}
