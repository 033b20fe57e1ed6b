package mailu

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

func parse(environment map[string]string) Facts {
	return ParseEnvironment(func(name string) string { return environment[name] })
}

func numbers(ports []Port) []int {
	var n []int
	for _, p := range ports {
		n = append(n, p.Number)
	}
	return n
}

// The rules are those of clean_env in core/base/libs/socrate/socrate/system.py
// and of the listeners in core/nginx/conf/nginx.conf and
// core/nginx/dovecot/proxy.conf: 25 is always open, 443, 465 and 993 are if TLS
// lists them, 995 if both lists do, the others if PORTS does.
func TestOpenPortsAreThoseOfSocrate(t *testing.T) {
	for name, c := range map[string]struct {
		environment map[string]string
		want        []int
	}{
		"defaults":                {nil, []int{25, 443, 465, 993, 995, 4190}},
		"plain ports as well":     {map[string]string{"PORTS": "25,80,110,143,443,465,587,993,995,4190"}, []int{25, 110, 143, 443, 465, 587, 993, 995, 4190}},
		"PORTS does not gate TLS": {map[string]string{"PORTS": "25"}, []int{25, 443, 465, 993}},
		"TLS does not gate PORTS": {map[string]string{"TLS": "443"}, []int{25, 443, 4190}},
		"995 wants both":          {map[string]string{"PORTS": "995", "TLS": "995"}, []int{25, 995}},
		"995 in TLS only":         {map[string]string{"PORTS": "25", "TLS": "995"}, []int{25}},
		"unknown ones":            {map[string]string{"PORTS": "25,8080,smtp", "TLS": "25,587"}, []int{25}},
		"no trimming":             {map[string]string{"PORTS": "25, 4190,143 ", "TLS": "443, 993"}, []int{25, 443}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, numbers(parse(c.environment).Ports))
		})
	}
}

func TestAFrontWhosePortsLeaveOut80CannotAnswerByHTTP(t *testing.T) {
	assert.False(t, parse(nil).NoHTTP)
	assert.False(t, parse(map[string]string{"PORTS": "25,80,443"}).NoHTTP)
	assert.True(t, parse(map[string]string{"PORTS": "25,443,8080"}).NoHTTP)
}

func TestPortsSpeakTheirProtocols(t *testing.T) {
	f := parse(map[string]string{"PORTS": "25,80,110,143,443,465,587,993,995,4190"})
	assert.Equal(t, []Port{
		{Number: 25, Protocol: "smtp"},
		{Number: 110, Protocol: "pop3"},
		{Number: 143, Protocol: "imap"},
		{Number: 443, Protocol: "https", Implicit: true},
		{Number: 465, Protocol: "submissions", Implicit: true},
		{Number: 587, Protocol: "submission"},
		{Number: 993, Protocol: "imaps", Implicit: true},
		{Number: 995, Protocol: "pop3s", Implicit: true},
		{Number: 4190, Protocol: "sieve"},
	}, f.Ports)
}

func TestProxyProtocolCoversThePortsOfSocrate(t *testing.T) {
	everything := []int{25, 110, 143, 443, 465, 587, 993, 995, 4190}
	mail := []int{25, 110, 143, 465, 587, 993, 995, 4190}
	for list, want := range map[string][]int{
		"":               nil,
		"all":            everything,
		"all-but-http":   everything, // "http" is port 80
		"mail":           mail,
		"25":             {25},
		"443,993":        {443, 993},
		"80":             nil,
		"mail,443":       everything,
		"25, 993":        {25},
		"true":           nil,
		"4430":           nil,
		"all-but-http,x": everything,
	} {
		t.Run(list, func(t *testing.T) {
			f := parse(map[string]string{"PROXY_PROTOCOL": list, "PORTS": "110,143,587,995,4190"})
			var proxied []Port
			for _, p := range f.Ports {
				if p.Proxy {
					proxied = append(proxied, p)
				}
			}
			assert.Equal(t, want, numbers(proxied))
		})
	}
}

func TestNginxOfMailu20ServesAllMailPortsWhateverIsSet(t *testing.T) {
	for list, want := range map[string][]int{ // nginx.conf of 2.0: all, mail or http
		"":     nil,
		"all":  {25, 110, 143, 443, 465, 587, 993, 995},
		"mail": {25, 110, 143, 465, 587, 993, 995},
		"http": {443},
	} {
		ports := NginxOnly(list)
		assert.Equal(t, []int{25, 110, 143, 443, 465, 587, 993, 995}, numbers(ports))
		var proxied []Port
		for _, p := range ports {
			if p.Proxy {
				proxied = append(proxied, p)
			}
		}
		assert.Equal(t, want, numbers(proxied), list)
	}
	assert.Len(t, parse(map[string]string{"PORTS": "4190"}).Ports, 5, "the table itself is not changed")
}

