package acme

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func BenchmarkDue(b *testing.B) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(b, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(b, err)
	want := Request{Directory: LetsEncrypt, Names: []string{mint.DefaultName}, Key: EC256}
	l := &Lineage{Leaf: pair.Cert, Record: Record{Directory: want.Directory, Names: want.Names}}
	for _, c := range []struct {
		name string
		now  time.Time
	}{{"due", pair.Cert.NotAfter}, {"not due", pair.Cert.NotBefore}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if due := l.Due(want, c.now, false); due.Now != (c.name == "due") {
					b.Fatal(due.Reason)
				}
			}
		})
	}
}
