package emulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// certificateLife is longer than any emulator runs.
const certificateLife = 365 * 24 * time.Hour

// serveTLS makes an authority and a certificate for the addresses of a listener,
// and gives the listener with TLS on top and a private file with the authority's
// certificate. No key is ever on disk.
func serveTLS(listener net.Listener) (secure net.Listener, caFile string, err error) {
	authority, certificate, err := newCertificate(listener.Addr())
	if err != nil {
		return listener, "", fmt.Errorf("make a certificate: %w", err)
	}
	caFile, err = writeTemp(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority}))
	if err != nil {
		return listener, "", fmt.Errorf("write the authority's certificate: %w", err)
	}
	return tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"}, // a websocket needs it
	}), caFile, nil
}

// newCertificate makes an authority for this one use, and a certificate signed by
// it whose key it forgets.
func newCertificate(address net.Addr) (authority []byte, certificate tls.Certificate, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, certificate, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, certificate, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "ssmsession emulator authority"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "ssmsession emulator"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  certificateAddresses(address),
	}
	authority, err = x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, certificate, err
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, certificate, err
	}
	return authority, tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}, nil
}

// certificateAddresses are loopback and what the listener is reached at.
func certificateAddresses(address net.Addr) []net.IP {
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	own, ok := address.(*net.TCPAddr)
	if !ok || !own.IP.IsUnspecified() {
		if ok {
			ips = append(ips, own.IP)
		}
		return ips
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ips // loopback will have to do
	}
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok {
			ips = append(ips, network.IP)
		}
	}
	return ips
}

// writeTemp writes a temporary file that only this user can read.
func writeTemp(data []byte) (name string, err error) {
	file, err := os.CreateTemp("", "ssmsession-emulator-*.pem") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}
