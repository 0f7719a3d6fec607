package ports

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Gone tells whether the program at the other end of a connection that a listener
// accepted has closed it altogether, which an end-of-file alone does not say: it may
// still read. It is false where the system does not know: for a connection of TCP
// that has not come over loopback, and on other systems than Linux.
func Gone(conn net.Conn) bool {
	switch c := conn.(type) {
	case *net.UnixConn:
		return hungUp(c)
	case *net.TCPConn:
		local, ok := c.LocalAddr().(*net.TCPAddr)
		remote, also := c.RemoteAddr().(*net.TCPAddr)
		return ok && also && orphaned(remote.AddrPort(), local.AddrPort())
	}
	return false
}

// hungUp tells whether the other end of a unix socket was closed, and not its sending
// side alone (unix(7), poll(2)).
func hungUp(conn *net.UnixConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
	})
	return err == nil && gone
}

// diagRequest asks for one socket of TCP (sock_diag(7)): struct nlmsghdr and struct
// inet_diag_req_v2.
type diagRequest struct {
	Len         uint32
	Type, Flags uint16
	Seq, Pid    uint32

	Family, Protocol, Ext, _ uint8
	States                   uint32
	FromPort, ToPort         [2]byte
	From, To                 [16]byte
	Interface                uint32
	Cookie                   [2]uint32
}

// Where struct inet_diag_msg, after its header, has what is looked for.
const (
	diagState = 17
	diagInode = 84
	diagLen   = 88
)

// The states of a socket of TCP that has sent its end (tcp_states.h).
const (
	finWait1 = 4
	finWait2 = 5
	timeWait = 6
)

// orphaned tells whether the socket of this machine at the first address, connected
// to the second, has sent its end and belongs to no file: no program has it open.
func orphaned(from, to netip.AddrPort) bool {
	if !from.Addr().IsLoopback() || !to.Addr().IsLoopback() {
		return false // it may be another machine's, or another network namespace's
	}
	ask := diagRequest{
		Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST,
		Family: unix.AF_INET6, Protocol: unix.IPPROTO_TCP, States: ^uint32(0),
		Cookie: [2]uint32{^uint32(0), ^uint32(0)}, // not known
	}
	ask.Len = uint32(binary.Size(ask))
	binary.BigEndian.PutUint16(ask.FromPort[:], from.Port())
	binary.BigEndian.PutUint16(ask.ToPort[:], to.Port())
	if from.Addr().Unmap().Is4() {
		ask.Family = unix.AF_INET
	}
	copy(ask.From[:], from.Addr().Unmap().AsSlice())
	copy(ask.To[:], to.Addr().Unmap().AsSlice())
	answer := diagnose(ask)
	if len(answer) < diagLen || binary.NativeEndian.Uint16(answer[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return false // there is none, or it cannot be asked for
	}
	state, inode := answer[diagState], binary.NativeEndian.Uint32(answer[diagInode:])
	return inode == 0 && (state == finWait1 || state == finWait2 || state == timeWait)
}

// diagnose gives the kernel's answer, nil for none.
func diagnose(ask diagRequest) []byte {
	request, err := binary.Append(nil, binary.NativeEndian, ask)
	if err != nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written that could be lost
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil
	}
	answer := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT) // it was answered while it was sent
	if err != nil {
		return nil
	}
	return answer[:n]
}
