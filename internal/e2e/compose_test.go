package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// stack is a front in the network of a Compose project, to which the examples for
// Compose add an agent.
type stack struct {
	*issuer
	image     string // of the agent
	roots     string // PEM file of all CAs' roots
	elsewhere string // an address where an issuer has ports 80 and 443 for itself
}

func newStack(t *testing.T) *stack {
	t.Helper()
	rig.Need(t, rig.NeedCompose, rig.NeedCertbot, rig.NeedCertbotImage, rig.NeedCaddy)
	// Debian's Caddy cannot read the dates at which Pebble asks for a retry.
	never := map[string]any{"retryAfter": map[string]int{"authz": 0, "order": 0}}
	s := &stack{issuer: newIssuer(t, rig.CAOptions{Config: never}), image: image(t), elsewhere: loopback()}
	s.writePlain(s.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)}), "cert.pem", "key.pem")
	project := "mht-compose-" + strconv.Itoa(os.Getpid())
	network := project + "_default" // as docker-compose would make it, before it knows of the front
	s.docker("network", "create", "--label", "mailu-hook.test=1", "--label", "com.docker.compose.project="+project, "--label", "com.docker.compose.network=default", network)
	t.Cleanup(func() { assert.NoError(t, exec.Command("docker", "network", "rm", network).Run()) }) // the front is gone by then
	s.startPublished(rig.FrontOptions{Project: project, ExtraArgs: []string{"--network", network}})
	s.waitServing()
	s.roots = filepath.Join(s.root, "all-roots.pem")
	pebble, err := s.acme.Root(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.roots, append(pebble, s.ca.RootPEM...), 0o600))
	return s
}

func (s *stack) docker(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	require.NoError(s.t, err, "docker %s: %s", strings.Join(args, " "), out)
	return strings.TrimSpace(string(out))
}

// composed is docker-compose with an example.
type composed struct {
	*stack
	files []string
}

func (c composed) command(args ...string) *exec.Cmd {
	given := []string{"--project-name", c.front.Project}
	for _, file := range c.files {
		given = append(given, "--file", file)
	}
	return exec.Command("docker-compose", append(given, args...)...)
}

func (c composed) run(args ...string) string {
	c.t.Helper()
	out, err := c.command(args...).CombinedOutput()
	require.NoError(c.t, err, "docker-compose %s: %s", strings.Join(args, " "), out)
	return string(out)
}

var ofThisHost = regexp.MustCompile(`(?m)^( +- )(/(?:mailu|srv|etc)/)`)

// compose prepares the example of that name in the front's project. In the
// example only what differs on this host is changed: where directories are, and which
// images there are. That the CAs are those of the test is in a file of its own.
func (s *stack) compose(name string, agent map[string]any) composed {
	s.t.Helper()
	text := ofThisHost.ReplaceAllString(example(s.t, "examples/compose/"+name+".yml"), "${1}"+s.root+"$2")
	text = strings.ReplaceAll(text, s.root+"/mailu/", s.root+"/")
	text = strings.ReplaceAll(text, "image: mailu-hook ", "image: "+s.image+" ")
	text = strings.ReplaceAll(text, "image: certbot/certbot\n", "image: "+rig.CertbotImage+"\n")
	labels := map[string]string{"mailu-hook.test": "1", "mailu-hook.test.pid": strconv.Itoa(os.Getpid())}
	directory := []string{s.acme.DirectoryCAFile + ":/directory.pem:ro"}
	agent["labels"], agent["volumes"] = labels, append(directory, s.roots+":/roots.pem:ro")
	agent["healthcheck"] = map[string]string{"interval": "1s"}
	agent["environment"] = map[string]string{
		"MAILU_HOOK_PROJECT": s.front.Project, // others run on this engine
		"MAILU_HOOK_ROOTS":   "/roots.pem", "MAILU_HOOK_DANE": "off",
		"MAILU_HOOK_SERVER": s.acme.DirectoryURL, "MAILU_HOOK_CA_FILE": "/directory.pem", "MAILU_HOOK_RESOLVER": s.acme.DNSAddr,
	}
	services := map[string]any{"mailu-hook": agent}
	if strings.Contains(text, "\n  certbot:\n") {
		services["certbot"] = map[string]any{"labels": labels, "network_mode": "host", "volumes": directory, "environment": map[string]string{"REQUESTS_CA_BUNDLE": "/directory.pem"}}
	}
	overlay, err := json.Marshal(map[string]any{"services": services})
	require.NoError(s.t, err)
	files := []string{filepath.Join(s.root, name+".yml"), filepath.Join(s.root, name+"-test.yml")}
	require.NoError(s.t, os.WriteFile(files[0], []byte(text), 0o600))
	require.NoError(s.t, os.WriteFile(files[1], overlay, 0o600))
	return composed{s, files}
}

