package probe

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// counted is a connection that knows how much was read from it.
type counted struct {
	net.Conn
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read += n
	return n, err
}

// FuzzSTARTTLS: whatever a server answers, once or forever, in small pieces or
// large ones, the dialogue ends by itself, after a bounded number of bytes. When
// it ends well, not one byte after the go-ahead was taken.
func FuzzSTARTTLS(f *testing.F) {
	protocols := []string{"smtp", "submission", "imap", "pop3", "sieve"}
	for i, protocol := range protocols {
		var whole string
		for _, e := range plain[protocol] {
			whole += e.say
			f.Add(uint8(i), uint16(7), true, []byte(e.say))
		}
		f.Add(uint8(i), uint16(1), false, []byte(whole))
		f.Add(uint8(i), uint16(4096), false, []byte(whole+"RSET\r\n"))
		f.Add(uint8(i), uint16(len(whole)-1), false, []byte(whole))
	}
	f.Add(uint8(0), uint16(100), true, []byte("220-more\r\n250-more\r\n"))
	f.Add(uint8(0), uint16(9), false, []byte("554 \x1b[31m\xff\u202e\r\n"))
	f.Add(uint8(2), uint16(0), true, []byte("x"))
	f.Add(uint8(4), uint16(3), true, []byte("\n"))
	f.Fuzz(func(t *testing.T, protocol uint8, piece uint16, forever bool, answer []byte) {
		client, server := net.Pipe()
		defer client.Close()
		require.NoError(t, client.SetDeadline(time.Now().Add(patient)))
		go func() { _, _ = io.Copy(io.Discard, server) }()
		go func() {
			defer server.Close()
			for again := true; again; again = forever && len(answer) > 0 {
				for rest := answer; len(rest) > 0; {
					n := min(len(rest), int(piece)+1)
					if _, err := server.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}
		}()
		conn := &counted{Conn: client}
		name := protocols[int(protocol)%len(protocols)]
		err := startTLS(conn, name)
		assert.LessOrEqual(t, conn.read, len(dialogues[name])*maxLines*maxLine+maxLine)
		if err == nil {
			require.Positive(t, conn.read)
			assert.Equal(t, byte('\n'), answer[(conn.read-1)%len(answer)], "the last byte read ends the go-ahead")
			return
		}
		assert.False(t, errors.Is(err, os.ErrDeadlineExceeded), "it waited although the server spoke")
		assert.True(t, utf8.ValidString(err.Error()), "not UTF-8: %q", err)
		assert.Less(t, len(err.Error()), 2048)
		for _, r := range err.Error() {
			assert.True(t, unicode.IsPrint(r), "%q in %q", r, err)
		}
	})
}
