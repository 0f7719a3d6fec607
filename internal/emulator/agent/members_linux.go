package agent

import (
	"bytes"
	"os"
	"strconv"
)

// sessionMembers lists the living processes of the session that leader started.
func sessionMembers(leader int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		// Without /proc, at least the leader's own process group.
		return groupOnly(leader)
	}
	var members []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // gone meanwhile
		}
		// "pid (name) state ppid pgrp session …", and a name can be anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 4 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
			continue
		}
		if session, err := strconv.Atoi(string(fields[3])); err == nil && session == leader {
			members = append(members, pid)
		}
	}
	return members
}
