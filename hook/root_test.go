package hook

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestTheRootOfAChainIsFoundAndAppendedOnce(t *testing.T) {
	ca := newCA(t, mint.CAOptions{})
	b, rules := parsed(t, issueFrom(t, ca, mint.Leaf{})), rooted(ca)
	root := rules.Root(b.Chain)
	require.NotNil(t, root)
	assert.True(t, root.Equal(ca.Root))

	longer, err := b.Append(root)
	require.NoError(t, err)
	require.NoError(t, rules.Check(longer))
	assert.Len(t, b.Chain, 2, "the bundle itself stays as it is")
	again, err := Parse(testSource, longer.certPEM, longer.keyPEM)
	require.NoError(t, err)
	assert.Equal(t, longer.Chain, again.Chain)
	assert.Len(t, again.Chain, 3)

	assert.Nil(t, rules.Root(longer.Chain), "it is there")
	same, err := longer.Append(root)
	require.NoError(t, err)
	assert.Same(t, longer, same)
}

func TestWhatTheChainDoesNotLeadToIsNotAppended(t *testing.T) {
	ca, other := newCA(t, mint.CAOptions{}), newCA(t, mint.CAOptions{})
	b := parsed(t, issueFrom(t, ca, mint.Leaf{}))
	_, err := b.Append(other.Root)
	var r *Rejection
	require.ErrorAs(t, err, &r)
	assert.Contains(t, r.Hint(), "--append-root auto")
	assert.Nil(t, rooted(other).Root(b.Chain))
	assert.Nil(t, rooted(ca).Root(b.Chain[:1]), "something is missing in between")
}

func TestAChainIsReadWithoutItsKey(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	name := filepath.Join(t.TempDir(), "fullchain.pem")
	writeFile(t, name, pair.Chain, 0o600)
	chain, err := ReadChain(name)
	require.NoError(t, err)
	assert.Equal(t, parsed(t, pair).Chain, chain)
	writeFile(t, name, pair.KeyPEM, 0o600)
	_, err = ReadChain(name)
	require.ErrorContains(t, err, "there is no certificate in it")
	_, err = ReadChain(name + "x")
	require.ErrorContains(t, err, "cannot be read")
}
