package mailu

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzEnvironment: whatever a container's environment says, the facts name each
// TLS port once and no other, and survive being remembered.
func FuzzEnvironment(f *testing.F) {
	for _, seed := range [][4]string{
		{"", "", "", ""},
		{defaultPorts, defaultPorts, "", "mail.example.com"},
		{"25,80,110,143,443,465,587,993,995,4190", "443,465,993,995", "mail", "mail.example.com, imap.example.com"},
		{"25", "25", "all", ",,"},
		{"443,443,995,995", "443,443,995,995", "all-but-http,mail,443", "mäil.example.com"},
		{" 25 , 143", "443;465", "http", "\xff\xfe,\x00"},
		{"0143,+587,1e3", "0x1BB", "25, 443", strings.Repeat(",", 100)},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, ports, tls, proxy, names string) {
		env := map[string]string{"PORTS": ports, "TLS": tls, "PROXY_PROTOCOL": proxy, "HOSTNAMES": names, "TLS_FLAVOR": names, "TLS_CERT_FILENAME": ports}
		facts := ParseEnvironment(func(name string) string { return env[name] })
		assertPorts(t, facts.Ports, proxy)
		assertPorts(t, NginxOnly(proxy), proxy)
		for _, p := range facts.Ports {
			number := strconv.Itoa(p.Number)
			listed := slices.Contains(strings.Split(cmp.Or(ports, defaultPorts), ","), number)
			overTLS := slices.Contains(strings.Split(cmp.Or(tls, defaultPorts), ","), number)
			assert.True(t, p.Number == 25 || listed || overTLS, "port %s is in no list", number)
			assert.True(t, overTLS || !p.Implicit, "port %s is not in TLS", number)
		}
		for _, name := range facts.Hostnames {
			assert.NotEmpty(t, name)
			assert.Equal(t, strings.TrimSpace(name), name)
			assert.NotContains(t, name, ",")
		}
		for _, err := range []error{facts.CheckFlavor(), facts.CheckHostnames()} {
			if err == nil {
				continue
			}
			require.ErrorIs(t, err, ErrUnsuitable)
			assert.True(t, utf8.ValidString(err.Error()), "not UTF-8: %q", err)
		}
		if PlainName(facts.CertName) {
			assert.NotContains(t, facts.CertName, "/")
		}
		assert.Equal(t, remembered(t, remembered(t, facts)), remembered(t, facts))
	})
}

// remembered is what a state file gives back of facts: invalid UTF-8 is lost once.
func remembered(t *testing.T, facts Facts) (again Facts) {
	t.Helper()
	data, err := json.Marshal(facts)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &again))
	return again
}

func assertPorts(t *testing.T, ports []Port, proxy string) {
	t.Helper()
	proxies := strings.Split(proxy, ",")
	for i, p := range ports {
		assert.True(t, i == 0 || ports[i-1].Number < p.Number, "in order, each once")
		assert.NotEmpty(t, p.Protocol)
		if p.Proxy {
			assert.True(t, slices.ContainsFunc(proxies, func(item string) bool {
				return slices.Contains([]string{strconv.Itoa(p.Number), "all", "all-but-http", "mail", "http"}, item)
			}), "%q makes port %d no proxied one", proxy, p.Number)
		}
	}
}

// FuzzPlainName: a plain name has no way out of its directory.
func FuzzPlainName(f *testing.F) {
	for _, seed := range []string{"cert.pem", "", ".", "..", "/", "a/b", "a/", "../cert.pem", "a\x00b", " ", "…"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if PlainName(name) {
			assert.False(t, strings.ContainsAny(name, "/\x00"), "%q", name)
			assert.False(t, name == "" || name == "." || name == "..", "%q", name)
		}
	})
}