func TestNamesAndFilesAreRead(t *testing.T) {
	f := parse(map[string]string{
		"HOSTNAMES":            "mail.example.com, imap.example.com ,,",
		"TLS_FLAVOR":           "mail",
		"TLS_CERT_FILENAME":    "fullchain.crt",
		"TLS_KEYPAIR_FILENAME": "private.key",
	})
	assert.Equal(t, []string{"mail.example.com", "imap.example.com"}, f.Hostnames)
	assert.Equal(t, "mail", f.Flavor)
	assert.Equal(t, "fullchain.crt", f.CertName)
	assert.Equal(t, "private.key", f.KeyName)
	f = parse(nil)
	assert.Empty(t, f.Hostnames)
	assert.Equal(t, "cert.pem", f.CertName)
	assert.Equal(t, "key.pem", f.KeyName)
}

func TestQuotesAroundHostnamesAreTakenOff(t *testing.T) {
	for _, value := range []string{`"mail.example.com,imap.example.com"`, `'mail.example.com, imap.example.com'`, `"mail.example.com", 'imap.example.com'`, ` "mail.example.com,imap.example.com" `} {
		assert.Equal(t, []string{"mail.example.com", "imap.example.com"}, parse(map[string]string{"HOSTNAMES": value}).Hostnames, value)
	}
}

func TestMainHostnameThatIsNoHostNameIsAConfigurationError(t *testing.T) {
	for _, value := range []string{`"mail.example.com`, "mail example.com", "https://mail.example.com", "mail.example.com:443", "-mail.example.com", "mail..example.com", "*", "mail.*.example.com", "$HOSTNAME", strings.Repeat("a", 64) + ".example.com"} {
		err := parse(map[string]string{"HOSTNAMES": value + ",imap.example.com"}).CheckHostnames()
		require.ErrorIs(t, err, ErrUnsuitable, value)
		assert.ErrorContains(t, err, "is not a host name")
		assert.Contains(t, say.HintOf(err), "HOSTNAMES")
	}
	for _, value := range []string{"", "mail.example.com", "MAIL.example.com.", "mäil.example.com", "mail", "a_b.example.com", "*.example.com", "mail.example.com,$HOSTNAME"} {
		assert.NoError(t, parse(map[string]string{"HOSTNAMES": value}).CheckHostnames(), value)
	}
}

func TestNoSecretIsEverAskedFor(t *testing.T) {
	allowed := []string{"HOSTNAMES", "TLS_FLAVOR", "TLS_CERT_FILENAME", "TLS_KEYPAIR_FILENAME", "PORTS", "TLS", "PROXY_PROTOCOL"}
	ParseEnvironment(func(name string) string {
		assert.Contains(t, allowed, name)
		return ""
	})
}

func TestFlavorsThatIgnoreTheCertsDirectoryAreRefused(t *testing.T) {
	for flavor, c := range map[string]struct{ fact, hint string }{
		"letsencrypt":      {"obtains its own certificates and ignores cert.pem and key.pem", "TLS_FLAVOR=cert"},
		"mail-letsencrypt": {"obtains its own certificates", "TLS_FLAVOR=cert"},
		"notls":            {"serves no TLS", "TLS_FLAVOR=cert"},
		"cret":             {`Mailu has no TLS_FLAVOR "cret"`, "TLS_FLAVOR=cert"},
		"a\x1b[31mb\nc":    {`"a [31mb c"`, "TLS_FLAVOR=cert"},
	} {
		err := parse(map[string]string{"TLS_FLAVOR": flavor}).CheckFlavor()
		require.ErrorIs(t, err, ErrUnsuitable)
		assert.ErrorContains(t, err, c.fact)
		assert.Contains(t, say.HintOf(err), c.hint)
	}
	for _, flavor := range []string{"cert", "mail", ""} {
		assert.NoError(t, parse(map[string]string{"TLS_FLAVOR": flavor}).CheckFlavor(), flavor)
	}
}

func TestOnlyNamesOfTheDirectoryItselfArePlain(t *testing.T) {
	for name, plain := range map[string]bool{
		"cert.pem": true, "a b.pem": true, ".hidden": true, "..pem": true, "tls\\cert.pem": true,
		"": false, ".": false, "..": false, "/": false, "//": false, "/cert.pem": false, "tls/cert.pem": false,
		"../cert.pem": false, "cert.pem/": false, "cert\x00.pem": false,
	} {
		assert.Equal(t, plain, PlainName(name), "%q", name)
	}
}

func TestEndpointAnswersWhenItShowedALeaf(t *testing.T) {
	silent := Endpoint{Err: errors.New("connection refused")}
	assert.False(t, silent.Answers())
	assert.False(t, AnyAnswers([]Endpoint{silent, {}}))
	assert.False(t, AnyAnswers(nil))
	assert.True(t, AnyAnswers([]Endpoint{silent, {Leaf: "00ff"}}))
}

func TestRefusalWrapsItsCause(t *testing.T) {
	cause := errors.New("nginx: [emerg]")
	err := error(&Refusal{Err: cause})
	require.ErrorIs(t, err, cause)
	assert.EqualError(t, err, "nginx: [emerg]")
}
