package rig

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// StepCA is a step-ca with one ACME provisioner. Unlike Pebble it validates while a
// client waits for the response, leaves a challenge that failed pending with the
// reason (RFC 8555, section 8.2), issues for 24 hours, and offers neither renewal
// information nor profiles.
type StepCA struct {
	DirectoryURL string
	RootFile     string // PEM: what its own TLS certificate and the issued ones end in

	dir     string
	process *process
}

// StartStepCA starts a step-ca that keeps its files in dir and asks the DNS server at
// dns, host:port. It looks for responses on the ports that a public CA looks on.
// Whoever starts one must Close it.
func StartStepCA(ctx context.Context, dir, dns string) (*StepCA, error) {
	program, err := Tool("step-ca")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	ca := &StepCA{dir: dir, RootFile: filepath.Join(dir, "root.pem"), DirectoryURL: "https://" + local(ports[0]) + "/acme/acme/directory"}
	roots, err := ca.mint()
	if err != nil {
		return nil, fmt.Errorf("starting step-ca: %w", err)
	}
	config, err := json.Marshal(map[string]any{
		"root": ca.RootFile, "crt": ca.file("intermediate.pem"), "key": ca.file("intermediate-key.pem"),
		"address": local(ports[0]), "dnsNames": []string{"127.0.0.1"}, "logger": map[string]string{"format": "text"},
		"db":        map[string]string{"type": "bbolt", "dataSource": ca.file("db")},
		"authority": map[string]any{"provisioners": []any{map[string]string{"type": "ACME", "name": "acme"}}},
	})
	if err == nil {
		err = os.WriteFile(ca.file("ca.json"), config, 0o600)
	}
	if err == nil {
		ca.process, err = startProcess(ca.file("step-ca.log"), []string{"HOME=" + dir, "STEPPATH=" + dir}, program, "--resolver", dns, ca.file("ca.json"))
	}
	if err != nil {
		return nil, fmt.Errorf("starting step-ca: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = ca.process.pollAlive(ctx, func() error {
		response, err := client.Get(ca.DirectoryURL)
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	if err != nil {
		ca.Close()
		return nil, fmt.Errorf("starting step-ca: %w", err)
	}
	return ca, nil
}

// Close ends it.
func (ca *StepCA) Close() { ca.process.stop() }

func (ca *StepCA) file(name string) string { return filepath.Join(ca.dir, name) }

// mint makes a root and an intermediate whose key step-ca signs with.
func (ca *StepCA) mint() (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	var parent *x509.Certificate
	var signer crypto.Signer
	for n, name := range []string{"root", "intermediate"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{CommonName: "step-ca " + name}, IsCA: true,
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			return nil, err
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
		if signer = key; n == 0 {
			roots.AddCert(parent)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, "-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(ca.file(name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
				return nil, err
			}
		}
	}
	return roots, nil
}
