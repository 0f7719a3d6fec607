//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// The parts that this test binary plays besides the program itself. Each runs
// another program with its own stdin, stdout and stderr and sees to it that it
// ends, even when the test that wants it does not live to do so.
func roles() map[string]func() {
	return map[string]func(){"leader": leader, "keeper": keeper, "timer": timer, "witness": witness, "panicking": panicking}
}

// leader leads a terminal's session (screen). It tells the program's process id
// and then its exit status on descriptor 3, and stays, so that the terminal
// does, until descriptor 4 is closed.
func leader() {
	report, left := os.NewFile(3, "report"), closing(4)
	syscall.CloseOnExec(3)
	p := begin(false)
	fmt.Fprintf(report, "pid %d\n", p.Process.Pid)
	fmt.Fprintf(report, "exit %d\n", end(p, left, syscall.SIGHUP))
	<-left
}

// keeper keeps a program until descriptor 3 is closed, then stops it as a user
// would, and ends with its exit status.
func keeper() { os.Exit(end(begin(false), closing(3), syscall.SIGTERM)) }

// timer gives a program, and those of its process group, as long as a test has
// patience, and ends with its exit status.
func timer() {
	late := make(chan struct{})
	time.AfterFunc(patience, func() {
		fmt.Fprintf(os.Stderr, "it has not ended in %v\n", patience)
		close(late)
	})
	os.Exit(end(begin(true), late, syscall.SIGTERM))
}

// timed is the command line that runs another in time.
func timed(argv []string) []string { return append([]string{"timer"}, argv...) }

// closing gives a channel that is closed when a descriptor's other end is.
func closing(fd uintptr) <-chan struct{} {
	syscall.CloseOnExec(int(fd))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.NewFile(fd, "pipe")) // any end will do
	}()
	return closed
}

// begin starts the program of the command line.
func begin(ownGroup bool) *exec.Cmd {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: ownGroup}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(127)
	}
	return cmd
}

// end waits for a program's end and gives its exit status, as a shell does: 128
// plus its number for a death by signal. When stop is closed it gets a signal, and after a while another.
func end(cmd *exec.Cmd, stop <-chan struct{}, sig syscall.Signal) int {
	pid := cmd.Process.Pid
	if cmd.SysProcAttr.Setpgid {
		pid = -pid
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
			return
		case <-stop:
		}
		_ = syscall.Kill(pid, sig) // or it has ended
		select {
		case <-ended:
		case <-time.After(patience / 4):
			_ = syscall.Kill(pid, syscall.SIGKILL) // or it has ended
		}
	}()
	_ = cmd.Wait() // ProcessState tells it, too
	close(ended)
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}
