package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// turn is one exchange of a STARTTLS dialogue: what the client sends ("" at the
// greeting), and how it recognizes the server's last line. Lines before the last
// are skipped; one that matches no ends the dialogue.
type turn struct {
	send     string
	last, no *regexp.Regexp
}

// dialogues lead from the first byte of a connection to the start of TLS.
var dialogues = map[string][]turn{
	"smtp":       smtpTurns, // RFC 3207
	"submission": smtpTurns,
	"imap": { // RFC 9051, 6.2.1
		{"", regexp.MustCompile(`^\* (OK|PREAUTH)\b`), regexp.MustCompile(`^\* BYE\b`)},
		{"a STARTTLS\r\n", regexp.MustCompile(`^a OK\b`), regexp.MustCompile(`^a (NO|BAD)\b`)},
	},
	"pop3": { // RFC 2595, 4
		{"", regexp.MustCompile(`^\+OK`), regexp.MustCompile(`^-ERR`)},
		{"STLS\r\n", regexp.MustCompile(`^\+OK`), regexp.MustCompile(`^-ERR`)},
	},
	"sieve": { // RFC 5804, 2.2: the greeting is a list of capabilities, then OK
		{"", regexp.MustCompile(`^OK\b`), regexp.MustCompile(`^(NO|BYE)\b`)},
		{"STARTTLS\r\n", regexp.MustCompile(`^OK\b`), regexp.MustCompile(`^(NO|BYE)\b`)},
	},
}

var (
	smtpNo    = regexp.MustCompile(`^[45]\d\d`) // a last line may be a bare code (RFC 5321, 4.2)
	smtpTurns = []turn{
		{"", regexp.MustCompile(`^220[^-]`), smtpNo},
		{"EHLO mailu-hook.invalid\r\n", regexp.MustCompile(`^250[^-]`), smtpNo},
		{"STARTTLS\r\n", regexp.MustCompile(`^220[^-]`), smtpNo},
	}
)

const (
	maxLine  = 2048 // bytes; RFC 5804 allows 1024 for a string, SMTP and IMAP replies are shorter
	maxLines = 64   // a turn
)

// startTLS speaks the dialogue of protocol on conn, and returns nil when the
// server is ready for a TLS handshake. Whatever the server sends, it reads at
// most 64 lines of 2 KiB a turn, in the time that conn's deadline leaves.
//
// Bytes after the server's go-ahead are an error: they were sent in the clear, by
// someone who wants them taken for protected ones (RFC 3207, section 6;
// CVE-2011-0411).
func startTLS(conn net.Conn, protocol string) error {
	lines := bufio.NewReaderSize(conn, maxLine)
	for _, t := range dialogues[protocol] {
		if _, err := io.WriteString(conn, t.send); err != nil {
			return fmt.Errorf("speaking %s: %w", protocol, err)
		}
		if err := t.listen(lines); err != nil {
			return fmt.Errorf("speaking %s: %w", protocol, err)
		}
	}
	if lines.Buffered() > 0 {
		return fmt.Errorf("speaking %s: the server sent more after its go-ahead for TLS", protocol)
	}
	return nil
}

// declined is the server's answer where it should have gone ahead with TLS.
type declined struct{ line string }

func (d declined) Error() string        { return "the server answered " + say.Foreign(d.line) }
func (d declined) Is(target error) bool { return target == mailu.ErrWithout }

func (t turn) listen(lines *bufio.Reader) error {
	for range maxLines {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("a line longer than %d bytes", maxLine)
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the server closed the connection after %s", say.Foreign(string(line)))
		case err != nil:
			return err
		case t.last.Match(line):
			return nil
		case t.no.Match(line):
			return declined{string(line)}
		}
	}
	return fmt.Errorf("more than %d lines", maxLines)
}
