package renewal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

func TestCertbotManagesWhatItsRenewalConfigurationAndItsLeafSay(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		lineage, names, host string
		conf                 bool
		managed              bool
	}{
		"by its name":           {"mail.example.com", "", "mail.example.com", true, true},
		"under another name":    {"web.example.com-0001", "web.example.com,mail.example.com", "mail.example.com", true, true},
		"by a wildcard":         {"wild", "*.example.com", "mail.example.com", true, true},
		"a wildcard":            {"example.com", "", "*.example.com", true, true},
		"another site":          {"web.example.com", "web.example.com", "mail.example.com", true, false},
		"no longer":             {"mail.example.com", "mail.example.com", "mail.example.com", false, false},
		"a domain that ends so": {"example.com", "example.com", "mail.example.com", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "letsencrypt[1]") // not a pattern
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "renewal"), 0o700))
			if c.conf {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "renewal", c.lineage+".conf"), nil, 0o600))
			}
			if c.names != "" {
				pair, err := ca.Issue(mint.Leaf{Names: strings.Split(c.names, ",")})
				require.NoError(t, err)
				_, err = pair.WriteLineage(dir, c.lineage, 1)
				require.NoError(t, err)
			}
			err := leaveToCertbot(dir, c.host)
			if !c.managed {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "certbot manages "+c.host)
			require.ErrorIs(t, err, ErrUsage)
		})
	}
}
