package probe

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const patient = 20 * time.Second // a bound that only a hanging test meets

func TestLeafIsSeenThroughEveryDialogue(t *testing.T) {
	pair := newPair(t)
	serveTLS := handshaking(serverConfig(t, pair))
	capabilities := strings.Repeat("250-X-SOMETHING with a few words\r\n", 60)
	for name, c := range map[string]struct {
		protocol string
		script   []exchange
	}{
		"smtp":                  {"smtp", plain["smtp"]},
		"submission":            {"submission", plain["submission"]},
		"imap":                  {"imap", plain["imap"]},
		"pop3":                  {"pop3", plain["pop3"]},
		"sieve":                 {"sieve", plain["sieve"]},
		"smtp, multi-line":      {"smtp", []exchange{{"", "220-mail\r\n220-be nice\r\n220 ready\r\n"}, {"EHLO mailu-hook.invalid", capabilities + "250 STARTTLS\r\n"}, {"STARTTLS", "220-well\r\n220 2.0.0 go\r\n"}}},
		"smtp, bare codes":      {"smtp", []exchange{{"", "220\r\n"}, {"EHLO mailu-hook.invalid", "250-STARTTLS\r\n250\r\n"}, {"STARTTLS", "220\r\n"}}}, // RFC 5321, 4.2: the text is optional
		"imap, capabilities":    {"imap", []exchange{{"", "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] Dovecot ready.\r\n"}, {"a STARTTLS", "* CAPABILITY IMAP4rev1\r\n* 0 EXISTS\r\na OK Begin TLS negotiation now.\r\n"}}},
		"imap, long line":       {"imap", []exchange{{"", "* OK [" + strings.Repeat("X", 2000) + "] ready\r\n"}, {"a STARTTLS", "a OK\r\n"}}},
		"pop3, bare":            {"pop3", []exchange{{"", "+OK\r\n"}, {"STLS", "+OK\r\n"}}},
		"sieve, as dovecot":     {"sieve", []exchange{{"", "\"IMPLEMENTATION\" \"Dovecot Pigeonhole\"\r\n\"SIEVE\" \"fileinto reject\"\r\n\"SASL\" \"\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK \"Dovecot ready.\"\r\n"}, {"STARTTLS", "OK \"Begin TLS negotiation now.\"\r\n"}}},
		"sieve, code in answer": {"sieve", []exchange{{"", "\"STARTTLS\"\r\nOK (TAG \"x\") \"ready\"\r\n"}, {"STARTTLS", "OK\r\n"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := patient
			if strings.Contains(name, "bare") {
				limit = time.Second
			}
			e := askAt(t, limit, c.protocol, listen(t, speaking(t, c.script, serveTLS)))
			require.NoError(t, e.Err)
			assert.Equal(t, pair.SHA256(), e.Leaf)
		})
	}
}

// dribble is a connection that sends every byte by itself.
type dribble struct{ net.Conn }

func (d dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestDialogueSentByteByByteIsUnderstood(t *testing.T) {
	pair := newPair(t)
	serveTLS := handshaking(serverConfig(t, pair))
	for protocol, script := range plain {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			play := speaking(t, script, serveTLS)
			e := askAt(t, patient, protocol, listen(t, func(conn net.Conn) { play(dribble{conn}) }))
			require.NoError(t, e.Err)
			assert.Equal(t, pair.SHA256(), e.Leaf)
		})
	}
}

func TestRefusalIsReportedAtEachTurn(t *testing.T) {
	refusals := map[string]string{
		"smtp": "554-5.7.1 no\r\n554 go away\r\n", "submission": "454 4.7.0 TLS not available\r\n",
		"imap": "* BYE too busy\r\na BAD unknown command\r\n", "pop3": "-ERR [SYS/TEMP] no\r\n", "sieve": "NO \"TLS\"\r\n",
	}
	atEachTurn(t, func(t *testing.T, protocol string, before []exchange, turn exchange) {
		refusal := refusals[protocol]
		if protocol == "imap" && turn.wait != "" {
			refusal = "a NO not now\r\n"
		}
		e := askAt(t, patient, protocol, listen(t, speaking(t, append(before, exchange{turn.wait, refusal}), hang)))
		first, _, _ := strings.Cut(refusal, "\r\n")
		require.Error(t, e.Err)
		assert.Contains(t, strings.ReplaceAll(e.Err.Error(), `\"`, `"`), "speaking "+protocol+": the server answered \""+first)
	})
}

