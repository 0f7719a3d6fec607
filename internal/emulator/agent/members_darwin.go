package agent

import "golang.org/x/sys/unix"

// zombie is the state of a process that has died and not been waited for.
const zombie = 5

// sessionMembers lists the living processes of the session that leader started.
func sessionMembers(leader int) []int {
	processes, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return groupOnly(leader)
	}
	var members []int
	for i := range processes {
		pid := int(processes[i].Proc.P_pid)
		if processes[i].Proc.P_stat == zombie {
			continue
		}
		if session, err := unix.Getsid(pid); err == nil && session == leader {
			members = append(members, pid)
		}
	}
	return members
}
