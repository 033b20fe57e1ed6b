package cli

import (
	"errors"
	"fmt"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/disk"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/renewal"
	"mailu-hook/reload"
)

// Exit statuses, as users script against them.
const (
	exitOK             = 0
	exitError          = 1
	exitUsage          = 2
	exitRejected       = 3
	exitRolledBack     = 4
	exitRollbackFailed = 5
	exitACME           = 6
	exitLocked         = 7
	exitPending        = 8
)

// exitHelp is the part of a help text that explains them; status has its own.
const exitHelp = `  0  installed and served, or nothing to do, or not Mailu's certificate
  1  another error; nothing was changed
  2  usage error, or ambiguous configuration
  3  the certificate was rejected, or held back by DANE; nothing was touched
  4  the front refused it; the old pair is back and served
  5  rollback failed as well: manual intervention needed
  6  no certificate was obtained by ACME; nothing was changed
  7  another run held the lock until the time was up
  8  installed, but not yet verified on all ports: sync will finish it
`

var errUsage = errors.New("usage")

// errHung means that the outcome is not known.
var errHung = errors.New("mailu-hook hangs")

// usageErr is a mistake in how the program was called or configured.
type usageErr struct{ text string }

func (e usageErr) Error() string   { return e.text }
func (e usageErr) Is(t error) bool { return t == errUsage }

func usageError(format string, args ...any) error { return usageErr{fmt.Sprintf(format, args...)} }

// verdict is how a status ends that is not all well. It is told by the status
// itself, and not once more as an error.
type verdict struct{ health.Severity }

func (v verdict) Error() string { return v.String() }

// lookFailed is an error of status, whose exit statuses are those of monitoring
// plugins.
type lookFailed struct{ error }

func (l lookFailed) Unwrap() error { return l.error }

func exitStatus(err error) int {
	var rejection *hook.Rejection
	var judged verdict
	var failed lookFailed
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &judged):
		return int(judged.Severity)
	case errors.As(err, &failed):
		return int(health.Unknown)
	case errors.Is(err, errUsage), errors.Is(err, deploy.ErrUsage), errors.Is(err, renewal.ErrUsage),
		errors.Is(err, reload.ErrAmbiguous), errors.Is(err, reload.ErrUnmatched), errors.Is(err, mailu.ErrUnsuitable), errors.Is(err, acme.ErrTerms):
		return exitUsage
	case errors.As(err, &rejection):
		return exitRejected
	case errors.Is(err, hook.ErrRollbackFailed):
		return exitRollbackFailed
	case errors.Is(err, hook.ErrRolledBack):
		return exitRolledBack
	case errors.Is(err, acme.ErrFailed):
		return exitACME
	case errors.Is(err, disk.ErrLocked):
		return exitLocked
	case errors.Is(err, hook.ErrPending), errors.Is(err, hook.ErrUnsettled), errors.Is(err, hook.ErrWaiting), errors.Is(err, errHung):
		return exitPending
	}
	return exitError
}
