// Package wait waits, but no longer than a context lasts.
package wait

import (
	"context"
	"time"
)

// For waits for d, or returns the cause of ctx's end if that comes first.
func For(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
