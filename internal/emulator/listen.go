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
	"net/netip"
	"os"
	"time"
)

// certificateLife is longer than any emulator runs.
const certificateLife = 365 * 24 * time.Hour

// listen opens the listener, on loopback unless more is allowed. A name is resolved
// once, so that what was checked is what is listened on.
func listen(cfg Config) (net.Listener, error) {
	address, err := net.ResolveTCPAddr("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	if !address.IP.IsLoopback() && !cfg.AllowRemote {
		return nil, &ConfigError{fmt.Errorf("listen on %s: it is not a loopback address, and the emulator gives a shell to whoever has its key; --allow-remote permits it", cfg.Listen)}
	}
	listener, err := net.ListenTCP("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	return listener, nil
}

// reachable is the address that this machine reaches a listener at: of all of them,
// loopback.
func reachable(address net.Addr) string {
	at, err := netip.ParseAddrPort(address.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return address.String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()).String()
}

// serveTLS makes an authority and a certificate for this machine's addresses, and
// gives the listener with TLS on top and a private file with the authority's
// certificate. No key is ever on disk.
func serveTLS(listener net.Listener) (secure net.Listener, caFile string, err error) {
	authority, certificate, err := newCertificate()
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
func newCertificate() (authority []byte, certificate tls.Certificate, err error) {
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
		IPAddresses:  ownAddresses(),
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

// ownAddresses are all addresses that this machine may be reached at. A certificate
// for more than is listened on does no harm.
func ownAddresses() []net.IP {
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
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
