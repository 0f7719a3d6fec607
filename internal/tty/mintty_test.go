package tty

import "testing"

func TestMsysPtyNames(t *testing.T) {
	for name, want := range map[string]bool{
		`\msys-1888ae32e00d56aa-pty0-to-master`:                  true,
		`\msys-1888ae32e00d56aa-pty0-from-master`:                true,
		`\msys-dd50a72ab4668b33-pty12-from-master`:               true,
		`\cygwin-e022582115c10879-pty4-from-master`:              true,
		`\cygwin-E022582115C10879-pty4-to-master`:                true,
		`\msys-dd50a72ab4668b33-pty0-from-master-nat`:            true,
		`\cygwin-e022582115c10879-pty0-to-master-cyg`:            true,
		`\Device\NamedPipe\msys-1888ae32e00d56aa-pty0-to-master`: true,
		``:                                        false,
		`\`:                                       false,
		`msys-1888ae32e00d56aa-pty0-to-master`:    false,
		`\msys-`:                                  false,
		`\msys-1888ae32e00d56aa`:                  false,
		`\msys-1888ae32e00d56aa-pty0`:             false,
		`\msys-1888ae32e00d56aa-pty0-to`:          false,
		`\msys-1888ae32e00d56aa-pty0-to-slave`:    false,
		`\msys-1888ae32e00d56aa-pty0-by-master`:   false,
		`\msys-1888ae32e00d56aa-pty-to-master`:    false,
		`\msys-1888ae32e00d56aa-ptyx-to-master`:   false,
		`\msys-1888ae32e00d56aa-0-to-master`:      false,
		`\msys--pty0-to-master`:                   false,
		`\msys-hello-pty0-to-master`:              false,
		`\mingw-1888ae32e00d56aa-pty0-to-master`:  false,
		`\cygwin-e022582115c10879-pipe-0x1`:       false,
		`\msys-1888ae32e00d56aa-pty0-to-masterx`:  false,
		`\x\msys-1888ae32e00d56aa-pty0-to-master`: false,
		`\Win32Pipes.00000a1c.00000002`:           false,
	} {
		if got := isMsysPty(name); got != want {
			t.Errorf("the pipe %s passes for a Cygwin or MSYS pty: %t, want %t", name, got, want)
		}
	}
}

func TestOtherFilesAreNoMintty(t *testing.T) {
	for name, f := range notTerminals(t) {
		if Mintty(f) {
			t.Errorf("%s passes for a Cygwin or MSYS pty", name)
		}
	}
}
