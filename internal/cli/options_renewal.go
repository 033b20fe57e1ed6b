package cli

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/renewal"
	"mailu-hook/internal/say"
)

// renewalOptions are those of every command that obtains certificates.
type renewalOptions struct {
	agreeTOS           bool
	email              string
	minInterval, issue time.Duration
	ignoreCertbot      bool
	ca                 caOptions
	challenge          challengeOptions
	order              orderOptions
	deployOptions
}

func (o *renewalOptions) add(fs *flags) {
	fs.BoolVar(&o.agreeTOS, "agree-tos", false, "agree to the CA's terms of service; needed once, for a new account")
	fs.StringVar(&o.email, "email", "", "`ADDRESS` contact address of the account; optional")
	fs.DurationVar(&o.minInterval, "min-interval", acme.DefaultInterval, "minimum time between two issuances of the same request")
	fs.DurationVar(&o.issue, "issue-timeout", 10*time.Minute, "time limit for obtaining the certificate")
	fs.BoolVar(&o.ignoreCertbot, "force-standalone", false, "renew even if certbot manages the name")
	fs.group("CA", &o.ca)
	fs.group("Challenge", &o.challenge)
	fs.group("Order", &o.order)
	o.deployOptions.add(fs)
}

// longest is the CA's time, and that of the deploys before and after.
func (o *renewalOptions) longest() time.Duration { return o.issue + 4*o.front.timeout + time.Minute }

// read turns the options into those of a run.
func (o *renewalOptions) read(i *invocation) (r renewal.Options, err error) {
	if err := positive("issue-timeout", o.issue); err != nil {
		return r, err
	}
	r = renewal.Options{
		StateDir: o.state.stateDir, NextKey: o.order.nextKey, FixedKey: o.order.reuseKey.given,
		Challenge: o.challenge.read(i, o.dane.resolver), MinInterval: o.minInterval, IssueTimeout: o.issue,
		LetsEncryptDir: o.state.certbotDir, IgnoreCertbot: o.ignoreCertbot, Log: i.log,
	}
	if r.Deploy, err = o.deployOptions.read(i, deploy.Timer); err != nil {
		return r, err
	}
	if r.Want, err = o.order.read(); err != nil {
		return r, err
	}
	if r.CA, err = o.ca.read(i, o.dryRun); err != nil {
		return r, err
	}
	r.CA.Email, r.CA.AgreeTOS, r.CA.DryRun = o.email, o.agreeTOS, o.dryRun
	r.CA.EAB, err = o.order.externalAccount()
	return r, err
}

// challengeOptions say how the CA's challenges are answered.
type challengeOptions struct {
	method, webroot, listen, dnsProvider string
	noSelfCheck                          bool
}

func (o *challengeOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.method, "challenge", "", "`TYPE` challenge: "+oneOf(renewal.Methods())+" (default: front, if one runs)")
	fs.StringVar(&o.webroot, "webroot", "", "`DIR` directory that another web server serves on port 80 of the names")
	fs.StringVar(&o.listen, "listen", "", "`ADDR` where standalone and tls-alpn listen (default: :80 and :443)")
	fs.StringVar(&o.dnsProvider, "dns-provider", "", "`NAME` DNS provider for --challenge dns: "+strings.Join(acme.DNSProviders(), ", "))
	offer(fs, "challenge", renewal.Methods())
	offer(fs, "dns-provider", acme.DNSProviders())
	fs.BoolVar(&o.noSelfCheck, "no-self-check", false, "skip the reachability check before asking the CA")
}

func (o *challengeOptions) read(i *invocation, resolver string) renewal.Challenge {
	return renewal.Challenge{
		Method: acme.Method(o.method), Webroot: o.webroot, Listen: o.listen, DNSProvider: o.dnsProvider,
		Variables: i.settings, Resolver: resolver, NoSelfCheck: o.noSelfCheck,
	}.Resolved()
}

// orderOptions say what is ordered.
type orderOptions struct {
	keyType               string
	reuseKey              optionalBool
	nextKey               bool
	profile, chain        string
	eabKeyID, eabHMACFile string
	mustCover             bool
}

func (o *orderOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.keyType, "key-type", string(acme.EC256), "`TYPE` type of the key: ec256, ec384, rsa2048 or rsa4096")
	offer(fs, "key-type", acme.KeyTypes)
	fs.VarPF(&o.reuseKey, "reuse-key", "", "keep the key at each renewal (default: if a TLSA record 3 1 1 for it is published)").NoOptDefVal = "true"
	fs.BoolVar(&o.nextKey, "next-key", false, "prepare a key for a later renewal, which uses it once its TLSA record (see tlsa --next) has been published for two TTLs")
	fs.StringVar(&o.profile, "profile", "", "`NAME` profile of the CA; at Let's Encrypt classic, tlsserver or shortlived")
	fs.StringVar(&o.chain, "preferred-chain", "", "`NAME` issuer at which the chain should end, where the CA offers several")
	fs.StringVar(&o.eabKeyID, "eab-kid", "", "`ID` external account, if the CA requires one")
	fs.StringVar(&o.eabHMACFile, "eab-hmac-file", "", "`FILE` HMAC key of the external account")
	fs.BoolVar(&o.mustCover, "must-cover", true, "fail if any name fails validation; false: drop failing names, never the main one")
}

func (o *orderOptions) read() (acme.Request, error) {
	want := acme.Request{
		Key: acme.KeyType(o.keyType), Profile: o.profile, PreferredChain: o.chain, ReuseKey: o.reuseKey.value, Subset: !o.mustCover,
	}
	if !slices.Contains(acme.KeyTypes, want.Key) {
		return want, usageError("--key-type: %s is not one of ec256, ec384, rsa2048, rsa4096", say.Foreign(o.keyType))
	}
	return want, nil
}

func (o *orderOptions) externalAccount() (*acme.ExternalAccount, error) {
	if o.eabKeyID == "" && o.eabHMACFile == "" {
		return nil, nil
	}
	if o.eabKeyID == "" || o.eabHMACFile == "" {
		return nil, usageError("an external account needs both --eab-kid ID and --eab-hmac-file FILE")
	}
	data, err := os.ReadFile(o.eabHMACFile)
	if err != nil {
		return nil, usageError("--eab-hmac-file: %v", err)
	}
	return &acme.ExternalAccount{KeyID: o.eabKeyID, HMAC: strings.TrimSpace(string(data))}, nil
}

// optionalBool is a flag that knows whether it was given.
type optionalBool struct{ given, value bool }

func (b *optionalBool) String() string { return strconv.FormatBool(b.value) }
func (b *optionalBool) Type() string   { return "bool" }

func (b *optionalBool) Set(text string) (err error) {
	b.given = true
	b.value, err = strconv.ParseBool(text)
	return err
}

// renewed is what became of a run of the renewer, for every group of fronts.
func renewed(r renewal.Result, among bool) *deployed {
	d := &deployed{Result: r.Result, renewal: renewalDocOf(r), unattended: true, among: among || len(r.Also) > 0}
	for _, other := range r.Also {
		d.also = append(d.also, ended{renewed(other.Result, true), other.Err})
	}
	return d
}
