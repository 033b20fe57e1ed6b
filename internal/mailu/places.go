package mailu

// Where this program and certbot keep their things on the host.
const (
	DefaultStateDir   = "/var/lib/mailu-hook" // root's own: the front cannot write there
	DefaultCertbotDir = "/etc/letsencrypt"
)
