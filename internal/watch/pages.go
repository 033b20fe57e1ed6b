package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Pages are what the agent shows by HTTP. They are made by one look at a time, which
// is good for a few seconds: whoever asks more often gets what was seen last.
type Pages struct {
	Look func(ctx context.Context) (metrics, words string, healthy bool)

	mu             sync.Mutex
	at             time.Time
	metrics, words string
	healthy        bool
}

const (
	goodFor    = 5 * time.Second
	mostAtOnce = 16
	lookLimit  = 30 * time.Second
)

// Listen opens the address of the pages: host:port, :port for all addresses, or a
// port alone for this host only.
func Listen(address string) (net.Listener, error) {
	if _, err := strconv.ParseUint(address, 10, 16); err == nil {
		address = "127.0.0.1:" + address
	}
	return net.Listen("tcp", address)
}

// Serve answers /metrics (Prometheus) and /healthz (503 while something is critical)
// until ctx ends.
func (p *Pages) Serve(ctx context.Context, listener net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		metrics, _, _ := p.look(r.Context())
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = fmt.Fprint(w, metrics)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		_, words, healthy := p.look(r.Context())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, words)
	})
	server := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: lookLimit + 5*time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	server.SetKeepAlivesEnabled(false) // one that stays must not keep others out
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(&limitedListener{Listener: listener, free: make(chan struct{}, mostAtOnce)})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (p *Pages) look(ctx context.Context) (metrics, words string, healthy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.IsZero() || time.Since(p.at) > goodFor {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit) // the next one wants it too
		defer cancel()
		p.metrics, p.words, p.healthy = p.Look(ctx)
		p.at = time.Now()
	}
	return p.metrics, p.words, p.healthy
}

// limitedListener accepts so many connections at a time.
type limitedListener struct {
	net.Listener
	free chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: conn, done: sync.OnceFunc(func() { <-l.free })}, nil
}

type limitedConn struct {
	net.Conn
	done func()
}

func (c *limitedConn) Close() error {
	c.done()
	return c.Conn.Close()
}
