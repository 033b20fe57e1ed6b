package acme

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	lego "github.com/go-acme/lego/v4/acme"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Account is an account at a CA, as recorded in the state directory.
type Account struct {
	Directory string    `json:"directory"`
	URL       string    `json:"url"` // "" until the CA has created the account
	Email     string    `json:"email,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	Status    string    `json:"-"` // reported by the CA: valid, deactivated, revoked
}

// Errors of accounts that callers decide on.
var (
	ErrNoAccount = errors.New("there is no account at this CA yet")
	ErrTerms     = errors.New("the CA's terms of service have not been agreed to")
)

// NoAccount returns an ErrNoAccount that names the CA's directory.
func NoAccount(directory string) error {
	return say.Hint(fmt.Errorf("%w: %s", ErrNoAccount, directory), "the first mailu-hook renew creates one")
}

// signIn makes sure that the CA has our account. The key is on disk before it is
// sent, and the CA returns the same account for the same key (RFC 8555, section
// 7.3.1), so no account is lost however the run ends.
func (c *Client) signIn() error {
	if err := c.connect(); err != nil {
		return err
	}
	switch {
	case c.account.URL == "":
		return c.register()
	case c.o.Email != "" && c.o.Email != c.account.Email:
		return c.changeEmail()
	}
	return nil
}

func (c *Client) register() error {
	meta := c.core.GetDirectory().Meta
	switch {
	case meta.TermsOfService != "" && !c.o.AgreeTOS:
		return say.Hint(local{fmt.Errorf("%w: %s", ErrTerms, say.Plain(meta.TermsOfService))}, "read them, then run once with --agree-tos")
	case c.o.EAB != nil && !isHMACKey(c.o.EAB.HMAC):
		return say.Hint(local{errors.New("creating an account: the HMAC key of the external account must be base64url of at least 32 bytes")}, "copy it again from the CA's website into the file given with --eab-hmac-file")
	case meta.ExternalAccountRequired && c.o.EAB == nil:
		return say.Hint(local{errors.New("creating an account: the CA requires an external account binding")}, "%s", hints["externalAccountRequired"])
	}
	c.account = Account{Directory: c.o.Directory, Email: c.o.Email, Created: time.Now().UTC()}
	if err := c.state.keepAccount(c.account, c.key); err != nil {
		return local{err}
	}
	c.progress("creating an account at %s", c.o.Directory)
	request := lego.Account{TermsOfServiceAgreed: c.o.AgreeTOS, Contact: contact(c.o.Email)}
	var made lego.ExtendedAccount
	var err error
	if c.o.EAB != nil {
		made, err = c.core.Accounts.NewEAB(request, c.o.EAB.KeyID, c.o.EAB.HMAC)
	} else {
		made, err = c.core.Accounts.New(request)
	}
	err = c.explain(err, "creating an account", "")
	if c.o.EAB != nil && isProblem(err, "unauthorized") {
		err = say.Hint(err, "check that --eab-kid and --eab-hmac-file belong to the same external account and are still unused; the CA's website issues new ones")
	}
	if err != nil {
		return err
	}
	if err := location("creating an account", made.Location); err != nil {
		return err
	}
	c.account.URL, c.created = made.Location, true
	return c.state.keepAccount(c.account, c.key)
}

// isHMACKey reports whether text is a base64url key for HS256 (RFC 7518, section
// 3.2).
func isHMACKey(text string) bool {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	return err == nil && len(data) >= 32
}

func (c *Client) changeEmail() error {
	if _, err := c.core.Accounts.Update(c.account.URL, lego.Account{Contact: contact(c.o.Email)}); err != nil {
		return c.explain(err, "changing the account's email address", "")
	}
	c.account.Email = c.o.Email
	return c.state.keepAccount(c.account, nil)
}

func contact(email string) []string {
	if email == "" {
		return []string{}
	}
	return []string{"mailto:" + email}
}

// Account returns the account and asks the CA for its status. The error wraps
// ErrNoAccount if there is none; after any other error the returned account holds
// what is recorded here.
func (c *Client) Account() (Account, error) {
	account, _, err := c.state.account(c.o.Directory)
	if err == nil {
		err = c.connect()
	}
	if err != nil {
		return account, err
	}
	there, err := c.core.Accounts.Get(account.URL)
	if err != nil {
		return account, c.explain(err, "fetching the account", "")
	}
	account.Status = there.Status
	return account, nil
}

// Deactivate permanently deactivates the account at the CA and removes it here (RFC
// 8555, section 7.3.6). After an error nothing has been removed. Certificates stay
// valid.
func (c *Client) Deactivate() (Account, error) {
	account, _, err := c.state.account(c.o.Directory)
	if err == nil {
		err = c.connect()
	}
	if err != nil {
		return account, err
	}
	err = c.explain(c.core.Accounts.Deactivate(account.URL), "deactivating the account", "")
	if err != nil && !isProblem(err, "unauthorized") && !isProblem(err, "accountDoesNotExist") { // already deactivated
		return account, err
	}
	account.Status = "deactivated"
	return account, c.state.forgetAccount(c.o.Directory)
}

const (
	accountsName = "accounts"
	accountFile  = "account.json"
	keyFile      = "key.pem"
)

// account reads the recorded account of a directory and its key. The error wraps
// ErrNoAccount if the CA has not created it; a key that is already on disk is
// returned along with that error.
func (s *State) account(directory string) (a Account, key crypto.Signer, err error) {
	none := NoAccount(directory)
	dir, err := s.open(accountsName, fileName(directory))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil, none
	}
	if err != nil {
		return a, nil, err
	}
	defer dir.Close()
	data, err := dir.Read(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil, none
	}
	if err != nil {
		return a, nil, err
	}
	if key, err = decodeKey(data); err != nil {
		return a, nil, say.Hint(fmt.Errorf("%s/%s: %w", dir.Path(), keyFile, err), "restore it from a backup, or remove the directory to create a new account")
	}
	if err := readJSON(dir, accountFile, &a); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, key, err
	}
	if a.URL == "" {
		return a, key, none
	}
	return a, key, nil
}

// keepAccount writes the key, unless it is nil, and then the account.
func (s *State) keepAccount(a Account, key crypto.Signer) error {
	dir, err := s.make(accountsName, fileName(a.Directory))
	if err != nil {
		return err
	}
	defer dir.Close()
	if key != nil {
		data, err := pki.EncodeKey(key)
		if err != nil {
			return err
		}
		if err := dir.Replace(keyFile, data, 0o600); err != nil {
			return err
		}
	}
	return writeJSON(dir, accountFile, a)
}

func (s *State) forgetAccount(directory string) error {
	accounts, err := s.open(accountsName)
	if err != nil {
		return err
	}
	defer accounts.Close()
	dir, err := accounts.OpenDir(fileName(directory))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := removeAll(dir, keyFile, accountFile); err != nil { // the key first: without it there is no account
		return err
	}
	if err := accounts.Remove(fileName(directory)); err != nil {
		return err
	}
	return accounts.Sync()
}