// follows runs an example, and holds it to serving the leaf that obtain puts where the
// example looks for it, at first and once it is renewed.
func (s *stack) follows(name string, agent map[string]any, obtain func(renewing bool, c composed) (leaf string)) {
	s.t.Helper()
	s.sub(name, func(t *testing.T) {
		c := s.compose(name, agent)
		c.run("up", "--detach")
		id := s.container("mailu-hook")
		defer func() {
			t.Logf("%s", s.docker("logs", id))
			s.docker("rm", "--force", "--volumes", id)
			s.docker("volume", "rm", s.front.Project+"_mailu-hook") // the next one knows nothing of this one
		}()
		for _, renewing := range []bool{false, true} {
			s.endsServing(obtain(renewing, c))
		}
		s.settles(id)
		health := func() string { return s.docker("inspect", "--format", "{{json .State.Health}}", id) }
		require.Eventually(t, func() bool { return strings.Contains(health(), `"Status":"healthy"`) }, time.Minute, 200*time.Millisecond, "%s", health())
		assert.Equal(t, "true [ALL] [] [no-new-privileges:true]",
			s.docker("inspect", "--format", "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.SecurityOpt}}", id))
		s.healthyAndReloadable()
	})
}

// Traefik and Nginx Proxy Manager are played by the files that they write; certbot, on
// the host and in a container, and Caddy are real, and so is what the agent does itself.
func TestEveryExampleForComposeServesWhatItsIssuerWrites(t *testing.T) {
	s := newStack(t)
	s.follows("traefik", map[string]any{}, func(bool, composed) string {
		pair := s.next()
		s.traefik(filepath.Join(s.dir("srv", "traefik"), "acme.json"), pair)
		return pair.SHA256()
	})
	s.follows("npm", map[string]any{}, func(bool, composed) string {
		pair := s.next()
		_, err := pair.WriteLineage(s.dir("srv", "npm", "letsencrypt"), "npm-1", s.renewals)
		require.NoError(s.t, err)
		return pair.SHA256()
	})
	s.lead(s.elsewhere, mailName)
	s.follows("caddy", map[string]any{}, func(bool, composed) string { return s.caddy() })
	s.follows("certbot-on-host", map[string]any{}, s.certbotOnHost)
	s.follows("certbot", map[string]any{}, s.certbotInContainer)
	s.lead(s.address, mailName)
	alone := map[string]any{"network_mode": "host"} // the CA listens on loopback only
	s.follows("renew", alone, s.agentAlone)

	out, err := exec.Command("docker", "run", "--rm", "--label", "mailu-hook.test=1", "--network", "host", "--read-only", "--cap-drop", "ALL", "--volume", "/var/run/docker.sock:/var/run/docker.sock",
		"--volume", s.certs()+":/mailu/certs", "--volume", s.acme.DirectoryCAFile+":/directory.pem:ro", "--tmpfs", "/var/lib/mailu-hook", "--env", "MAILU_HOOK_PROJECT="+s.front.Project,
		s.image, "renew", "--agree-tos", "--server", s.acme.DirectoryURL, "--ca-file", "/directory.pem", "--resolver", s.acme.DNSAddr).CombinedOutput()
	require.Error(t, err)
	overrides := filepath.Join(s.root, "overrides", "nginx")
	assert.Contains(t, string(out), "this container does not see "+overrides+", where "+s.front.Name+" has its overrides")
	assert.Contains(t, string(out), "-v "+overrides+":"+overrides)
}

