package reload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/docker/go-connections/tlsconfig"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
)

// endpoint is where an engine listens, and how TLS is spoken to it.
type endpoint struct {
	host  string             // "" for the local socket
	tls   *tlsconfig.Options // nil for none
	named string             // what names the host, for errors
	certs string             // what names the certificates
}

// endpointOf returns what DOCKER_HOST names, or else the context that DOCKER_CONTEXT
// or the docker command's configuration names: the order is that of the docker
// command. A context brings its own certificates along.
func endpointOf(env func(string) string) (endpoint, error) {
	name, err := contextName(env)
	if err != nil {
		return endpoint{}, err
	}
	if name != "" {
		return contextEndpoint(configDir(env), name)
	}
	e := endpoint{host: env("DOCKER_HOST"), named: "DOCKER_HOST", certs: "DOCKER_CERT_PATH"}
	if dir := env("DOCKER_CERT_PATH"); dir != "" {
		e.tls = &tlsconfig.Options{
			CAFile:             filepath.Join(dir, "ca.pem"),
			CertFile:           filepath.Join(dir, "cert.pem"),
			KeyFile:            filepath.Join(dir, "key.pem"),
			InsecureSkipVerify: env("DOCKER_TLS_VERIFY") == "",
		}
	}
	return e, nil
}

// contextName is the name of the context in use, "" for none.
func contextName(env func(string) string) (string, error) {
	if env("DOCKER_HOST") != "" {
		return "", nil
	}
	name := env("DOCKER_CONTEXT")
	if dir := configDir(env); name == "" && dir != "" {
		var config struct{ CurrentContext string }
		err := readJSON(filepath.Join(dir, "config.json"), &config)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return "", say.Hint(fmt.Errorf("reading the docker command's configuration: %w", err), "fix the file, or name the engine with DOCKER_HOST")
		}
		name = config.CurrentContext
	}
	if name == "default" {
		name = ""
	}
	return name, nil
}

// configDir is the directory of the docker command's configuration, "" if this user
// has no home. Timers run without HOME, and are to find what a shell finds.
func configDir(env func(string) string) string {
	if dir := env("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home := env("HOME")
	if u, err := user.Current(); home == "" && err == nil {
		home = u.HomeDir
	}
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// contextEndpoint reads where the engine of a context is.
func contextEndpoint(dir, name string) (endpoint, error) {
	from := "the Docker context " + say.Foreign(name)
	const hint = "docker context ls shows those of this user; or name the engine with DOCKER_HOST"
	if dir == "" {
		return endpoint{}, say.Hint(fmt.Errorf("%s: this user has no home to look in", from), "set DOCKER_CONFIG, or name the engine with DOCKER_HOST")
	}
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	var meta struct {
		Endpoints struct {
			Docker *struct {
				Host          string
				SkipTLSVerify bool
			}
		}
	}
	err := readJSON(filepath.Join(dir, "contexts", "meta", id, "meta.json"), &meta)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no such context in %s", dir)
	}
	if err == nil && (meta.Endpoints.Docker == nil || meta.Endpoints.Docker.Host == "") {
		err = errors.New("it names no Docker engine")
	}
	if err != nil {
		return endpoint{}, say.Hint(fmt.Errorf("%s: %w", from, err), hint)
	}
	docker := meta.Endpoints.Docker
	e := endpoint{host: docker.Host, named: from, certs: from}
	if certs := filepath.Join(dir, "contexts", "tls", id, "docker"); exists(certs) || docker.SkipTLSVerify {
		file := func(name string) string {
			if path := filepath.Join(certs, name); exists(path) {
				return path
			}
			return ""
		}
		e.tls = &tlsconfig.Options{CAFile: file("ca.pem"), CertFile: file("cert.pem"), KeyFile: file("key.pem"), InsecureSkipVerify: docker.SkipTLSVerify}
	}
	return e, nil
}

const maxConfig = 1 << 20 // bytes of a file of the docker command

// readJSON decodes a file. The error names it, and quotes nothing of it: it may hold
// passwords of registries.
func readJSON(path string, into any) error {
	data, err := disk.ReadUpTo(path, maxConfig)
	if err == nil && json.Unmarshal(data, into) != nil {
		err = errors.New("is not the JSON that docker writes")
	}
	if err == nil || strings.Contains(err.Error(), path) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// refuseSSH refuses an engine that the docker command would reach through ssh.
func refuseSSH(e endpoint) error {
	if scheme, _, _ := strings.Cut(e.host, ":"); strings.EqualFold(scheme, "ssh") {
		return say.Hint(fmt.Errorf("%s is %s: an engine behind ssh is not supported", e.named, say.Foreign(e.host)),
			"forward its socket: ssh -NL /run/remote.sock:/run/docker.sock HOST, and DOCKER_HOST=unix:///run/remote.sock")
	}
	return nil
}
