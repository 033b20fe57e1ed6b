package health

import (
	"crypto/x509"
	"errors"
	"fmt"
	"mailu-hook/internal/pki"
	"math"
	"strconv"
	"strings"
	"time"
)

// Threshold is how little of a certificate's life may be left: a fraction of
// its lifetime, or a time. Lifetimes differ by CA and keep shrinking (6 to 90
// days), so only a fraction fits them all.
type Threshold struct {
	Fraction float64
	Left     time.Duration // instead of Fraction, if not zero
}

// The defaults. certbot renews when a third of the lifetime is left, so a quarter
// is late and an eighth is alarming.
var (
	DefaultWarn = Threshold{Fraction: 0.25}
	DefaultCrit = Threshold{Fraction: 0.125}
)

// ParseThreshold reads days ("20", "20d", "1.5d") or a fraction ("0.25",
// "25%"). A bare number below 1 is a fraction.
func ParseThreshold(text string) (Threshold, error) {
	number, percent := strings.CutSuffix(text, "%")
	number, days := strings.CutSuffix(number, "d")
	value, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || math.IsNaN(value) || value < 0 || percent && days:
		return Threshold{}, fmt.Errorf("%q is neither days (20d) nor a fraction of the lifetime (25%%)", text)
	case percent && value > 100:
		return Threshold{}, errors.New("more than 100% of a lifetime is never left")
	case percent:
		return Threshold{Fraction: value / 100}, nil
	case days || value >= 1:
		const longest = 36500 // days
		return Threshold{Left: time.Duration(min(value, longest) * float64(24*time.Hour))}, nil
	}
	return Threshold{Fraction: value}, nil
}

func (t Threshold) String() string {
	if t.Left != 0 {
		return strconv.FormatFloat(t.Left.Hours()/24, 'g', 4, 64) + "d"
	}
	return strconv.FormatFloat(t.Fraction*100, 'g', 4, 64) + "%"
}

// Exceeds reports whether t is reached before other, whatever the certificate. Of a
// fraction and a time that depends on the certificate, and is not said.
func (t Threshold) Exceeds(other Threshold) bool {
	return t.Left != 0 && other.Left != 0 && t.Left > other.Left || t.Left == 0 && other.Left == 0 && t.Fraction > other.Fraction
}

// Of is the time that must be left of c.
func (t Threshold) Of(c *x509.Certificate) time.Duration {
	if t.Left != 0 {
		return t.Left
	}
	return time.Duration(t.Fraction * float64(pki.Lifetime(c)))
}
