package probe

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"

	"mailu-hook/internal/pki"
)

// unparsed reports whether a handshake failed because crypto/x509 cannot parse what the
// server sent. crypto/tls has no error of its own for it.
func unparsed(err error) bool {
	return strings.Contains(err.Error(), "failed to parse certificate from server")
}

// recorded is a connection that keeps what was read from it.
type recorded struct {
	net.Conn
	read []byte
}

const mostRecorded = 64 << 10

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if len(r.read) < mostRecorded {
		r.read = append(r.read, p[:n]...)
	}
	return n, err
}

// outline makes a handshake of TLS 1.2 on conn, in which certificates are sent in the
// clear, and returns the outline of the leaf; nil if there is none. That the server owns
// its key is not proven: it serves for recognizing what a port showed before.
func outline(conn net.Conn, serverName string) *x509.Certificate {
	tap := &recorded{Conn: conn}
	_ = tls.Client(tap, &tls.Config{InsecureSkipVerify: true, ServerName: serverName, MaxVersion: tls.VersionTLS12}).Handshake()
	der := leafSent(tap.read)
	if der == nil {
		return nil
	}
	return pki.OutlineDER(der)
}

const (
	recordHandshake    = 22 // RFC 5246, section 6.2.1
	messageCertificate = 11 // section 7.4
)

// leafSent is the first certificate in the records of a server, DER; nil if they hold
// none.
func leafSent(records []byte) []byte {
	var messages []byte
	for len(records) >= 5 && records[0] == recordHandshake {
		length := int(records[3])<<8 | int(records[4])
		if len(records) < 5+length {
			break
		}
		messages, records = append(messages, records[5:5+length]...), records[5+length:]
	}
	for len(messages) >= 4 {
		length := uint24(messages[1:])
		if len(messages) < 4+length {
			return nil
		}
		if body := messages[4 : 4+length]; messages[0] == messageCertificate && length >= 6 && uint24(body[3:]) <= length-6 {
			return body[6 : 6+uint24(body[3:])] // after the length of the list and its own (section 7.4.2)
		}
		messages = messages[4+length:]
	}
	return nil
}

func uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }
