package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"mailu-hook/hook"
	"mailu-hook/internal/disk"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/reload"
)

func TestEachErrorHasItsExitStatus(t *testing.T) {
	cause := errors.New("cause")
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"success":            {nil, 0},
		"anything else":      {cause, 1},
		"cancelled":          {context.Canceled, 1},
		"engine":             {reload.ErrEngine, 1},
		"no front":           {reload.ErrNone, 1},
		"refusal":            {&mailu.Refusal{Err: cause}, 1},
		"usage":              {usageError("x"), 2},
		"ambiguous":          {reload.ErrAmbiguous, 2},
		"unmatched":          {reload.ErrUnmatched, 2},
		"unsuitable":         {mailu.ErrUnsuitable, 2},
		"rejected":           {&hook.Rejection{File: "x"}, 3},
		"rolled back":        {hook.ErrRolledBack, 4},
		"rolled back, cause": {fmt.Errorf("%w: %w", hook.ErrRolledBack, &mailu.Refusal{Err: cause}), 4},
		"rollback failed":    {hook.ErrRollbackFailed, 5},
		"rollback, engine":   {fmt.Errorf("%w: %w; then %w", hook.ErrRollbackFailed, &mailu.Refusal{Err: cause}, reload.ErrEngine), 5},
		"locked":             {disk.ErrLocked, 7},
		"pending":            {hook.ErrPending, 8},
		"pending, engine":    {fmt.Errorf("%w: %w", hook.ErrPending, reload.ErrEngine), 8},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, exitStatus(c.err))
			if c.err != nil {
				assert.Equal(t, c.want, exitStatus(say.Hint(fmt.Errorf("doing: %w", c.err), "do")))
			}
		})
	}
}
