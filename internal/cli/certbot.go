package cli

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mailu-hook/hook"
	"mailu-hook/internal/say"
)

// leaveToCertbot refuses a name that certbot manages, as its renewal
// configuration says: two that renew the same would count against one limit, and
// one would undo what the other installed.
func leaveToCertbot(dir, name string) error {
	configs, _ := filepath.Glob(filepath.Join(dir, "renewal", "*.conf")) // the pattern is well formed
	for _, config := range configs {
		lineage := strings.TrimSuffix(filepath.Base(config), ".conf")
		leaf := readLeaf(filepath.Join(dir, "live", lineage, "cert.pem"))
		if lineage == name || leaf != nil && len(hook.Missing(leaf, []string{name})) == 0 {
			return say.Hint(usageErr{fmt.Sprintf("certbot manages %s (%s)", name, config)},
				"let certbot renew it, with --deploy-hook mailu-hook; or end that with 'certbot delete --cert-name %s'; or go on all the same: --force-standalone", lineage)
		}
	}
	return nil
}

// readLeaf reads the first certificate of a file, nil if there is none.
func readLeaf(file string) *x509.Certificate {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	leaf, _ := x509.ParseCertificate(block.Bytes)
	return leaf
}