func TestEarlyCloseIsReportedAtEachTurn(t *testing.T) {
	atEachTurn(t, func(t *testing.T, protocol string, before []exchange, turn exchange) {
		half := turn.say[:2]
		e := askAt(t, patient, protocol, listen(t, speaking(t, append(before, exchange{turn.wait, half}), func(net.Conn) {})))
		assert.ErrorContains(t, e.Err, "speaking "+protocol+": the server closed the connection")
	})
}

func TestEndlessLineIsCutShortAtEachTurn(t *testing.T) {
	atEachTurn(t, func(t *testing.T, protocol string, before []exchange, turn exchange) {
		play := speaking(t, append(before, exchange{turn.wait, ""}), func(conn net.Conn) {
			for _, err := conn.Write([]byte("2")); err == nil; _, err = io.WriteString(conn, strings.Repeat("2", 1<<16)) {
			}
		})
		e := askAt(t, patient, protocol, listen(t, play))
		assert.EqualError(t, e.Err, "speaking "+protocol+": a line longer than 2048 bytes")
	})
}

func TestEndlessLinesAreCutShortAtEachTurn(t *testing.T) {
	atEachTurn(t, func(t *testing.T, protocol string, before []exchange, turn exchange) {
		play := speaking(t, append(before, exchange{turn.wait, ""}), func(conn net.Conn) {
			for _, err := conn.Write([]byte("x\n")); err == nil; _, err = io.WriteString(conn, "\x00\xff\n\r\n* 1 EXISTS\n220-\n") {
			}
		})
		e := askAt(t, patient, protocol, listen(t, play))
		assert.EqualError(t, e.Err, "speaking "+protocol+": more than 64 lines")
	})
}

func TestSlowServerIsBoundedByTheDeadlineAtEachTurn(t *testing.T) {
	atEachTurn(t, func(t *testing.T, protocol string, before []exchange, turn exchange) {
		play := speaking(t, append(before, exchange{turn.wait, ""}), func(conn net.Conn) {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for _, err := conn.Write([]byte("2")); err == nil; _, err = conn.Write([]byte("2")) {
				<-pace.C
			}
		})
		began := time.Now()
		e := askAt(t, 200*time.Millisecond, protocol, listen(t, play))
		assert.ErrorContains(t, e.Err, "deadline exceeded")
		within(t, 2*time.Second, began, "a slow server")
	})
}

func TestBytesAfterTheGoAheadAreAnAttack(t *testing.T) {
	for protocol, script := range plain {
		for name, extra := range map[string]string{"a command": "RSET\r\n", "one byte": "\x16", "a TLS record": "\x16\x03\x03\x00\x02ab"} {
			t.Run(protocol+", "+name, func(t *testing.T) {
				t.Parallel()
				last := len(script) - 1
				injected := append(script[:last:last], exchange{script[last].wait, script[last].say + extra})
				e := askAt(t, patient, protocol, listen(t, speaking(t, injected, hang)))
				assert.EqualError(t, e.Err, "speaking "+protocol+": the server sent more after its go-ahead for TLS")
			})
		}
	}
}

func TestHostileAnswerIsMadeHarmless(t *testing.T) {
	answer := "554 \x1b[31m\xff\u202e" + strings.Repeat("x", 1500) + "\r\n"
	e := askAt(t, patient, "smtp", listen(t, speaking(t, []exchange{{"", answer}}, hang)))
	require.Error(t, e.Err)
	assert.Contains(t, e.Err.Error(), "the server answered")
	assert.Less(t, len(e.Err.Error()), 500)
	for _, bad := range []string{"\x1b", "\xff", "\u202e"} {
		assert.NotContains(t, e.Err.Error(), bad)
	}
}
