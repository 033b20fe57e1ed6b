package renewal

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mailu-hook/hook"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// leaveToCertbot refuses a name that certbot manages, according to its renewal
// configuration: two programs that renew the same name would count against one
// rate limit, and each would replace what the other installed.
func leaveToCertbot(dir, name string) error {
	entries, err := os.ReadDir(filepath.Join(dir, "renewal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return say.Hint(fmt.Errorf("checking whether certbot manages %s: %w", name, err), "run mailu-hook as root, or go on anyway: --force-standalone")
	}
	for _, entry := range entries {
		lineage, ok := strings.CutSuffix(entry.Name(), ".conf")
		if !ok {
			continue
		}
		config := filepath.Join(dir, "renewal", entry.Name())
		leaf := readLeaf(filepath.Join(dir, "live", lineage, "cert.pem"))
		if lineage == strings.TrimPrefix(name, "*.") || leaf != nil && len(hook.Missing(leaf, []string{name})) == 0 {
			return say.Hint(usageErr{fmt.Sprintf("certbot manages %s (%s)", name, config)},
				"let certbot renew it, and call mailu-hook as its deploy hook; or stop it with: certbot delete --cert-name %s; or go on anyway: --force-standalone", lineage)
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
	chain, err := pki.ParseChain(data)
	if err != nil {
		return nil
	}
	return chain[0]
}
