package reload

import (
	"context"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

func nowhere(t *testing.T) Engine { return open(t, "/nonexistent/docker.sock") }

func TestFrontIsReadFromOneInspection(t *testing.T) {
	f := describe(nowhere(t), fixture(t))
	require.NoError(t, f.Suitable())
	assert.Equal(t, "mailu-front-1", f.Container)
	assert.Equal(t, frontID, f.ID)
	assert.Equal(t, "ghcr.io/mailu/nginx:2024.06", f.Image)
	assert.Equal(t, "mailu", f.Project)
	assert.Equal(t, "running", f.State)
	assert.Equal(t, []string{"mail.example.com", "smtp.example.com"}, f.Hostnames)
	assert.Equal(t, "/mailu/certs", f.CertsDir)
	assert.Equal(t, "cert.pem", f.CertName)
	assert.Equal(t, "key.pem", f.KeyName)
	assert.True(t, f.isMailu())
	var ports, proxied []int
	for _, p := range f.Ports {
		ports = append(ports, p.Number)
		if p.Proxy {
			proxied = append(proxied, p.Number)
		}
	}
	assert.Equal(t, []int{25, 443, 465, 993, 995, 4190}, ports)
	assert.Equal(t, []int{25, 465}, proxied)
}

func TestNoSecretOfTheEnvironmentIsKept(t *testing.T) {
	f := describe(nowhere(t), fixture(t))
	f.in.engine = nil // the client knows nothing of containers
	assert.NotContains(t, fmt.Sprintf("%+v %#v", f, f), secretKey)
	assert.NotContains(t, strings.Join(stringsIn(reflect.ValueOf(f)), "\n"), secretKey)
	assert.Contains(t, strings.Join(stringsIn(reflect.ValueOf(f)), "\n"), "smtp.example.com", "the walk must see what is there")
}

// stringsIn collects every string that can be reached from v.
func stringsIn(v reflect.Value) (found []string) {
	switch v.Kind() {
	case reflect.String:
		return []string{v.String()}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return stringsIn(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			found = append(found, stringsIn(v.Field(i))...)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			found = append(found, stringsIn(v.Index(i))...)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			found = append(append(found, stringsIn(key)...), stringsIn(v.MapIndex(key))...)
		}
	}
	return found
}

func TestUnsuitableFrontIsRefusedWithReasonAndRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		change   change
		why, how string
	}{
		"letsencrypt":         {setEnv("TLS_FLAVOR", "letsencrypt"), "obtains its own certificates", "TLS_FLAVOR=cert"},
		"mail-letsencrypt":    {setEnv("TLS_FLAVOR", "mail-letsencrypt"), "obtains its own certificates", "TLS_FLAVOR=cert"},
		"notls":               {setEnv("TLS_FLAVOR", "notls"), "serves no TLS", "TLS_FLAVOR=cert"},
		"unknown flavor":      {setEnv("TLS_FLAVOR", "x\x1b\ny"), `TLS_FLAVOR "x y"`, "TLS_FLAVOR=cert"},
		"not Mailu":           {setEnv("TLS_FLAVOR", ""), "not Mailu's front", "--container"},
		"nothing mounted":     {mounting("/mailu/overrides:/overrides"), "nothing of the host is mounted at /certs", "ROOT/certs:/certs"},
		"certificate file":    {mounting("/mailu/certs/cert.pem:/certs/cert.pem"), "/certs/cert.pem is mounted as a single file", "mount the directory"},
		"both files":          {mounting("/a:/certs/cert.pem", "/b:/certs/key.pem"), "/certs/cert.pem and /certs/key.pem", "mount the directory"},
		"file over directory": {mounting("/mailu/certs:/certs", "/b:/certs/key.pem"), "/certs/key.pem is mounted as a single file", "mount the directory"},
	} {
		t.Run(name, func(t *testing.T) {
			err := describe(nowhere(t), fixture(t, c.change)).Suitable()
			require.ErrorIs(t, err, mailu.ErrUnsuitable)
			assert.ErrorContains(t, err, c.why)
			assert.Contains(t, say.HintOf(err), c.how)
		})
	}
}

