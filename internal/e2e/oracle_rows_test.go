package e2e

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// stricter says why we refuse what nginx and dovecot would load. The keys are
// expressions for the facts in our messages. Each row must be needed, but for
// those where the OpenSSL of the image decides: Debian's, at security level 2,
// refuses some of what Alpine's (Mailu's), at level 1, takes.
var stricter = map[string]struct {
	because string
	lax     bool // needed only by a laxer OpenSSL
}{
	`does not cover`:                                    {because: "the mail server would answer with a certificate for other names"},
	`more than one private key`:                         {because: "OpenSSL takes the first; which one was meant, nobody can know"},
	`is not a private key`:                              {because: "OpenSSL looks for the key among other blocks; such a file was put together by mistake"},
	`is .*, not a certificate`:                          {because: "OpenSSL passes over other blocks, and so over a chain by a name that it does not know"},
	`PEM blocks cannot be decoded`:                      {because: "OpenSSL stops at the first damage, and what comes after is lost without a word"},
	`larger than`:                                       {because: "no chain takes a mebibyte"},
	`more than clients accept`:                          {because: "clients stop at ten, and some refuse the handshake"},
	`certificate \d+ (cannot be parsed|is not valid): `: {because: "crypto/x509 holds to RFC 5280 where OpenSSL forgives; so do some clients, and no port could be verified"},
	`is signed with .*, which clients refuse`:           {because: "SHA-1 and MD5 signatures can be forged, and clients refuse them", lax: true},
	`is a CA, not a server`:                             {because: "Firefox refuses a server that shows a CA certificate"},
	`expired at`:                                        {because: "clients refuse it"},
	`valid only from`:                                   {because: "clients refuse it"},
	`lacks serverAuth`:                                  {because: "clients refuse it"},
	`lacks digitalSignature`:                            {because: "GnuTLS, Java and Chromium refuse it"},
	`must-staple`:                                       {because: "GnuTLS and Firefox refuse it, since the front never staples"},
	`the subject is empty`:                              {because: "RFC 5280 wants the names critical then"},
	`(RSA-1024|RSA-2047|P-224) key: not`:                {because: "too weak", lax: true},
	`(RSA-8200|P-521) key: not`:                         {because: "crypto/tls refuses larger RSA keys of a server, and mail clients do without P-521"},
	`unknown elliptic curve`:                            {because: "brainpool and secp256k1 are not spoken by clients", lax: true},
	`private key with unknown algorithm`:                {because: "Ed448 and RSASSA-PSS keys are not spoken by clients"},
	`public exponent too large`:                         {because: "Windows and others refuse it"},
	`parsed: x509: failed to parse private key`:         {because: "the block is not what its name says: other programs that read the file refuse it"},
	`parsed: .*(trailing data|key version)`:             {because: "damaged, or written by a program that has its own idea of a key"},
	`parsed: .*(crypto/rsa: (invalid|d does)|overflows|zero or negat)`: {because: "an RSA key says everything twice, and this one contradicts itself: it is damaged"},
	`is not allowed to: its basic constraints`:                         {because: "clients refuse it"},
	`key of the CA .* is not accepted`:                                 {because: "OpenSSL at security level 2 and others refuse such a root, even if it is not sent"},
	`is self-signed`:                                                   {because: "nobody trusts it, unless told"},
	`leaf stands alone`:                                                {because: "clients cannot find the issuer"},
	`(neither in the file nor|which is not) among the`:                 {because: "nobody trusts it, unless told"},
	`issued by a staging CA`:                                           {because: "nobody trusts it, unless told"},
	`the chain is not valid`:                                           {because: "clients hold the chain to validity, constraints and usages as crypto/x509 does"},
}

// ruleOf is the row for a message of ours, else the message.
func ruleOf(message string) string {
	for _, rule := range slices.Sorted(maps.Keys(stricter)) {
		if regexp.MustCompile(rule).MatchString(message) {
			return rule
		}
	}
	_, fact, _ := strings.Cut(message, ".pem: ")
	fact, _, _ = strings.Cut(fact, " in /")
	return fact
}
