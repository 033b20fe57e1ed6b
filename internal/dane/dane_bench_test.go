package dane

import (
	"testing"
	"time"

	"mailu-hook/internal/mint"
)

func BenchmarkJudge(b *testing.B) {
	p, other := newPKI(b, mint.Leaf{}), newPKI(b, mint.Leaf{})
	names, now := []string{mint.DefaultName}, time.Now()
	for _, c := range []struct {
		name    string
		records []Record
		want    Verdict
	}{
		{"leaf", []Record{OfLeaf(other.leaf), OfLeaf(p.leaf)}, Match},
		{"issuer", []Record{OfIssuer(other.ca.Issuer), OfIssuer(p.ca.Issuer)}, Match},
		{"no match", []Record{OfLeaf(other.leaf), OfIssuer(other.ca.Issuer)}, Mismatch},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if verdict, _ := Judge(c.records, p.sent(), names, now); verdict != c.want {
					b.Fatal(verdict)
				}
			}
		})
	}
}