func TestMountAtCertsIsFoundWhateverItsKind(t *testing.T) {
	for name, c := range map[string]struct {
		changes []change
		want    string
	}{
		"named volume":   {[]change{mounting("/var/lib/docker/volumes/mailu_certs/_data:/certs")}, "/var/lib/docker/volumes/mailu_certs/_data"},
		"trailing slash": {[]change{mounting("/srv/certs:/certs/")}, "/srv/certs"},
		"other files":    {[]change{mounting("/srv/certs:/certs", "/srv/dh.pem:/certs/dhparam.pem")}, "/srv/certs"},
		"mail flavor":    {[]change{setEnv("TLS_FLAVOR", "mail")}, "/mailu/certs"},
		"other names":    {[]change{setEnv("TLS_CERT_FILENAME", "c.pem"), mounting("/srv/certs:/certs", "/x:/certs/cert.pem")}, "/srv/certs"},
	} {
		t.Run(name, func(t *testing.T) {
			f := describe(nowhere(t), fixture(t, c.changes...))
			assert.NoError(t, f.Suitable())
			assert.Equal(t, c.want, f.CertsDir)
		})
	}
}

func TestAddressesAreTheContainersThenThePublishedOnes(t *testing.T) {
	local := describe(nowhere(t), fixture(t))
	assert.Equal(t, []string{"172.20.0.3:993", "192.168.203.4:993", "[fd00:203::4]:993", "192.0.2.7:10993"}, local.Target().Addresses(993))
	assert.Contains(t, local.Target().Addresses(443), "127.0.0.1:443", "published at 0.0.0.0 and ::")
	assert.Contains(t, local.Target().Addresses(465), "127.0.0.1:465")
	assert.Contains(t, local.Target().Addresses(995), "[2001:db8::7]:995")
	assert.Equal(t, []string{"172.20.0.3:80", "192.168.203.4:80", "[fd00:203::4]:80"}, local.Target().Addresses(80), "exposed, not published")

	remote, err := Open(func(name string) string {
		return map[string]string{"DOCKER_HOST": "tcp://docker.example.com:2375"}[name]
	})
	require.NoError(t, err)
	defer remote.Close()
	assert.Contains(t, describe(remote, fixture(t)).Target().Addresses(465), "docker.example.com:465")

	host := describe(nowhere(t), fixture(t, func(info *container.InspectResponse) {
		info.HostConfig.NetworkMode = "host"
		info.NetworkSettings.Ports = nil
		info.NetworkSettings.Networks = nil
	}))
	assert.Equal(t, []string{"127.0.0.1:993"}, host.Target().Addresses(993))
}

