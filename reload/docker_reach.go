package reload

import (
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/docker/docker/api/types/container"
)

const loopback = "127.0.0.1"

// publicHost is where the engine publishes ports, as seen from here.
func (d *docker) publicHost() string {
	if u, err := url.Parse(d.api.DaemonHost()); err == nil && u.Scheme == "tcp" && u.Hostname() != "" {
		return u.Hostname()
	}
	return loopback
}

// hosts returns the addresses of the container, or of the host if it shares the
// host's network.
//
// An address is only used if it is in a network of this host, or of the container
// that we run in, and if this host's root engine gave it. The networks of an engine
// elsewhere and of a user's own engine (rootless) are not ours: their numbers may lead
// to a stranger, by the default route or on a bridge of our own. Only the ports that
// such an engine publishes are the front's.
func (d *docker) hosts(info container.InspectResponse) (hosts []string) {
	if d.publicHost() == loopback && d.isRoots(info) {
		networks, _ := d.networks()
		for _, n := range info.NetworkSettings.Networks {
			for _, ip := range []string{n.IPAddress, n.GlobalIPv6Address} {
				if inOneOf(networks, net.ParseIP(ip)) {
					hosts = append(hosts, ip)
				}
			}
		}
	}
	slices.Sort(hosts)
	if info.HostConfig.NetworkMode.IsHost() {
		hosts = append(hosts, d.publicHost())
	}
	return hosts
}

// ownerOf returns the uid that a file belongs to, -1 if it cannot be seen.
func ownerOf(file string) int {
	info, err := os.Stat(file)
	if err != nil {
		return -1
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func inOneOf(networks []net.Addr, ip net.IP) bool {
	return ip != nil && slices.ContainsFunc(networks, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.Contains(ip)
	})
}

// isRoots reports whether the engine is root's, and not an ordinary user's. Its
// socket says so by its owner. Behind a TCP port, as of a socket proxy, the container
// says so: it runs on this host and in no user namespace of its own.
func (d *docker) isRoots(info container.InspectResponse) bool {
	if u, err := url.Parse(d.api.DaemonHost()); err == nil && u.Scheme == "unix" {
		return d.owner(u.Path) == 0
	}
	in := interior{id: info.ID, pid: info.State.Pid}
	theirs, err := os.Readlink(proc(in.pid, "ns/user"))
	ours, _ := os.Readlink("/proc/self/ns/user")
	return err == nil && theirs == ours && in.isLocal()
}

// remappedDir is how an engine with userns-remap calls its directory.
var remappedDir = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`/([1-9][0-9]{4,9})\.[1-9][0-9]{4,9}/containers/`)
})

// rootOf returns the uid on this host of the container's root, also while it does not
// run: of a user's own engine that user, and with userns-remap the one that names the
// engine's directory (/var/lib/docker/100000.100000). It is 0 if that is this host's
// root, or not known. Nothing that the container can change is asked.
func (d *docker) rootOf(info container.InspectResponse) int {
	if info.HostConfig.UsernsMode != "" { // the container has a choice of its own
		return 0
	}
	if u, err := url.Parse(d.api.DaemonHost()); err == nil && u.Scheme == "unix" {
		if owner := d.owner(u.Path); owner > 0 {
			return owner
		}
	}
	if named := remappedDir().FindStringSubmatch(info.HostnamePath); named != nil {
		uid, _ := strconv.Atoi(named[1])
		return uid
	}
	return 0
}

func (d *docker) published(info container.InspectResponse) map[int][]string {
	published := map[int][]string{}
	for port, bindings := range info.NetworkSettings.Ports {
		for _, b := range bindings {
			host := b.HostIP
			if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
				host = d.publicHost()
			}
			if addr := net.JoinHostPort(host, b.HostPort); !slices.Contains(published[port.Int()], addr) {
				published[port.Int()] = append(published[port.Int()], addr)
			}
		}
	}
	return published
}

// confined reports whether the container's root lacks CAP_DAC_OVERRIDE, which engines
// give by default.
func confined(host *container.HostConfig) bool {
	lists := func(caps []string) bool {
		return slices.ContainsFunc(caps, func(c string) bool {
			c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
			return c == "ALL" || c == "DAC_OVERRIDE"
		})
	}
	return !host.Privileged && lists(host.CapDrop) && !lists(host.CapAdd)
}
