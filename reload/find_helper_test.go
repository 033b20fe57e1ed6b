package reload

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/require"
)

const (
	frontID   = "4c01db0b339c4b7aa2d0e1f6bb9d2c6f0f6a7d5f0e1c2b3a49586776655443ff"
	secretKey = "SECRETKEYVALUE16"
)

// inspected is what an engine says of a front, cut down to what could matter.
const inspected = `{
  "Id": "` + frontID + `", "Name": "/mailu-front-1", "Path": "/start.py", "Args": [],
  "State": {"Status": "running", "Running": true, "Paused": false, "Restarting": false, "Pid": 0,
    "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []}},
  "Image": "sha256:7be0cb0e0f0b8c", "RestartCount": 0, "Driver": "overlay2",
  "HostConfig": {"NetworkMode": "mailu_default", "Binds": ["/mailu/certs:/certs:rw"]},
  "Mounts": [
    {"Type": "bind", "Source": "/mailu/overrides/nginx", "Destination": "/overrides", "Mode": "ro", "RW": false},
    {"Type": "bind", "Source": "/mailu/certs", "Destination": "/certs", "Mode": "rw", "RW": true}],
  "Config": {
    "Image": "ghcr.io/mailu/nginx:2024.06",
    "Env": ["HOSTNAMES=mail.example.com, smtp.example.com", "TLS_FLAVOR=cert", "SECRET_KEY=` + secretKey + `",
      "INITIAL_ADMIN_PW=` + secretKey + `", "PROXY_PROTOCOL=25,465", "EMPTY=", "NOVALUE", "PATH=/usr/bin:/bin"],
    "Labels": {"com.docker.compose.project": "mailu", "com.docker.compose.service": "front", "com.docker.compose.oneoff": "False"}},
  "NetworkSettings": {
    "Ports": {"443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "443"}, {"HostIp": "::", "HostPort": "443"}],
      "993/tcp": [{"HostIp": "192.0.2.7", "HostPort": "10993"}], "465/tcp": [{"HostIp": "", "HostPort": "465"}],
      "995/tcp": [{"HostIp": "2001:db8::7", "HostPort": "995"}], "80/tcp": null},
    "Networks": {
      "mailu_default": {"IPAddress": "192.168.203.4", "GlobalIPv6Address": "fd00:203::4"},
      "mailu_webmail": {"IPAddress": "172.20.0.3", "GlobalIPv6Address": ""}}}
}`

type change func(*container.InspectResponse)

// fixture is the front as inspected, changed.
func fixture(t *testing.T, changes ...change) container.InspectResponse {
	t.Helper()
	var info container.InspectResponse
	require.NoError(t, json.Unmarshal([]byte(inspected), &info))
	for _, c := range changes {
		c(&info)
	}
	return info
}

// answer is the fixture as the engine sends it.
func answer(t *testing.T, changes ...change) string {
	t.Helper()
	data, err := json.Marshal(fixture(t, changes...))
	require.NoError(t, err)
	return string(data)
}

func setEnv(name, value string) change {
	return func(info *container.InspectResponse) {
		env := []string{name + "=" + value}
		for _, entry := range info.Config.Env {
			if !strings.HasPrefix(entry, name+"=") {
				env = append(env, entry)
			}
		}
		info.Config.Env = env
	}
}

func setLabel(name, value string) change {
	return func(info *container.InspectResponse) { info.Config.Labels[name] = value }
}

func named(name string) change {
	return func(info *container.InspectResponse) { info.Name, info.ID = "/"+name, name }
}

func inState(status string) change {
	return func(info *container.InspectResponse) {
		info.State.Status, info.State.Running, info.State.Paused = status, status != "exited", status == "paused"
	}
}

func mounting(mounts ...string) change {
	return func(info *container.InspectResponse) {
		info.Mounts = nil
		for _, m := range mounts {
			source, destination, _ := strings.Cut(m, ":")
			info.Mounts = append(info.Mounts, container.MountPoint{Source: source, Destination: destination})
		}
	}
}
