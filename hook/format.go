package hook

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// decodePEM returns all blocks of data. encoding/pem skips blocks that it cannot
// decode, where OpenSSL stops with an error; so a block that begins and cannot be
// decoded is an error here.
func decodePEM(data []byte) ([]*pem.Block, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	begun := bytes.Count(data, []byte("-----BEGIN "))
	var blocks []*pem.Block
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	switch {
	case len(data) == 0:
		return nil, errors.New("the file is empty")
	case begun == 0:
		return nil, errors.New("there is no PEM block in it")
	case len(blocks) != begun:
		return nil, fmt.Errorf("%d of its %d PEM blocks cannot be decoded", begun-len(blocks), begun)
	}
	return blocks, nil
}

// unreadable is the Rejection of a file that decodePEM returned err for. It names
// the format of the file and the command that converts it, if it knows one.
func (b *Bundle) unreadable(file string, data []byte, err error, remedy string) *Rejection {
	if format, convert := formatOf(data, file); format != "" {
		return b.reject(file, "convert it: "+convert, format)
	}
	return b.reject(file, "the file is damaged or not PEM: "+remedy, err.Error())
}

// formatOf recognizes what people take for PEM, or convert to it wrongly, "" if
// it is nothing of the kind.
func formatOf(data []byte, file string) (format, convert string) {
	line := func(command string) string { return strings.ReplaceAll(command, "FILE", file) }
	switch {
	case bytes.Contains(data, []byte("----------BEGIN ")): // cat of files that do not end in a line break
		return "the line break between two PEM blocks is missing", line(`sed -i 's/----------BEGIN/-----\n-----BEGIN/' FILE`)
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return "", ""
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")), bytes.Contains(data, []byte("-\x00-\x00-\x00B")):
		return "the file is UTF-16 text, not PEM", line("iconv -f UTF-16 -t UTF-8 FILE > FILE.utf8")
	case bytes.HasPrefix(data, []byte("\xfe\xed\xfe\xed")):
		return "the file is a Java keystore, not PEM", line("keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 -deststoretype PKCS12 && openssl pkcs12 -in FILE.p12 -nodes -out FILE.pem")
	case isPKCS12(data):
		return "the file is PKCS#12 (.pfx or .p12), not PEM", line("openssl pkcs12 -in FILE -nodes -out FILE.pem")
	case isPKCS7(data):
		return "the file is PKCS#7 (.p7b) in DER, not PEM", line("openssl pkcs7 -inform DER -print_certs -in FILE -out FILE.pem")
	case isCertificate(data):
		return "the file is a certificate in DER, not PEM", line("openssl x509 -inform DER -in FILE -out FILE.pem")
	case isKeyDER(data):
		return "the file is a private key in DER, not PEM", line("openssl pkey -inform DER -in FILE -out FILE.pem")
	}
	return "", ""
}

// convertBlock is the remedy for a PEM block that is not a certificate.
func convertBlock(kind, file string) string {
	switch kind {
	case "PKCS7", "CMS":
		return "convert it: openssl pkcs7 -print_certs -in " + file + " -out " + file + ".pem"
	case "TRUSTED CERTIFICATE", "X509 CERTIFICATE":
		return "convert it: openssl x509 -in " + file + " -out " + file + ".pem"
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return "use the certificate that the CA returned for this request"
	}
	return useFullchain
}

// isPKCS12 and isPKCS7 go by the first fields (RFC 7292, section 4; RFC 5652,
// section 3).
func isPKCS12(der []byte) bool {
	var pfx struct {
		Version int
		Safe    asn1.RawValue
		Mac     asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(der, &pfx)
	return err == nil && pfx.Version == 3 && pfx.Safe.Tag == asn1.TagSequence
}

func isPKCS7(der []byte) bool {
	var info struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(der, &info)
	return err == nil && info.Type.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2})
}

func isCertificate(der []byte) bool {
	_, err := x509.ParseCertificate(der)
	return err == nil
}

func isKeyDER(der []byte) bool {
	if len(der) > maxKey {
		return false
	}
	_, pkcs8 := x509.ParsePKCS8PrivateKey(der)
	_, pkcs1 := x509.ParsePKCS1PrivateKey(der)
	_, sec1 := x509.ParseECPrivateKey(der)
	return pkcs8 == nil || pkcs1 == nil || sec1 == nil
}
