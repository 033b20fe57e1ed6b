package reload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/say"
)

// writeFile writes below a directory of the docker command's configuration.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// addContext stores a context as `docker context create` of Docker 28 does, and returns
// the directory of its certificates, which is not there yet.
func addContext(t *testing.T, dir, name, endpoints string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	quoted, err := json.Marshal(name)
	require.NoError(t, err)
	writeFile(t, filepath.Join(dir, "contexts/meta", id, "meta.json"), `{"Name":`+string(quoted)+`,"Metadata":{},"Endpoints":`+endpoints+`}`)
	return filepath.Join(dir, "contexts/tls", id, "docker")
}

func at(host string) string { return `{"docker":{"Host":"` + host + `","SkipTLSVerify":false}}` }

// openWith is Open with these variables and no others, but for a home without anything.
func openWith(t *testing.T, env map[string]string) (Engine, error) {
	t.Helper()
	home := t.TempDir()
	e, err := Open(func(name string) string {
		if value, ok := env[name]; ok || name != "HOME" {
			return value
		}
		return home
	})
	if err == nil {
		t.Cleanup(e.Close)
	}
	return e, err
}

func daemonHost(t *testing.T, e Engine) string {
	t.Helper()
	once, ok := e.(*listedOnce)
	require.True(t, ok)
	inner := once.Engine
	if c, ok := inner.(*contained); ok {
		inner = c.Engine
	}
	return inner.(*docker).api.DaemonHost()
}

// The order is that of the docker command: DOCKER_HOST, DOCKER_CONTEXT, currentContext.
func TestEngineIsTheOneThatTheDockerCommandWouldAsk(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".docker")
	addContext(t, dir, "named", at("unix:///run/named.sock"))
	addContext(t, dir, "current", at("tcp://current.example.com:2375"))
	writeFile(t, filepath.Join(dir, "config.json"), `{"auths":{},"currentContext":"current"}`)
	other := t.TempDir()
	addContext(t, other, "named", at("unix:///run/other.sock"))
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"the current one": {map[string]string{"HOME": home}, "tcp://current.example.com:2375"},
		"DOCKER_CONTEXT":  {map[string]string{"HOME": home, "DOCKER_CONTEXT": "named"}, "unix:///run/named.sock"},
		"DOCKER_HOST":     {map[string]string{"HOME": home, "DOCKER_CONTEXT": "named", "DOCKER_HOST": "unix:///run/host.sock"}, "unix:///run/host.sock"},
		"DOCKER_CONFIG":   {map[string]string{"HOME": home, "DOCKER_CONTEXT": "named", "DOCKER_CONFIG": other}, "unix:///run/other.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := openWith(t, c.env)
			require.NoError(t, err)
			assert.Equal(t, c.want, daemonHost(t, e))
		})
	}
	for name, env := range map[string]map[string]string{
		"default":                  {"HOME": home, "DOCKER_CONTEXT": "default"},
		"no configuration":         {},
		"configuration without it": {"DOCKER_CONFIG": other},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := endpointOf(func(n string) string {
				if n == "HOME" && env["HOME"] == "" {
					return other
				}
				return env[n]
			})
			require.NoError(t, err)
			assert.Empty(t, got.host, "the local socket")
		})
	}
}

// Podman's socket is used only where nobody has named Docker.
func TestContextNamesDocker(t *testing.T) {
	current, broken := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(current, "config.json"), `{"currentContext":"x"}`)
	writeFile(t, filepath.Join(broken, "config.json"), `{`)
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"nothing":        {map[string]string{"DOCKER_CONFIG": t.TempDir()}, false},
		"default":        {map[string]string{"DOCKER_CONFIG": current, "DOCKER_CONTEXT": "default"}, false},
		"DOCKER_HOST":    {map[string]string{"DOCKER_HOST": "unix:///x"}, true},
		"DOCKER_CONTEXT": {map[string]string{"DOCKER_CONFIG": t.TempDir(), "DOCKER_CONTEXT": "x"}, true},
		"current":        {map[string]string{"DOCKER_CONFIG": current}, true},
		"not to be read": {map[string]string{"DOCKER_CONFIG": broken}, true},
	} {
		assert.Equal(t, c.want, dockerNamed(func(n string) string { return c.env[n] }), name)
	}
}

