//go:build !linux

package ports

import "net"

// Gone would tell whether the program at the other end of a connection that a
// listener accepted has closed it altogether. It is always false here: only Linux
// tells.
func Gone(net.Conn) bool { return false }
