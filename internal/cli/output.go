package cli

import (
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"strings"

	"mailu-hook/internal/say"
)

// journaled is a result that also goes to syslog: certbot -q drops everything
// else, and nobody reads what a timer prints.
type journaled interface {
	journal() (line string, worthIt bool)
}

// warned is a result with something to say on stderr besides the error.
type warned interface{ warnings() []string }

// finish tells how an invocation ended and returns its exit status. Syslog comes
// first: it must not depend on whether somebody still reads stdout.
func finish(i *invocation, r result, err error, stdout io.Writer) int {
	if j, ok := r.(journaled); ok {
		if line, worthIt := j.journal(); worthIt {
			logToSyslog(err, line)
		}
	}
	if r != nil {
		if out := r.tell(i.out.format, err, screenOf(stdout, i.settings)); out != "" {
			if _, werr := io.WriteString(stdout, out); werr != nil && err == nil {
				err = fmt.Errorf("writing the result: %w", werr)
			}
		}
	}
	var judged verdict
	if err != nil && !errors.As(err, &judged) {
		writeError(i.stderr, err)
		if w, ok := r.(warned); ok {
			for _, warning := range w.warnings() {
				fmt.Fprintf(i.stderr, "mailu-hook: warning: %s\n", say.OneLine(warning))
			}
		}
	}
	return exitStatus(err)
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
	w, serr := syslog.New(syslog.LOG_INFO|syslog.LOG_MAIL, "mailu-hook")
	if serr != nil {
		return
	}
	defer w.Close()
	if err == nil {
		_ = w.Info(line)
		return
	}
	text := "error: " + err.Error()
	if hint := say.HintOf(err); hint != "" {
		text += "; hint: " + hint
	}
	_ = w.Err(say.OneLine(text))
}