func TestContextThatNamesNoEngineIsRefusedWithTheRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string)
		context string
		want    []string
		hint    string
	}{
		"unknown":       {func(string) {}, "none", []string{`the Docker context "none"`, "no such context"}, "DOCKER_HOST"},
		"control bytes": {func(string) {}, "a\x1b[31m", []string{`the Docker context "a`}, "docker context ls"},
		"no engine":     {func(dir string) { addContext(t, dir, "kube", `{"kubernetes":{}}`) }, "kube", []string{`"kube"`, "names no Docker engine"}, "docker context ls"},
		"not JSON":      {func(dir string) { addContext(t, dir, "bad", `{`) }, "bad", []string{"meta.json: is not the JSON"}, "docker context ls"},
		"ssh":           {func(dir string) { addContext(t, dir, "far", at("ssh://root@far.example.com")) }, "far", []string{`the Docker context "far" is "ssh://root@far.example.com"`}, "ssh -NL /run/remote.sock:/run/docker.sock HOST"},
		"SSH":           {func(dir string) { addContext(t, dir, "far", at("SSH://far.example.com")) }, "far", []string{"behind ssh is not supported"}, "ssh -NL "},
		"no scheme":     {func(dir string) { addContext(t, dir, "odd", at("/run/docker.sock")) }, "odd", []string{"preparing the Docker client"}, `check the Docker context "odd"`},
		"broken configuration": {func(dir string) { writeFile(t, filepath.Join(dir, "config.json"), `{"auths":{"x":{"auth":"c2VjcmV0`) }, "",
			[]string{"reading the docker command's configuration", "config.json: is not the JSON"}, "fix the file"},
		"a large configuration": {func(dir string) {
			writeFile(t, filepath.Join(dir, "config.json"), `{"a":"`+strings.Repeat("x", maxConfig)+`"}`)
		}, "", []string{"config.json: larger than"}, "fix the file"},
		"key that is no key": {func(dir string) {
			writeFile(t, filepath.Join(addContext(t, dir, "tls", at("tcp://127.0.0.1:2376")), "key.pem"), "secret")
		}, "tls", []string{"reading the Docker client's certificates"}, `check the Docker context "tls"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.prepare(dir)
			_, err := openWith(t, map[string]string{"DOCKER_CONFIG": dir, "DOCKER_CONTEXT": c.context})
			require.Error(t, err)
			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
			assert.Contains(t, say.HintOf(err), c.hint)
			assert.NotContains(t, err.Error(), "\x1b")
			assert.NotContains(t, err.Error(), "c2VjcmV0", "the file holds passwords of registries")
		})
	}
	_, err := openWith(t, map[string]string{"DOCKER_HOST": "ssh://root@far.example.com"})
	require.ErrorContains(t, err, `DOCKER_HOST is "ssh://root@far.example.com"`)
	assert.Contains(t, say.HintOf(err), "ssh -NL /run/remote.sock:/run/docker.sock HOST")
}

// A context has its own certificates: DOCKER_CERT_PATH belongs to DOCKER_HOST.
func TestContextBringsItsCertificatesAlong(t *testing.T) {
	ca, err := testCA()
	require.NoError(t, err)
	client, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	server, err := ca.Issue(mint.Leaf{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	require.NoError(t, err)
	addr := serveTLS(t, serverConfig(t, server), &engine{containers: map[string]string{frontID: answer(t, inState("exited"))}})
	dir := t.TempDir()
	unknown, lax := addContext(t, dir, "unknown", at("tcp://"+addr)), addContext(t, dir, "lax", `{"docker":{"Host":"tcp://`+addr+`","SkipTLSVerify":true}}`)
	known := addContext(t, dir, "known", at("tcp://"+addr))
	for _, certs := range []string{unknown, lax, known} {
		writeFile(t, filepath.Join(certs, "cert.pem"), string(client.Chain))
		writeFile(t, filepath.Join(certs, "key.pem"), string(client.KeyPEM))
	}
	writeFile(t, filepath.Join(known, "ca.pem"), string(ca.RootPEM))
	find := func(context string) (Group, error) {
		e, err := openWith(t, map[string]string{"DOCKER_CONFIG": dir, "DOCKER_CONTEXT": context, "DOCKER_CERT_PATH": "/nonexistent"})
		require.NoError(t, err)
		return Find(t.Context(), e, Selector{})
	}
	for _, context := range []string{"known", "lax"} {
		g, err := find(context)
		require.NoError(t, err, context)
		assert.Equal(t, "mailu-front-1", g[0].Container)
	}
	_, err = find("unknown")
	require.ErrorIs(t, err, ErrEngine)
	assert.ErrorContains(t, err, "certificate", "without its CA the engine is not trusted")
}
