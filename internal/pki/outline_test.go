package pki

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestAnOutlineIsDrawnOfWhatOnlyGoCannotParse(t *testing.T) {
	ca, pair := issue(t, mint.Leaf{})
	assert.Equal(t, pair.Cert.DNSNames, Outline(pair.Chain).DNSNames, "of one that can be parsed it is all")

	odd, err := ca.Odd(mint.Leaf{})
	require.NoError(t, err)
	_, err = Parse(odd.Cert.Raw)
	require.ErrorContains(t, err, "PrintableString")
	_, err = tls.X509KeyPair(odd.Chain, odd.KeyPEM)
	require.Error(t, err)
	c := Outline(odd.Chain)
	require.NotNil(t, c)
	assert.True(t, Owns(odd.Key.Public(), c))
	assert.Equal(t, odd.SHA256(), Fingerprint(c))
	assert.WithinDuration(t, time.Now().AddDate(0, 0, 90), c.NotAfter, 2*time.Hour)
	assert.Empty(t, c.DNSNames)

	assert.Nil(t, Outline([]byte("nothing")))
	assert.Nil(t, OutlineDER(bytes.Repeat([]byte{0x30}, 100)))
}
