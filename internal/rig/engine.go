package rig

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
)

// Engine is a container engine. A nil one is the Docker engine of this machine, or
// what DOCKER_HOST names.
type Engine struct {
	Host string   // as DOCKER_HOST names it
	Root int      // uid on this host of the root of its containers
	Env  []string // what a client needs besides DOCKER_HOST

	dir     string // everything of it
	user    bool   // an ordinary user's: only ports that it publishes are reached
	podman  bool
	network string // of its fronts; "" for its default
	bridge  string // made for it
	number  int    // of the subnet of that
	swarm   bool   // it made docker_gwbridge
	api     *http.Client
	process *process
}

// ownEngine speaks to the Docker engine over its socket. What tests ask over and over
// goes this way, because the docker command costs more processor time than what
// it asks for; containers are still started by the command, whose flags tests use.
var ownEngine = sync.OnceValues(func() (*http.Client, error) {
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return clientOf(host)
	}
	return clientOf("unix:///var/run/docker.sock")
})

func clientOf(host string) (*http.Client, error) {
	var network, address string
	u, err := url.Parse(host)
	switch {
	case err == nil && u.Scheme == "unix":
		network, address = "unix", u.Path
	case err == nil && u.Scheme == "tcp":
		network, address = "tcp", u.Host
	default:
		return nil, fmt.Errorf("DOCKER_HOST=%s: the tests know unix:// and tcp:// only", host)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8}}, nil
}

func (e *Engine) client() (*http.Client, error) {
	if e == nil {
		return ownEngine()
	}
	return e.api, nil
}

// call makes one request to the engine of this machine.
func call(ctx context.Context, method, path string, body, answer any) ([]byte, error) {
	return (*Engine)(nil).call(ctx, method, path, body, answer)
}

// call makes one request to the engine. What it answers goes into answer, if that
// is not nil, and the raw bytes are returned.
func (e *Engine) call(ctx context.Context, method, path string, body, answer any) ([]byte, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, sent)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the Docker engine: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return data, fmt.Errorf("asking the Docker engine: %w", err)
	}
	// 304: a container that is to be started or stopped is running, or is not, already.
	if response.StatusCode >= 300 && response.StatusCode != http.StatusNotModified {
		var problem struct{ Message string }
		_ = json.Unmarshal(data, &problem) // what is not JSON is quoted as it stands
		if problem.Message == "" {
			problem.Message = string(data)
		}
		return nil, fmt.Errorf("the Docker engine: %s %s: %s%s", method, path, response.Status, quoted(problem.Message))
	}
	if answer != nil {
		if err := json.Unmarshal(data, answer); err != nil {
			return data, fmt.Errorf("reading the Docker engine's answer to %s: %w", path, err)
		}
	}
	return data, nil
}

// container is what the rig wants to know of a container.
type container struct {
	State struct {
		Status string
		Pid    int
		Health *struct{ Status string }
	}
	Config struct {
		Healthcheck *struct{ Test []string }
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
		Ports    map[string][]struct{ HostPort string }
	}
}

func (e *Engine) inspect(ctx context.Context, name string) (container, error) {
	var c container
	_, err := e.call(ctx, http.MethodGet, "/containers/"+url.PathEscape(name)+"/json", nil, &c)
	return c, err
}

// execute runs a command in a container to its end.
func (e *Engine) execute(ctx context.Context, name string, argv []string) (out string, code int, err error) {
	var created struct{ ID string }
	_, err = e.call(ctx, http.MethodPost, "/containers/"+url.PathEscape(name)+"/exec",
		map[string]any{"Cmd": argv, "AttachStdout": true, "AttachStderr": true}, &created)
	if err != nil {
		return "", -1, err
	}
	stream, err := e.call(ctx, http.MethodPost, "/exec/"+created.ID+"/start", map[string]any{"Detach": false, "Tty": false}, nil)
	out = demultiplexed(stream)
	if err != nil {
		return out, -1, err
	}
	var ended struct{ ExitCode int }
	_, err = e.call(ctx, http.MethodGet, "/exec/"+created.ID+"/json", nil, &ended)
	return out, ended.ExitCode, err
}

// demultiplexed joins what a command without a terminal wrote to its standard
// output and error. The engine sends both in frames of eight bytes, of which the
// last four are the length, and the content.
func demultiplexed(stream []byte) string {
	var out strings.Builder
	for len(stream) >= 8 {
		size := int(binary.BigEndian.Uint32(stream[4:8]))
		stream = stream[8:]
		size = min(size, len(stream))
		out.Write(stream[:size])
		stream = stream[size:]
	}
	return out.String()
}
