package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestForWaitsForTheTimeAndNoLongerThanTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		assert.NoError(t, For(t.Context(), time.Minute))
		assert.Equal(t, time.Minute, time.Since(began))

		why := errors.New("the time is up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		assert.ErrorIs(t, For(ctx, time.Minute), why)
		assert.Equal(t, time.Minute+time.Second, time.Since(began))
	})
}