func TestFrontIsChosenAmongContainers(t *testing.T) {
	foreign := []change{named("shop-front-1"), setLabel(labelProject, "shop"), setEnv("TLS_FLAVOR", "")}
	second := []change{named("other-front-1"), setLabel(labelProject, "other"), mounting("/srv/certs:/certs")}
	twin := []change{named("twin-front-1"), setLabel(labelProject, "twin")}
	leftover := []change{named("mailu_front_1"), inState("exited")}
	quadlet := []change{named("systemd-front"), setLabel(labelService, ""), setLabel(labelProject, ""), mounting("/srv/certs:/certs")}
	hostile := []change{named("evil"), setLabel(labelProject, "mailu"), mounting(), func(info *container.InspectResponse) {
		info.Mounts = []container.MountPoint{{Type: "volume", Name: frontID, Source: "/var/lib/docker/volumes/" + frontID + "/_data", Destination: "/certs"}}
	}}
	for name, c := range map[string]struct {
		others [][]change // besides the front of project mailu
		want   Selector
		found  string
		err    error
		says   string
	}{
		"the only one":               {nil, Selector{}, "mailu-front-1", nil, ""},
		"another project's service":  {[][]change{foreign}, Selector{}, "mailu-front-1", nil, ""},
		"no mount, no Mailu":         {[][]change{{named("x"), mounting()}}, Selector{}, "mailu-front-1", nil, ""},
		"one-off of the service":     {[][]change{{named("mailu-front-run-1"), setLabel(labelOneOff, "True")}}, Selector{}, "mailu-front-1", nil, ""},
		"leftover of the project":    {[][]change{leftover}, Selector{}, "mailu-front-1", nil, ""},
		"unlabeled beside another":   {[][]change{quadlet}, Selector{}, "mailu-front-1", nil, ""},
		"volume of an image":         {[][]change{hostile}, Selector{}, "mailu-front-1", nil, ""},
		"real one stopped":           {[][]change{append(slices.Clone(second), setLabel(labelProject, "mailu")), leftover}, Selector{}, "", ErrAmbiguous, "mailu-front-1 (project mailu), other-front-1 (project mailu)"},
		"two fronts":                 {[][]change{second}, Selector{}, "", ErrAmbiguous, "mailu-front-1 (project mailu), other-front-1 (project other)"},
		"two fronts, one stopped":    {[][]change{append(second, inState("exited"))}, Selector{}, "", ErrAmbiguous, "other-front-1"},
		"two of one project":         {[][]change{{named("mailu-front-2")}}, Selector{}, "mailu-front-1 mailu-front-2", nil, ""},
		"two that share":             {[][]change{twin}, Selector{}, "mailu-front-1 twin-front-1", nil, ""},
		"one chosen, another shares": {[][]change{twin, second}, Selector{Project: "mailu"}, "mailu-front-1 twin-front-1", nil, ""},
		"one named, another shares":  {[][]change{twin, second}, Selector{Container: "twin-front-1"}, "mailu-front-1 twin-front-1", nil, ""},
		"a stopped one shares":       {[][]change{append(twin, inState("exited"))}, Selector{}, "mailu-front-1", nil, ""},
		"a stopped one is chosen":    {[][]change{append(twin, inState("exited"))}, Selector{Project: "twin"}, "mailu-front-1", nil, ""},
		"a paused one shares":        {[][]change{append(twin, inState("paused"))}, Selector{}, "mailu-front-1 twin-front-1", nil, ""},
		"they read other files":      {[][]change{append(twin, setEnv("TLS_CERT_FILENAME", "c.pem"))}, Selector{}, "", mailu.ErrUnsuitable, "mailu-front-1 and twin-front-1 mount /mailu/certs"},
		"two fronts, project":        {[][]change{second}, Selector{Project: "other"}, "other-front-1", nil, ""},
		"two fronts, container":      {[][]change{second}, Selector{Container: "other-front-1"}, "other-front-1", nil, ""},
		"unknown project":            {nil, Selector{Project: "nope"}, "", ErrUnmatched, `no front matches "--project nope"; fronts on this host: mailu-front-1 (project mailu)`},
		"unknown container":          {nil, Selector{Container: "nope"}, "", ErrUnmatched, "fronts on this host: mailu-front-1 (project mailu)"},
		"named, but not Mailu's":     {[][]change{foreign}, Selector{Container: "shop-front-1"}, "", mailu.ErrUnsuitable, "not Mailu's front"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := &engine{containers: map[string]string{frontID: answer(t)}, command: silent}
			for _, changes := range c.others {
				fake.containers[fixture(t, changes...).ID] = answer(t, changes...)
			}
			g, err := Find(t.Context(), serveHTTP(t, fake), c.want)
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
				assert.ErrorContains(t, err, c.says)
				assert.NotEmpty(t, say.HintOf(err))
				return
			}
			require.NoError(t, err)
			var names []string
			for _, f := range g {
				names = append(names, f.Container)
			}
			assert.Equal(t, c.found, strings.Join(names, " "))
		})
	}
}

func TestNoContainerAtAllIsErrNone(t *testing.T) {
	_, err := Find(t.Context(), serveHTTP(t, &engine{}), Selector{})
	require.ErrorIs(t, err, ErrNone)
	assert.NotErrorIs(t, err, ErrEngine)
}

func TestOnlyARunningFrontIsAskedForItsProcesses(t *testing.T) {
	for _, state := range []string{"exited", "paused", "restarting", "created", "dead"} {
		fake := &engine{containers: map[string]string{frontID: answer(t, inState(state))}, command: silent}
		g, err := Find(t.Context(), serveHTTP(t, fake), Selector{})
		require.NoError(t, err)
		assert.Equal(t, state, g[0].State)
		assert.Equal(t, g[0], g.Idle())
		assert.Empty(t, fake.ran())
	}
}

