package reload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"mailu-hook/internal/say"
)

const maxList = 16 << 20 // bytes of an engine's answer

// candidate is a container as a list shows it.
type candidate struct {
	id       string
	certsDir string // on the engine's host
}

// listing is what an engine said when it was asked for candidates.
type listing struct {
	found []candidate
	err   error
}

// candidates lists the containers of the Compose service "front", in the order
// of the engine. It asks once for one project: who got no answer the first time
// is not to wait as long again.
func (e *Engine) candidates(ctx context.Context, project string) ([]candidate, error) {
	said, ok := e.listed[project]
	if !ok {
		said.found, said.err = e.ask(ctx, project)
		e.listed[project] = said
	}
	return said.found, said.err
}

func (e *Engine) ask(ctx context.Context, project string) ([]candidate, error) {
	args := filters.NewArgs(filters.Arg("label", labelService+"=front"))
	if project != "" {
		args.Add("label", labelProject+"="+project)
	}
	list, err := e.list(ctx, args)
	if err != nil {
		return nil, engineError(ctx, "listing containers", err)
	}
	var found []candidate
	for _, c := range list {
		if c.Labels[labelOneOff] == "True" { // docker compose run
			continue
		}
		it := candidate{id: c.ID}
		for _, m := range c.Mounts {
			if m.Destination == mountPoint {
				it.certsDir = m.Source
			}
		}
		found = append(found, it)
	}
	return found, nil
}

// Only returns the id of the only candidate for what want asks for, and the
// directory that it mounts at /certs; "" if there is not exactly one. One question
// to the engine answers that, and a Find that follows does not ask it again. What
// a front said of itself by its environment stays true as long as its container
// exists.
func (e *Engine) Only(ctx context.Context, want Selector) (id, certsDir string) {
	if want.Container != "" {
		return "", ""
	}
	found, err := e.candidates(ctx, want.Project)
	if err != nil || len(found) != 1 {
		return "", ""
	}
	return found[0].id, found[0].certsDir
}

// list is the first question to an engine, and asks without a version, in which
// every engine answers as it likes best: the answer also tells which versions it
// speaks, and saves the client a question of its own for that.
func (e *Engine) list(ctx context.Context, args filters.Args) ([]container.Summary, error) {
	if e.pinned {
		return e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	}
	labels, err := filters.ToJSON(args)
	if err != nil {
		return nil, err
	}
	path := "/containers/json?" + url.Values{"all": {"1"}, "filters": {labels}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base()+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := e.api.HTTPClient().Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = fmt.Errorf("%s: %w", e.api.DaemonHost(), failed.Err)
		}
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxList))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, say.Plain(messageIn(body)))
	}
	var list []container.Summary
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	e.api.NegotiateAPIVersionPing(types.Ping{APIVersion: response.Header.Get("Api-Version")})
	return list, nil
}

// messageIn is what an engine says of its refusal: in JSON, or as it stands.
func messageIn(body []byte) string {
	var refusal struct{ Message string }
	if json.Unmarshal(body, &refusal) == nil && refusal.Message != "" {
		return refusal.Message
	}
	return string(body)
}

// base is how the URLs of the engine begin. By way of a socket the host is of no
// account.
func (e *Engine) base() string {
	scheme, host := "http", client.DummyHost
	if e.tls {
		scheme = "https"
	}
	if u, err := url.Parse(e.api.DaemonHost()); err == nil && u.Scheme == "tcp" {
		host = u.Host + strings.TrimSuffix(u.Path, "/")
	}
	return scheme + "://" + host
}
