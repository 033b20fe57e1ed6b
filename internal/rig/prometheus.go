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
	program, err := Tool("promtool")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 { // advice is exit status 0
		return fmt.Errorf("checking metrics: %w%s", err, quoted(string(out)))
	}
	return nil
}

// TestRules lets promtool check the rules that a file of unit tests names, and run the
// tests.
func TestRules(ctx context.Context, tests string) error {
	program, err := Tool("promtool")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "test", "rules", tests)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("testing the rules of %s: %w%s", tests, err, quoted(string(out)))
	}
	return nil
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
