package reload

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

func TestOwnContainerIsToldByTheFilesThatEnginesMount(t *testing.T) {
	const id = "4f1d2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"
	for name, c := range map[string]struct{ text, want string }{
		"Docker":                 {"510 498 254:0 /var/lib/docker/containers/" + id + "/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw\n", id},
		"Podman":                 {"30 29 0:40 / / rw - overlay overlay rw\n31 30 0:24 /containers/storage/overlay-containers/" + id + "/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw\n", id},
		"a host":                 {"22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n", ""},
		"none":                   {"", ""},
		"a host with containers": {"90 27 0:50 / /var/lib/docker/containers/" + id + "/mounts/shm rw - tmpfs shm rw\n", ""},
	} {
		assert.Equal(t, c.want, containerOf(c.text), name)
	}
}

func TestWhatIsMountedOverIsNotSeen(t *testing.T) {
	mounts := []Mount{{Source: "/host", Destination: "/x"}, {Source: "/other", Destination: "/x/certs"}}
	for path, want := range map[string]string{"/host/certs": "", "/host/certs/sub": "", "/host/certs2": "/x/certs2", "/host/..data": "/x/..data", "/other": "/x/certs"} {
		here, unseen := translate(path, mounts)
		assert.Equal(t, want == "", unseen, path)
		if want != "" {
			assert.Equal(t, want, here, path)
		}
	}
}

func TestPathsOfTheHostAreTranslatedByTheOwnMounts(t *testing.T) {
	mounts := []Mount{{Source: "/mailu", Destination: "/data"}, {Source: "/mailu/certs", Destination: "/certs"}, {Source: "/var/lib/docker/volumes/x/_data", Destination: "/x"}}
	for path, want := range map[string]string{
		"/mailu/certs": "/certs", "/mailu/certs/sub": "/certs/sub", "/mailu/overrides": "/data/overrides", "/var/lib/docker/volumes/x/_data": "/x",
		"/mailu2/certs": "", "/": "", "/mailu/..": "",
	} {
		here, unseen := translate(path, mounts)
		assert.Equal(t, want == "", unseen, path)
		if want != "" {
			assert.Equal(t, want, here, path)
		}
	}
}

// twoContainers is an engine with a front and the container that asks.
type twoContainers struct {
	Engine
	asked int
}

func (e *twoContainers) Inspect(_ context.Context, id string) (Inspection, error) {
	if id == "of another engine" {
		return Inspection{}, errNoContainer
	}
	if id == "self" {
		e.asked++
		return Inspection{ID: "self", Mounts: []Mount{{Source: "/srv/mailu/certs", Destination: "/mailu/certs"}}}, nil
	}
	return Inspection{ID: id, Name: "mailu-front-1", State: "running", Env: []string{"TLS_FLAVOR=cert"},
		Mounts: []Mount{{Source: "/srv/mailu/certs", Destination: "/certs"}, {Source: "/srv/mailu/overrides", Destination: "/overrides"}}}, nil
}

func (e *twoContainers) List(context.Context) ([]Listed, error) {
	return []Listed{{ID: "front", Mounts: []Mount{{Source: "/srv/mailu/certs", Destination: "/certs"}}}}, nil
}

func TestAContainerSeesTheFrontsDirectoriesByItsOwnMounts(t *testing.T) {
	inner := &twoContainers{}
	e := &contained{Engine: inner, self: "self"}
	list, err := e.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "/mailu/certs", list[0].certsDir())
	found, err := e.Inspect(t.Context(), "front")
	require.NoError(t, err)
	assert.Equal(t, 1, inner.asked, "the own mounts do not change")
	f := newFront(e, found)
	assert.Equal(t, "/mailu/certs", f.CertsDir)
	assert.Empty(t, f.overrides, "it is not mounted here")
	_, err = Group{f}.ServeChallenges(t.Context())
	assert.ErrorContains(t, err, "this container does not see /srv/mailu/overrides, where mailu-front-1 has its overrides")
	assert.Contains(t, say.HintOf(err), "-v /srv/mailu/overrides:/srv/mailu/overrides")

	found.Mounts[0].Unseen = true
	err = newFront(e, found).Suitable()
	assert.ErrorContains(t, err, "this container does not see /mailu/certs")
}

func TestSocketThatIsNotMountedIsNamedInAContainer(t *testing.T) {
	missing := &os.SyscallError{Syscall: "connect", Err: syscall.ENOENT}
	assert.Contains(t, socketHint(missing, true), "-v /var/run/docker.sock:/var/run/docker.sock")
	assert.Contains(t, socketHint(missing, false), "is the engine running")
	assert.Contains(t, socketHint(syscall.ECONNREFUSED, true), "is the engine running")
}

func TestAnEngineInAContainerOfAnotherTellsItsOwnPaths(t *testing.T) {
	list, err := (&contained{Engine: &twoContainers{}, self: "of another engine"}).List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []Mount{{Source: "/srv/mailu/certs", Destination: "/certs"}}, list[0].Mounts)
}
