package rig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// Crowd creates n containers of the front's image that are never started, so
// that others on the engine have company. args returns what docker create is
// given for each, besides the image. The caller must call remove, also
// after an error.
func Crowd(ctx context.Context, n int, args func(i int) []string) (remove func() error, err error) {
	const atATime = 4
	var mu sync.Mutex
	var wg sync.WaitGroup
	var ids []string
	slots := make(chan struct{}, atATime)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			id, failed := docker(ctx, slices.Concat([]string{"create", "--pull", "never"}, ownLabels(), args(i), []string{FrontImage()})...)
			mu.Lock()
			defer mu.Unlock()
			if err = errors.Join(err, failed); failed == nil {
				ids = append(ids, strings.TrimSpace(id))
			}
		})
	}
	wg.Wait()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		var failed error
		for some := range slices.Chunk(ids, 100) {
			_, err := docker(ctx, append([]string{"rm", "--force", "--volumes"}, some...)...)
			failed = errors.Join(failed, err)
		}
		return failed
	}, err
}
