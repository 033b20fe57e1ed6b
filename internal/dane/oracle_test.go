package dane

import (
	"bytes"
	"crypto/tls"
	"net"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// OpenSSL's own DANE is what Postfix and Exim use, so it is what decides whether
// mail arrives.
func TestOpenSSLJudgesTheSame(t *testing.T) {
	rig.Need(t, rig.NeedOpenSSL)
	cases, keys := judgements(t)
	for name, c := range cases {
		if c.want != Match && c.want != Mismatch {
			continue // the sender does not authenticate at all
		}
		t.Run(name, func(t *testing.T) {
			pair := tls.Certificate{PrivateKey: keys[string(c.chain[0].Raw)]}
			for _, sent := range c.chain {
				pair.Certificate = append(pair.Certificate, sent.Raw)
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
			require.NoError(t, err)
			defer l.Close()
			go shakeHands(l)
			args := []string{"s_client", "-connect", l.Addr().String(), "-dane_tlsa_domain", "mail.example.com", "-dane_ee_no_namechecks", "-verify_return_error", "-brief"}
			for _, r := range c.records {
				args = append(args, "-dane_tlsa_rrdata", r.String())
			}
			cmd := exec.CommandContext(t.Context(), "openssl", args...)
			cmd.Stdin = bytes.NewReader(nil)
			out, err := cmd.CombinedOutput()
			assert.Equal(t, c.want == Match, err == nil, "%s", out)
		})
	}
}

func shakeHands(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.(*tls.Conn).Handshake()
		conn.Close()
	}
}
