package rig

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// CheckMetrics lets promtool judge metrics in the text format: their syntax, and
// their names and units by Prometheus' conventions.
func CheckMetrics(ctx context.Context, metrics string) error {
	advice, err := promtool(ctx, metrics, "check", "metrics")
	if err == nil && advice != "" {
		err = fmt.Errorf("promtool advises%s", quoted(advice))
	}
	return err
}

// CheckRules lets promtool judge a file of rules.
func CheckRules(ctx context.Context, rules string) error {
	_, err := promtool(ctx, "", "check", "rules", "--lint=all", "--lint-fatal", rules)
	return err
}

// TestRules lets promtool run a file of unit tests of rules.
func TestRules(ctx context.Context, tests string) error {
	_, err := promtool(ctx, "", "test", "rules", tests)
	return err
}

// promtool returns what it says.
func promtool(ctx context.Context, stdin string, args ...string) (string, error) {
	program, err := Tool("promtool")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("promtool %s: %w%s", strings.Join(args, " "), err, quoted(string(out)))
	}
	return string(out), err
}

// NodeExporter is a node_exporter that collects the files of a directory, and
// nothing else.
type NodeExporter struct {
	address string
	process *process
}

// StartNodeExporter starts one for dir on loopback, and returns when it answers.
// Its log goes below logs. The caller must Close it.
func StartNodeExporter(ctx context.Context, dir, logs string) (*NodeExporter, error) {
	program, err := Tool("prometheus-node-exporter")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	n := &NodeExporter{address: local(ports[0])}
	n.process, err = startProcess(filepath.Join(logs, "node_exporter.log"), nil, program,
		"--web.listen-address="+n.address, "--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory="+dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = poll(ctx, 20*time.Millisecond, func() error { _, err := n.Scrape(ctx); return err })
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("starting node_exporter: %w", err)
	}
	return n, nil
}

// Scrape returns the metrics that it exports now.
func (n *NodeExporter) Scrape(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+"/metrics", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s%s", request.URL, response.Status, quoted(string(body)))
	}
	return string(body), err
}

// Close kills it.
func (n *NodeExporter) Close() { n.process.stop() }
