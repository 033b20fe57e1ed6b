package reload

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/stretchr/testify/require"
)

// engine answers on a real unix socket as a Docker engine of API 1.41 does, for
// the calls that this package makes.
type engine struct {
	containers map[string]string                 // id → the answer to inspect
	command    func(argv []string) (string, int) // run by exec

	mu       sync.Mutex
	execs    []execution
	restarts int
}

type execution struct {
	argv   []string
	user   string
	status int
	input  bool // was asked for
}

func (s *engine) ran() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.execs {
		list = append(list, strings.Join(e.argv, " "))
	}
	return list
}

func (s *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "v1.41" {
		parts = parts[1:]
	}
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	switch last := parts[len(parts)-1]; {
	case last == "_ping":
		_, _ = io.WriteString(w, "OK")
	case len(parts) == 2 && last == "json":
		s.list(w, r)
	case len(parts) == 3 && parts[0] == "containers" && last == "json":
		answer, ok := s.containers[parts[1]]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"message":"No such container: ` + parts[1] + `"}`
		}
		_, _ = io.WriteString(w, answer)
	case len(parts) == 3 && last == "restart":
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case len(parts) == 3:
		s.exec(w, r, parts)
	default:
		http.NotFound(w, r)
	}
}

// exec is the life of a command: created, started, asked for its exit status.
func (s *engine) exec(w http.ResponseWriter, r *http.Request, parts []string) {
	n, _ := strconv.Atoi(parts[1])
	switch parts[2] {
	case "exec":
		var ask struct {
			Cmd         []string
			User        string
			AttachStdin bool
		}
		_ = json.NewDecoder(r.Body).Decode(&ask)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.execs = append(s.execs, execution{argv: ask.Cmd, user: ask.User, input: ask.AttachStdin})
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":"%d"}`, len(s.execs)-1)
	case "start":
		s.start(w, n)
	case "json":
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintf(w, `{"ID":"%d","ExitCode":%d}`, n, s.execs[n].status)
	}
}

// list lists in no order, as Docker does.
func (s *engine) list(w http.ResponseWriter, r *http.Request) {
	found := []map[string]any{}
	for id, answer := range s.containers {
		var info container.InspectResponse
		_ = json.Unmarshal([]byte(answer), &info)
		if r.URL.Query().Get("all") == "1" {
			found = append(found, map[string]any{"Id": id, "Names": []string{info.Name}, "Labels": info.Config.Labels, "State": info.State.Status, "Mounts": info.Mounts})
		}
	}
	_ = json.NewEncoder(w).Encode(found)
}

// start runs the command, as HAProxy lets it: without an upgrade.
func (s *engine) start(w http.ResponseWriter, n int) {
	s.mu.Lock()
	e := s.execs[n]
	s.mu.Unlock()
	out, status := s.command(e.argv)
	s.mu.Lock()
	s.execs[n].status = status
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/vnd.docker.raw-stream")
	_, _ = io.WriteString(stdcopy.NewStdWriter(w, stdcopy.Stdout), out)
}

// socket is a path short enough for a unix socket, whatever the test's name.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "docker.sock")
}

// open returns the engine at a unix socket.
func open(t *testing.T, path string) Engine {
	t.Helper()
	e, err := Open(func(name string) string { return map[string]string{"DOCKER_HOST": "unix://" + path}[name] })
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

func serveHTTP(t *testing.T, handler http.Handler) Engine {
	t.Helper()
	path := socket(t)
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return open(t, path)
}

// serveTLS serves to clients that show a certificate, and returns the address.
func serveTLS(t *testing.T, config *tls.Config, handler http.Handler) string {
	t.Helper()
	config.ClientAuth = tls.RequireAnyClientCert
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// describe is the front that newFront makes of an inspection by e, as root's engine
// on a host that is in the networks of the fixture.
func describe(e Engine, info container.InspectResponse) *Front {
	d := e.(*listedOnce).Engine.(*docker)
	d.networks = func() ([]net.Addr, error) {
		var all []net.Addr
		for _, network := range []string{"127.0.0.1/8", "172.20.0.1/16", "192.168.203.1/24", "fd00:203::1/64"} {
			ip, n, err := net.ParseCIDR(network)
			if err != nil {
				return nil, err
			}
			all = append(all, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return all, nil
	}
	d.owner = func(string) int { return 0 }
	return newFront(e, d.inspection(info))
}
