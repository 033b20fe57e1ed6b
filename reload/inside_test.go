package reload

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
)

func TestSurveyFindsEveryFrontThatCouldBeMeant(t *testing.T) {
	second := []change{named("other-front-1"), setLabel(labelProject, "other"), mounting("/srv/certs:/certs")}
	twin := []change{named("twin-front-1"), setLabel(labelProject, "twin")}
	for name, c := range map[string]struct {
		others [][]change // besides the front of project mailu
		want   Selector
		found  string
	}{
		"the only one":            {nil, Selector{}, "mailu-front-1"},
		"two projects":            {[][]change{second}, Selector{}, "mailu-front-1 other-front-1"},
		"one of them stopped":     {[][]change{append(second, inState("exited"))}, Selector{}, "mailu-front-1 other-front-1"},
		"one chosen":              {[][]change{second}, Selector{Project: "other"}, "other-front-1"},
		"one that shares it":      {[][]change{second, twin}, Selector{Project: "mailu"}, "mailu-front-1 twin-front-1"},
		"one named":               {[][]change{second}, Selector{Container: "other-front-1"}, "other-front-1"},
		"leftover of the project": {[][]change{{named("mailu_front_1"), inState("exited")}}, Selector{}, "mailu-front-1"},
		"two of one project":      {[][]change{{named("mailu-front-2")}}, Selector{}, "mailu-front-1 mailu-front-2"},
		"one that is unsuitable":  {[][]change{append(second, setEnv("TLS_FLAVOR", "letsencrypt"))}, Selector{}, "mailu-front-1 other-front-1"},
		"another's service":       {[][]change{{named("shop-front-1"), setLabel(labelProject, "shop"), setEnv("TLS_FLAVOR", "")}}, Selector{}, "mailu-front-1"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &engine{containers: map[string]string{frontID: answer(t)}, command: silent}
			for _, changes := range c.others {
				fake.containers[fixture(t, changes...).ID] = answer(t, changes...)
			}
			found, err := Survey(t.Context(), serveHTTP(t, fake), c.want)
			require.NoError(t, err)
			var names []string
			for _, f := range found {
				names = append(names, f.Container)
			}
			assert.Equal(t, c.found, strings.Join(names, " "))
		})
	}
}

func TestSurveyThatFindsNothingSaysWhy(t *testing.T) {
	_, err := Survey(t.Context(), serveHTTP(t, &engine{}), Selector{})
	require.ErrorIs(t, err, ErrNone)
	_, err = Survey(t.Context(), serveHTTP(t, &engine{}), Selector{Container: "nope"})
	require.ErrorIs(t, err, ErrNone)
	_, err = Survey(t.Context(), nowhere(t), Selector{})
	require.ErrorIs(t, err, ErrEngine)
}

func TestHealthIsDockersUnlessThereIsNoHealthCheck(t *testing.T) {
	assert.Equal(t, "healthy", describe(nowhere(t), fixture(t)).Health)
	for _, health := range []*container.Health{nil, {Status: container.NoHealthcheck}} {
		assert.Empty(t, describe(nowhere(t), fixture(t, func(info *container.InspectResponse) { info.State.Health = health })).Health)
	}
}

func TestInsideIsWhatProcessesAndPidFilesTell(t *testing.T) {
	intact := map[string]string{"/run/nginx.pid": "23\n", "/run/dovecot/master.pid": "14"}
	for name, c := range map[string]struct {
		ps             string
		files          map[string]string
		nginx, dovecot mailu.PidState
		want           mailu.Inside
	}{
		"whole":              {psWatched, intact, mailu.PidIntact, mailu.PidIntact, mailu.Inside{Watching: true}},
		"pid files lost":     {psWhole, nil, mailu.PidLost, mailu.PidLost, mailu.Inside{}},
		"pid files wrong":    {psWhole, map[string]string{"/run/nginx.pid": "", "/run/dovecot/master.pid": "7\n"}, mailu.PidWrong, mailu.PidWrong, mailu.Inside{}},
		"being configured":   {psConfiguring, nil, mailu.PidLost, mailu.PidLost, mailu.Inside{Configuring: true}},
		"without dovecot":    {psNoDovecot, intact, mailu.PidIntact, mailu.PidUnseen, mailu.Inside{}},
		"Mailu 2.0":          {psNginxOnly, map[string]string{"/run/nginx.pid": "1\n"}, mailu.PidIntact, mailu.PidUnseen, mailu.Inside{NginxOnly: true}},
		"starting, no nginx": {psStarting, nil, mailu.PidUnseen, mailu.PidUnseen, mailu.Inside{}},
	} {
		t.Run(name, func(t *testing.T) {
			f, fake := frontOf(t, &daemons{ps: []string{c.ps}, files: c.files})
			in, err := f.Inside(t.Context())
			require.NoError(t, err)
			c.want.Daemons = []mailu.Daemon{{Name: "nginx", PidFile: "/run/nginx.pid", Runs: c.nginx != mailu.PidUnseen, Pid: c.nginx}, {Name: "dovecot", PidFile: "/run/dovecot/master.pid", Runs: c.dovecot != mailu.PidUnseen, Pid: c.dovecot}}
			assert.Equal(t, c.want, in)
			for _, command := range fake.ran() {
				assert.Regexp(t, `^(ps|cat) `, command, "it only looks")
			}
		})
	}
	f, _ := frontOf(t, &daemons{ps: []string{psWhole}, statuses: map[string]int{"ps": 1}})
	_, err := f.Inside(t.Context())
	assert.ErrorContains(t, err, "listing the processes of mailu-front-1")
}

func TestLocalPidFileIsReadWithoutLeavingTheContainer(t *testing.T) {
	t.Parallel()
	root, outside, pid1 := containerRoot(t)
	require.NoError(t, os.WriteFile(root+"/run/nginx.pid", []byte("23\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("42"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), root+"/run/linked.pid"))
	require.NoError(t, os.WriteFile(root+"/run/long.pid", make([]byte, 64), 0o600))
	for file, want := range map[string]string{"/run/nginx.pid": "23\n", "/run/linked.pid": "", "/run/long.pid": ""} {
		content, err := readLocal(pid1, file)
		require.NoError(t, err, file)
		assert.Equal(t, want, string(content), file)
	}
	_, err := readLocal(pid1, "/run/none.pid")
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = readLocal(exited(t), "/run/nginx.pid")
	assert.NotErrorIs(t, err, os.ErrNotExist, "a container that is gone has lost no pid file")
	assert.Error(t, err)
}

func TestTimeIsTheEnginesOwn(t *testing.T) {
	at := time.Now().Add(-time.Hour).UTC()
	system := at.Format(time.RFC3339Nano)
	e := serveHTTP(t, ping(func(w http.ResponseWriter, r *http.Request) {
		assert.True(t, strings.HasSuffix(r.URL.Path, "/info"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"SystemTime":"`+system+`"}`)
	}))
	got, err := Now(t.Context(), e)
	require.NoError(t, err)
	assert.WithinDuration(t, at, got, 0)
	system = "soon"
	_, err = Now(t.Context(), e)
	require.ErrorIs(t, err, ErrEngine)
	_, err = Now(t.Context(), nowhere(t))
	require.ErrorIs(t, err, ErrEngine)
}