// container is that of a service.
func (s *stack) container(service string) (id string) {
	s.t.Helper()
	return s.docker("ps", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project="+s.front.Project, "--filter", "label=com.docker.compose.service="+service)
}

func (s *stack) dir(names ...string) string {
	s.t.Helper()
	dir := filepath.Join(append([]string{s.root}, names...)...)
	require.NoError(s.t, os.MkdirAll(dir, 0o755))
	return dir
}

// caddy has Caddy obtain a certificate, and returns its leaf.
func (s *stack) caddy() string {
	s.t.Helper()
	program, err := rig.Tool("caddy")
	require.NoError(s.t, err)
	data := s.dir("srv", "caddy", "data")
	require.NoError(s.t, os.RemoveAll(filepath.Join(data, "caddy", "certificates"))) // what it would renew some day
	config := s.file("{\n\tadmin off\n\tdefault_bind " + s.elsewhere + "\n\tacme_ca " + s.acme.DirectoryURL + "\n\tacme_ca_root " + s.acme.DirectoryCAFile + "\n}\n" + mailName + " {\n\trespond ok\n}\n")
	cmd := exec.Command(program, "run", "--adapter", "caddyfile", "--config", config)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+s.dir("srv", "caddy", "config")) // as its image has them
	var out bytes.Buffer
	cmd.Stderr = &out
	require.NoError(s.t, cmd.Start())
	var found []string
	got := assert.Eventually(s.t, func() bool { // the last of the three that it writes
		found, _ = filepath.Glob(filepath.Join(data, "caddy", "certificates", "*", mailName, mailName+".json"))
		return len(found) == 1
	}, time.Minute, 50*time.Millisecond)
	require.NoError(s.t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	require.True(s.t, got, "%s", out.String())
	return leafOf(s.t, strings.TrimSuffix(found[0], ".json")+".crt")
}

// standalone are certbot's arguments for an answer at an address of its own.
func (s *stack) standalone() []string {
	return []string{"certonly", "--standalone", "--http-01-port", "80", "--http-01-address", s.elsewhere, "--cert-name", mailName, "--domain", mailName,
		"--server", s.acme.DirectoryURL, "--agree-tos", "--register-unsafely-without-email", "--non-interactive"}
}

func (s *stack) certbotOnHost(bool, composed) string {
	s.t.Helper()
	certbot := &rig.Certbot{Dir: filepath.Join(s.root, "certbot"), CA: s.acme}
	dir := s.dir("etc", "letsencrypt")
	_, _, err := certbot.Run(s.t.Context(), append(s.standalone(), "--force-renewal", "--config-dir", dir)...)
	require.NoError(s.t, err)
	return leafOf(s.t, filepath.Join(dir, "live", mailName, "fullchain.pem"))
}

func (s *stack) certbotInContainer(renewing bool, c composed) string {
	s.t.Helper()
	id := s.container("certbot")
	if renewing {
		c.run("exec", "-T", "certbot", "certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew")
		s.docker("rm", "--force", id)
	} else {
		require.Eventually(s.t, func() bool { return strings.Contains(s.docker("logs", id), "No renewals were attempted") }, time.Minute, 200*time.Millisecond,
			"its own loop would be in the way")
		c.run(append([]string{"exec", "-T", "certbot", "certbot"}, s.standalone()...)...)
	}
	return leafOf(s.t, filepath.Join(s.root, "letsencrypt", "live", mailName, "fullchain.pem"))
}

func (s *stack) agentAlone(renewing bool, c composed) string {
	s.t.Helper()
	chain := filepath.Join(s.docker("volume", "inspect", "--format", "{{.Mountpoint}}", s.front.Project+"_mailu-hook"), "live", mailName, "fullchain.pem")
	if renewing {
		c.run("exec", "-T", "mailu-hook", "/mailu-hook", "renew", "--agree-tos", "--force", "--min-interval", "1s")
	}
	require.Eventually(s.t, func() bool { _, err := os.Stat(chain); return err == nil }, time.Minute, 50*time.Millisecond)
	return leafOf(s.t, chain)
}
