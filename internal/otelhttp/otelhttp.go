// Package otelhttp takes the place of OpenTelemetry's instrumentation of HTTP
// clients (see replace in go.mod), which the Docker client wraps around its
// transport whether anybody wants traces or not. mailu-hook sends none, and so
// links none: that is half a megabyte less in a program that root runs.
//
// It has what github.com/docker/docker/client v28.5.2 uses, and does nothing.
package otelhttp

import (
	"net/http"

	"go.opentelemetry.io/otel/trace"
)

// Option would configure the instrumentation.
type Option struct{}

// Transport is the transport that it was made of.
type Transport struct{ http.RoundTripper }

// NewTransport returns base, unchanged.
func NewTransport(base http.RoundTripper, _ ...Option) *Transport { return &Transport{base} }

// WithTracerProvider ignores the provider.
func WithTracerProvider(trace.TracerProvider) Option { return Option{} }

// WithSpanNameFormatter ignores the formatter.
func WithSpanNameFormatter(func(operation string, r *http.Request) string) Option { return Option{} }
