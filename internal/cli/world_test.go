package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

const secretKey = "SECRETKEYVALUE16"

// world is a host with a lineage of certbot's and Mailu's directory, and an
// environment that leads to no Docker engine.
type world struct {
	t       *testing.T
	dir     string // Mailu's root
	certs   string
	lineage string
	ca      *mint.CA
	pair    *mint.Pair
	env     map[string]string
	stdin   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	return newWorldOf(t, ca, mint.Leaf{})
}

func newWorldOf(t *testing.T, ca *mint.CA, leaf mint.Leaf) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), ca: ca}
	w.certs = filepath.Join(w.dir, "certs")
	require.NoError(t, os.Mkdir(w.certs, 0o755))
	w.pair, w.lineage = w.issue("mail.example.com", leaf)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	require.NoError(t, os.WriteFile(roots, ca.RootPEM, 0o600))
	w.env = map[string]string{
		"DOCKER_HOST":                "unix:///nonexistent/docker.sock",
		"MAILU_HOOK_CONFIG":          w.file(""),
		"MAILU_HOOK_CERTS_DIR":       w.certs,
		"MAILU_HOOK_ROOTS":           roots,
		"MAILU_HOOK_DANE":            "off",
		"MAILU_HOOK_STATE_DIR":       filepath.Join(w.dir, "state"),
		"MAILU_HOOK_LETSENCRYPT_DIR": filepath.Join(w.dir, "letsencrypt"),
	}
	return w
}

func (w *world) issue(name string, leaf mint.Leaf) (*mint.Pair, string) {
	w.t.Helper()
	pair, err := w.ca.Issue(leaf)
	require.NoError(w.t, err)
	live, err := pair.WriteLineage(filepath.Join(w.dir, "letsencrypt"), name, 1)
	require.NoError(w.t, err)
	return pair, live
}

// file writes a file with that content.
func (w *world) file(content string) string {
	w.t.Helper()
	name := filepath.Join(w.t.TempDir(), "file")
	require.NoError(w.t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

func (w *world) mailuEnv(content string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, "mailu.env"), []byte(content), 0o600))
}

// ran is what one run of the program left.
type ran struct {
	status         int
	stdout, stderr string
}

func (w *world) run(args ...string) ran {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	r := ran{Run(ctx, args, w.environ(), strings.NewReader(w.stdin), &stdout, &stderr), "", ""}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	assertHarmless(w.t, r)
	return r
}

func (w *world) environ() []string { return environOf(w.env) }

func environOf(env map[string]string) (environ []string) {
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// hook runs the program as certbot does.
func (w *world) hook(args ...string) ran {
	w.t.Helper()
	w.env["RENEWED_LINEAGE"] = w.lineage
	return w.run(args...)
}

func (w *world) install(args ...string) ran {
	w.t.Helper()
	return w.run(append([]string{"install", "--lineage", w.lineage}, args...)...)
}

// tree is all that is below Mailu's root: names, modes, content.
func (w *world) tree() map[string]string {
	w.t.Helper()
	tree := map[string]string{}
	require.NoError(w.t, filepath.WalkDir(w.dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			data, _ := os.ReadFile(name)
			content = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(name)
		}
		tree[name] = fmt.Sprintf("%v %s", info.Mode(), content)
		return nil
	}))
	return tree
}

// installed reports whether the certs directory holds the pair under both names.
func (w *world) installed(pair *mint.Pair) bool {
	cert, _ := os.ReadFile(filepath.Join(w.certs, "cert.pem"))
	key, _ := os.ReadFile(filepath.Join(w.certs, "key.pem"))
	return bytes.Equal(cert, pair.Chain) && bytes.Equal(key, pair.KeyPEM)
}

// document decodes what must be exactly one JSON document.
func (r ran) document(t *testing.T) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(r.stdout))
	var doc map[string]any
	require.NoError(t, decoder.Decode(&doc), "stdout: %q", r.stdout)
	_, err := decoder.Token()
	require.ErrorIs(t, err, io.EOF, "one document and nothing else")
	assert.EqualValues(t, r.status, doc["exit_status"])
	return doc
}

// container is a front as an engine would describe it.
type container struct {
	name, project, state, certs string
	env                         map[string]string
}

// restarts is how many containers are restarted while somebody follows the events of
// an engine.
const restarts = 500

// engine makes the world's Docker engine one that knows these containers, and
// returns a count of the times that it was asked.
func (w *world) engine(containers ...container) *atomic.Int32 {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "engine") // short enough for a socket
	require.NoError(w.t, err)
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", path)
	require.NoError(w.t, err)
	var asked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		rw.Header().Set("Api-Version", "1.41")
		rw.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/info") {
			_ = json.NewEncoder(rw).Encode(map[string]any{"SystemTime": time.Now().Format(time.RFC3339Nano)})
			return
		}
		if strings.HasSuffix(r.URL.Path, "/events") { // of containers that are restarted
			for range restarts {
				_ = json.NewEncoder(rw).Encode(map[string]any{"Type": "container", "Action": "start", "Actor": map[string]any{"ID": "x", "Attributes": containers[0].labels()}})
			}
			return
		}
		list := []any{}
		for _, c := range containers {
			list = append(list, map[string]any{"Id": c.name, "Names": []string{"/" + c.name}, "State": c.state, "Labels": c.labels(), "Mounts": []any{map[string]any{"Source": c.certs, "Destination": "/certs"}}})
			if strings.HasSuffix(r.URL.Path, "/containers/"+c.name+"/json") {
				_ = json.NewEncoder(rw).Encode(c.inspect())
				return
			}
		}
		if !strings.HasSuffix(r.URL.Path, "/containers/json") && strings.Contains(r.URL.Path, "/containers/") {
			rw.WriteHeader(http.StatusNotFound)
		}
		_ = json.NewEncoder(rw).Encode(list)
	})}
	go func() { _ = server.Serve(l) }()
	w.t.Cleanup(func() { server.Close() })
	w.env["DOCKER_HOST"] = "unix://" + path
	return &asked
}

func (c container) labels() map[string]string {
	return map[string]string{"com.docker.compose.service": "front", "com.docker.compose.project": c.project}
}

func (c container) inspect() any {
	env := []string{"SECRET_KEY=" + secretKey}
	for name := range maps.Keys(c.env) {
		env = append(env, name+"="+c.env[name])
	}
	return map[string]any{
		"Id": c.name, "Name": "/" + c.name,
		"State":           map[string]any{"Status": c.state},
		"HostConfig":      map[string]any{"NetworkMode": "mailu_default"},
		"Mounts":          []any{map[string]any{"Type": "bind", "Source": c.certs, "Destination": "/certs"}},
		"Config":          map[string]any{"Image": "ghcr.io/mailu/nginx:2024.06", "Env": env, "Labels": c.labels()},
		"NetworkSettings": map[string]any{"Ports": map[string]any{}, "Networks": map[string]any{}},
	}
}

// stopped is the front of this world, not running.
func (w *world) stopped() container {
	return container{"mailu-front-1", "mailu", "exited", w.certs, map[string]string{"TLS_FLAVOR": "cert", "HOSTNAMES": "mail.example.com"}}
}
