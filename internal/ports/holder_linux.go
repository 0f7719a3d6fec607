package ports

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the program that listens on a TCP port, as far as this user may
// know: "postgres (pid 812)".
func holder(port int) string {
	sockets := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // a family that the system has not
		}
		for _, inode := range listeningInodes(string(text), port) {
			sockets["socket:["+inode+"]"] = true
		}
	}
	if len(sockets) == 0 {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && sockets[to] {
			dir := filepath.Dir(filepath.Dir(link))
			name, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err != nil {
				continue // it has just ended
			}
			return fmt.Sprintf("%s (pid %s)", printable(strings.TrimSpace(string(name))), filepath.Base(dir))
		}
	}
	return ""
}

// printable is the name of a program, which that program chose, without what a
// terminal would obey.
func printable(name string) string {
	quoted := strconv.QuoteToGraphic(name)
	return quoted[1 : len(quoted)-1]
}

// listeningInodes gives the inodes of the sockets that listen on port, from the
// kernel's table (proc_pid_net(5)): fields in columns, of which the second is
// the local address in hexadecimal, the fourth the state and the tenth the
// inode.
func listeningInodes(table string, port int) (inodes []string) {
	const listening = "0A"
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != listening {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}
