package cli

import (
	"path/filepath"
	"strings"

	"mailu-hook/internal/source"
)

// hookClient is an ACME client that calls the bare program as its deploy hook: how
// it tells what it renewed.
type hookClient struct {
	name string
	// called is the source that the client names, nil if it is not the one that
	// called.
	called func(env Environ, words []string) (*source.Source, error)
}

// renewedLineage is how certbot tells a deploy hook what was renewed.
const renewedLineage = "RENEWED_LINEAGE"

// hookClients are asked in this order: certbot may have been started by the hook of
// another.
var hookClients = []hookClient{
	{"certbot", func(env Environ, _ []string) (*source.Source, error) {
		dir := env(renewedLineage)
		if dir != "" && !filepath.IsAbs(dir) {
			return nil, usageError("%s is %q, which is not an absolute path", renewedLineage, dir)
		}
		return directoryOf(dir, "")
	}},
	// Sources: go-acme/lego v4 cmd/hook.go, v5 cmd/internal/hook.
	{"lego 5", filesNamedBy("LEGO_HOOK_CERT_PATH", "LEGO_HOOK_CERT_KEY_PATH")},
	{"lego 4", filesNamedBy("LEGO_CERT_PATH", "LEGO_CERT_KEY_PATH")},
	// acme.sh (3.1.4, _installcert) keeps each certificate in a directory of its own, and runs reloadcmd there.
	{"acme.sh", func(env Environ, _ []string) (*source.Source, error) {
		if env("CERT_KEY_PATH") == "" || env("CERT_FULLCHAIN_PATH") == "" {
			return nil, nil
		}
		return directoryOf(filepath.Dir(env("CERT_FULLCHAIN_PATH")), "CERT_FULLCHAIN_PATH")
	}},
	// dehydrated calls HOOK deploy_cert DOMAIN KEYFILE CERTFILE FULLCHAINFILE CHAINFILE
	// TIMESTAMP (docs/hook_chain.md, docs/examples/hook.sh).
	{"dehydrated", func(_ Environ, words []string) (*source.Source, error) {
		if len(words) == 0 || words[0] != "deploy_cert" {
			return nil, nil
		}
		if len(words) < 5 {
			return nil, usageError("deploy_cert names no FULLCHAINFILE: it is for dehydrated, which calls it with DOMAIN KEYFILE CERTFILE FULLCHAINFILE")
		}
		return directoryOf(filepath.Dir(words[4]), "FULLCHAINFILE")
	}},
}

// directoryOf is a directory that a client named, by a variable or an argument.
func directoryOf(dir, by string) (*source.Source, error) {
	if dir == "" {
		return nil, nil
	}
	src, err := sourceAt(dir, by)
	if err != nil {
		return nil, err
	}
	return &src, nil
}

// filesNamedBy is for a client that names a chain and a key in its directory of all
// certificates.
func filesNamedBy(cert, key string) func(Environ, []string) (*source.Source, error) {
	return func(env Environ, _ []string) (*source.Source, error) {
		if env(cert) == "" && env(key) == "" {
			return nil, nil
		}
		if env(cert) == "" || env(key) == "" {
			return nil, usageError("only one of %s and %s is set", cert, key)
		}
		src := source.Files(env(cert), env(key))
		return &src, nil
	}
}

// renewedBy is what a client that called the program has renewed, nil if none called.
func renewedBy(env Environ, words []string) (*source.Source, error) {
	for _, client := range hookClients {
		if src, err := client.called(env, words); src != nil || err != nil {
			return src, err
		}
	}
	return nil, nil
}

// isHookWord reports whether an argument is how dehydrated calls a hook. No command
// has such a name, and what a hook does not know it must ignore.
func isHookWord(arg string) bool { return strings.Contains(arg, "_") && !strings.HasPrefix(arg, "-") }
