package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// socketProxy is what docker-socket-proxy (Tecnativa/docker-socket-proxy, haproxy.cfg)
// makes of its variables where CONTAINERS is 1: reading, and with EXEC and POST what
// changes something too. EVENTS, PING and VERSION are on by default, INFO is not.
const socketProxy = `global
    maxconn 4000
defaults
    mode http
    option http-server-close
    option redispatch
    timeout http-request 10s
    timeout queue 1m
    timeout connect 10s
    timeout client 10m
    timeout server 10m
    timeout http-keep-alive 10s
    maxconn 3000
backend dockerbackend
    server dockersocket /var/run/docker.sock
backend docker-events
    server dockersocket /var/run/docker.sock
    timeout server 0
frontend dockerfrontend
    bind %s
    http-request deny unless METH_GET || { env(POST) -m bool }
    http-request allow if { path,url_dec -m reg -i ^(/v[\d\.]+)?/containers } { env(CONTAINERS) -m bool }
    http-request allow if { path,url_dec -m reg -i ^(/v[\d\.]+)?/events } { env(EVENTS) -m bool }
    http-request allow if { path,url_dec -m reg -i ^(/v[\d\.]+)?/exec } { env(EXEC) -m bool }
    http-request allow if { path,url_dec -m reg -i ^(/v[\d\.]+)?/info } { env(INFO) -m bool }
    http-request allow if { path,url_dec -m reg -i ^(/v[\d\.]+)?/_ping } { env(PING) -m bool }
    http-request allow if { path,url_dec -m reg -i ^(/v[\d\.]+)?/version } { env(VERSION) -m bool }
    http-request deny
    default_backend dockerbackend
    use_backend docker-events if { path,url_dec -m reg -i ^(/v[\d\.]+)?/events }
`

// SocketProxy runs HAProxy in front of the Docker engine of this machine, in dir, and
// returns what DOCKER_HOST is then. allowed are variables of that proxy that are 1,
// besides CONTAINERS. The caller must call stop.
func SocketProxy(ctx context.Context, dir string, allowed ...string) (host string, stop func(), err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return "", nil, err
	}
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, socketProxy, address), 0o600); err != nil {
		return "", nil, err
	}
	env := []string{"CONTAINERS=1", "EVENTS=1", "PING=1", "VERSION=1"}
	for _, name := range allowed {
		env = append(env, name+"=1")
	}
	program, err := daemon("haproxy")
	if err != nil {
		return "", nil, err
	}
	p, err := startProcess(filepath.Join(dir, "haproxy.log"), env, program, "-db", "-f", config)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = p.pollAlive(ctx, func() error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		p.stop()
		return "", nil, fmt.Errorf("starting a proxy of the Docker socket: %w", err)
	}
	return "tcp://" + address, p.stop, nil
}
