package watch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailu-hook/internal/say"
)

const (
	pingLimit = 10 * time.Second
	maxPing   = 1000 // bytes of a reason
)

// Ping tells a dead man's switch that all is well, or by failure what is not. After a
// failure /fail is appended to the path, and the reason sent, as Healthchecks has it
// (healthchecks.io/docs/http_api). A URL below /api/push/ is that of Uptime Kuma's push
// monitor: its status and msg are set.
//
// It takes ten seconds at most. The error does not show the URL, which whoever knows
// it can call.
func Ping(ctx context.Context, address string, failure error) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	request, err := pingRequest(ctx, address, failure)
	if err != nil {
		return err
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		if inner, ok := err.(*url.Error); ok {
			err = inner.Err
		}
		return fmt.Errorf("pinging %s: %w", request.URL.Host, err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("pinging %s: it answers %d", request.URL.Host, response.StatusCode)
	}
	return nil
}

// CheckPing returns an error for what is not the URL of a switch.
func CheckPing(address string) error {
	_, err := parsePing(address)
	return err
}

func parsePing(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("it is not an http or https URL")
	}
	return u, nil
}

func pingRequest(ctx context.Context, address string, failure error) (*http.Request, error) {
	u, err := parsePing(address)
	if err != nil {
		return nil, err
	}
	reason := ""
	if failure != nil {
		reason = say.OneLine(failure.Error())
		reason = strings.ToValidUTF8(reason[:min(len(reason), maxPing)], "")
	}
	if strings.Contains(u.Path, "/api/push/") {
		query := u.Query()
		query.Set("status", "up")
		query.Set("msg", "OK")
		if failure != nil {
			query.Set("status", "down")
			query.Set("msg", reason)
		}
		u.RawQuery = query.Encode()
		return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	if failure == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	return http.NewRequestWithContext(ctx, http.MethodPost, u.JoinPath("fail").String(), strings.NewReader(reason))
}