func TestMailu20IsKnownByItsFirstProcess(t *testing.T) {
	fake := &engine{containers: map[string]string{frontID: answer(t, setEnv("PORTS", "443"), setEnv("PROXY_PROTOCOL", "mail"))}}
	fake.command = func([]string) (string, int) {
		return "PID PPID COMMAND COMMAND\n1 0 nginx nginx: master process nginx\n7 1 nginx nginx: worker process\n", 0
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	g, err := Find(ctx, serveHTTP(t, fake), Selector{})
	require.NoError(t, err)
	assert.Equal(t, mailu.NginxOnly("mail"), g[0].Ports)
}

func silent([]string) (string, int) { return "", 0 }

func TestFrontThatComposeDidNotMakeIsFound(t *testing.T) {
	quadlet := []change{setLabel(labelService, ""), setLabel(labelProject, "")}
	for name, c := range map[string]struct {
		changes []change
		want    Selector
		err     error
	}{
		"running":             {nil, Selector{}, nil},
		"named volume":        {[]change{mounting(), mountingVolume("mailu_certs")}, Selector{}, nil},
		"by name":             {nil, Selector{Container: "mailu-front-1"}, nil},
		"stopped":             {[]change{inState("exited")}, Selector{}, ErrNone},
		"stopped, by name":    {[]change{inState("exited")}, Selector{Container: "mailu-front-1"}, nil},
		"no TLS_FLAVOR":       {[]change{setEnv("TLS_FLAVOR", "")}, Selector{}, ErrNone},
		"volume of the image": {[]change{mounting(), mountingVolume(frontID)}, Selector{}, ErrNone},
		"mounted elsewhere":   {[]change{mounting("/mailu/certs:/data")}, Selector{}, ErrNone},
		"single files":        {[]change{mounting("/a:/certs/cert.pem")}, Selector{}, mailu.ErrUnsuitable},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &engine{containers: map[string]string{frontID: answer(t, append(quadlet, c.changes...)...)}, command: silent}
			if c.want.Container != "" {
				fake.containers = map[string]string{c.want.Container: answer(t, append(append(quadlet, named(c.want.Container)), c.changes...)...)}
			}
			g, err := Find(t.Context(), serveHTTP(t, fake), c.want)
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Len(t, g, 1)
			assert.Equal(t, "mailu-front-1", g[0].Container)
		})
	}
}

func mountingVolume(name string) change {
	return func(info *container.InspectResponse) {
		info.Mounts = append(info.Mounts, container.MountPoint{Type: "volume", Name: name, Source: "/var/lib/docker/volumes/" + name + "/_data", Destination: "/certs"})
	}
}

func TestEveryRunningContainerThatMountsTheDirectoryIsNamed(t *testing.T) {
	fake := &engine{containers: map[string]string{}}
	for _, changes := range [][]change{
		{named("dumper"), mounting("/mailu/certs/:/output")},
		{named("paused"), inState("paused")},
		{named("stopped"), inState("exited")},
		{named("another"), mounting("/srv/certs:/certs")},
	} {
		fake.containers[fixture(t, changes...).ID] = answer(t, changes...)
	}
	names, err := Mounting(t.Context(), serveHTTP(t, fake), "/mailu/certs")
	require.NoError(t, err)
	assert.Equal(t, []string{"dumper", "paused"}, names)
}

func TestAddressOfAContainerIsUsedOnlyIfThisHostIsInItsNetwork(t *testing.T) {
	info := fixture(t)
	all := []string{"172.20.0.3", "192.168.203.4", "fd00:203::4"}
	e := open(t, "/run/docker.sock")
	d := e.(*listedOnce).Engine.(*docker)
	assert.Equal(t, all, describe(e, info).hosts)
	d.owner = func(file string) int { return map[string]int{"/run/docker.sock": 1000}[file] }
	assert.Empty(t, newFront(e, d.inspection(info)).hosts, "a user's own engine: its networks are not this host's")
	d.owner = func(string) int { return -1 }
	assert.Empty(t, newFront(e, d.inspection(info)).hosts, "nobody knows whose engine that is")
	d.owner, d.networks = func(string) int { return 0 }, net.InterfaceAddrs
	assert.Empty(t, newFront(e, d.inspection(info)).hosts, "no network of this host")

	tcp, err := Open(func(name string) string { return map[string]string{"DOCKER_HOST": "tcp://127.0.0.1:2375"}[name] })
	require.NoError(t, err)
	defer tcp.Close()
	assert.Empty(t, describe(tcp, info).hosts, "nor there")
	groups, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	info.ID, info.State.Pid = strings.TrimSpace(string(groups)), os.Getpid()
	assert.Equal(t, all, describe(tcp, info).hosts, "the container is on this host")
	assert.Contains(t, describe(tcp, info).Target().Addresses(993), "192.0.2.7:10993")
}
