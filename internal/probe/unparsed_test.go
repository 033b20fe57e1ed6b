package probe

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestALeafThatOnlyGoCannotParseIsSeen(t *testing.T) {
	ca, err := testCA()
	require.NoError(t, err)
	odd, err := ca.Odd(mint.Leaf{})
	require.NoError(t, err)
	server := handshaking(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{odd.Cert.Raw, ca.Issuer.Raw}, PrivateKey: odd.Key}}})
	for protocol, address := range map[string]string{"https": listen(t, server), "imap": listen(t, speaking(t, plain["imap"], server))} {
		e := askAt(t, patient, protocol, address)
		require.NoError(t, e.Err)
		assert.Equal(t, odd.SHA256(), e.Leaf, protocol)
		assert.Len(t, e.Chain, 1)
	}
}

func TestRecordsThatHoldNoCertificateHaveNoLeaf(t *testing.T) {
	certificate := []byte{22, 3, 3, 0, 11, 11, 0, 0, 7, 0, 0, 4, 0, 0, 1, 0x30}
	assert.Equal(t, []byte{0x30}, leafSent(certificate))
	for n := range certificate {
		assert.Nil(t, leafSent(certificate[:n]), "cut after %d bytes", n)
	}
	for _, odd := range [][]byte{{21, 3, 3, 0, 2, 1, 0}, {22, 3, 3, 0, 4, 11, 0xff, 0xff, 0xff}, {22, 3, 3, 0, 7, 11, 0, 0, 3, 0, 0, 0}, {22, 3, 3, 0, 10, 11, 0, 0, 6, 0, 0, 3, 0xff, 0xff, 0xff}} {
		assert.Nil(t, leafSent(odd), "%v", odd)
	}
}
