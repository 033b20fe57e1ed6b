package mint

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteLineage stores the pair as certbot does, as version n of the lineage name
// below the configuration directory dir, and returns the absolute path of its live
// directory. The files are in archive/NAME, and live/NAME has relative symlinks to
// them, which are replaced one at a time by unlink and symlink; keys are 0600.
func (p *Pair) WriteLineage(dir, name string, n int) (live string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("writing lineage %s: %w", name, err)
	}
	live = filepath.Join(dir, "live", name)
	archive := filepath.Join(dir, "archive", name)
	for _, d := range []string{live, archive} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return "", fmt.Errorf("writing lineage %s: %w", name, err)
		}
	}
	for _, file := range []struct {
		item string
		data []byte
		mode os.FileMode
	}{
		{"cert", p.LeafPEM, 0o644},
		{"privkey", p.KeyPEM, 0o600},
		{"chain", p.IssuerPEM, 0o644},
		{"fullchain", p.Chain, 0o644},
	} {
		versioned := fmt.Sprintf("%s%d.pem", file.item, n)
		link := filepath.Join(live, file.item+".pem")
		if err := os.WriteFile(filepath.Join(archive, versioned), file.data, file.mode); err != nil {
			return "", fmt.Errorf("writing lineage %s: %w", name, err)
		}
		if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
			return "", fmt.Errorf("writing lineage %s: %w", name, err)
		}
		if err := os.Symlink(filepath.Join("..", "..", "archive", name, versioned), link); err != nil {
			return "", fmt.Errorf("writing lineage %s: %w", name, err)
		}
	}
	return live, nil
}
