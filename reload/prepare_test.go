package reload

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/front"
)

// xargs does what the command of that name does with -r, for the test engine.
func xargs(nginx func(argv []string) (string, int)) func([]string, string) (string, int) {
	return func(argv []string, stdin string) (string, int) {
		if argv[0] != "xargs" {
			return nginx(argv)
		}
		if strings.TrimSpace(stdin) == "" {
			return "", 0
		}
		out, status := nginx(append(argv[2:], strings.Fields(stdin)...))
		if status != 0 {
			status = 123
		}
		return out, status
	}
}

// restful is a front at rest: ps shows no configuration run.
func restful(command func([]string, string) (string, int)) func([]string, string) (string, int) {
	return func(argv []string, stdin string) (string, int) {
		if argv[0] == "ps" {
			return psWhole, 0
		}
		return command(argv, stdin)
	}
}

func TestPreparedTestRunsWhenItIsAskedForAndOnce(t *testing.T) {
	var tested []string
	f, _ := execFront(t, restful(xargs(func(argv []string) (string, int) {
		tested = append(tested, strings.Join(argv, " "))
		return "", 0
	})))
	forget := f.Prepare(t.Context())
	require.NoError(t, f.Test(t.Context()))
	forget()
	assert.Equal(t, []string{"nginx -t -q"}, tested)
	require.NoError(t, f.Test(t.Context()), "the next one begins anew")
	assert.Equal(t, []string{"nginx -t -q", "nginx -t -q"}, tested)
}

func TestPreparedTestThatIsForgottenTestsNothing(t *testing.T) {
	f, _ := execFront(t, restful(xargs(func([]string) (string, int) {
		t.Error("nobody asked")
		return "", 0
	})))
	f.Prepare(t.Context())()
}

func TestPreparedTestThatFailsOrCannotBeginIsAskedDirectly(t *testing.T) {
	for name, command := range map[string]func([]string, string) (string, int){
		"nginx objects": xargs(func([]string) (string, int) { return "[emerg] no such directive", 1 }),
		"no xargs": func(argv []string, _ string) (string, int) {
			if argv[0] == "xargs" {
				return `exec: "xargs": executable file not found`, 127
			}
			return "[emerg] no such directive", 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := execFront(t, restful(command))
			defer f.Prepare(t.Context())()
			var refusal *front.Refusal
			require.ErrorAs(t, f.Test(t.Context()), &refusal)
			assert.Contains(t, refusal.Error(), "no such directive")
			assert.Contains(t, refusal.Error(), "nginx in mailu-front-1: exit status 1")
		})
	}
}
