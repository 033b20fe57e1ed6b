package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"mailu-hook/internal/say"
)

// journaled is a result that also goes to syslog: certbot -q drops everything
// else, and nobody reads what a timer prints.
type journaled interface {
	journal() (line string, worthIt bool)
}

// several is a result with others beside it, each with an end of its own.
type several interface{ others() []told }

// told is a result and the error it ended with.
type told struct {
	result result
	err    error
}

// warned is a result with something to say on stderr besides the error.
type warned interface{ warnings() []string }

// finish tells how an invocation ended and returns its exit status. Syslog comes
// first: it must not depend on whether somebody still reads stdout.
func finish(i *invocation, r result, err error, stdout io.Writer) int {
	all := []told{{r, err}}
	if s, ok := r.(several); ok {
		all = append(all, s.others()...)
	}
	for _, t := range all {
		if j, ok := t.result.(journaled); ok {
			if line, worthIt := j.journal(); worthIt {
				logToSyslog(t.err, line)
			}
		}
	}
	if r != nil {
		if out := r.tell(i.out.format, err, screenOf(stdout, i.settings)); out != "" {
			if _, werr := io.WriteString(stdout, out); werr != nil {
				err = i.unwritten(r, err, werr)
			}
		}
	}
	all[0].err = err
	for _, t := range all {
		i.writeFailure(t)
	}
	return exitStatus(err)
}

// writeFailure tells an error, and what else there is to say of it.
func (i *invocation) writeFailure(t told) {
	var judged verdict
	if t.err == nil || errors.As(t.err, &judged) {
		return
	}
	writeError(i.stderr, t.err)
	if w, ok := t.result.(warned); ok {
		for _, warning := range w.warnings() {
			fmt.Fprintf(i.stderr, "mailu-hook: warning: %s\n", say.OneLine(warning))
		}
	}
}

// unwritten reports that the result could not be written. What was done stays done:
// for a deploy that changes no exit status; where the output is all there is, it
// is an error.
func (i *invocation) unwritten(r result, err, werr error) error {
	werr = fmt.Errorf("writing the result: %w", werr)
	var judged verdict // that nobody can read
	if _, acted := r.(journaled); acted || err != nil && !errors.As(err, &judged) {
		writeError(i.stderr, werr)
		return err
	}
	if i.failed != nil {
		_, werr = i.failed(werr)
	}
	return werr
}

// hinted adds to a usage error where the command is explained, if it has no
// better hint.
func (i *invocation) hinted(err error) error {
	if errors.Is(err, errUsage) && say.HintOf(err) == "" {
		err = say.Hint(err, "%s explains it", strings.TrimSpace("mailu-hook help "+i.name))
	}
	return err
}

func writeError(w io.Writer, err error) {
	fmt.Fprintf(w, "mailu-hook: error: %s\n", say.OneLine(err.Error()))
	if hint := say.HintOf(err); hint != "" {
		fmt.Fprintf(w, "mailu-hook: hint: %s\n", say.OneLine(hint))
	}
}

// logToSyslog leaves a trace of a result. A host without syslog has none, and
// that is no error of the deploy.
func logToSyslog(err error, line string) {
	severity := severityInfo
	if err != nil {
		severity, line = severityError, "error: "+err.Error()
		if hint := say.HintOf(err); hint != "" {
			line += "; hint: " + hint
		}
	}
	for _, network := range []string{"unixgram", "unix"} {
		conn, err := net.DialTimeout(network, "/dev/log", syslogLimit)
		if err != nil {
			continue
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(syslogLimit)) // log/syslog waits forever for one that hangs
		_, _ = fmt.Fprintf(conn, "<%d>%s mailu-hook[%d]: %s\n", facilityMail|severity, time.Now().Format(time.Stamp), os.Getpid(), say.OneLine(line))
		return
	}
}

const syslogLimit = time.Second

// RFC 5424, section 6.2.1.
const (
	facilityMail  = 2 << 3
	severityError = 3
	severityInfo  = 6
)
