module github.com/ssmsession/ssmsession

go 1.26.0

require (
	github.com/aws/aws-sdk-go-v2 v1.48.0 // API calls, their signatures and errors
	github.com/aws/aws-sdk-go-v2/config v1.33.18 // region, profiles, endpoints, as the AWS CLI finds them
	github.com/aws/aws-sdk-go-v2/credentials v1.21.0 // keys, roles, web identities, processes
	github.com/aws/aws-sdk-go-v2/feature/ec2/imds v1.20.9 // credentials of the instance that we run on
	github.com/aws/aws-sdk-go-v2/service/kms v1.60.0 // data keys of encrypted sessions; not newer: decision 11
	github.com/aws/aws-sdk-go-v2/service/ssm v1.79.3 // StartSession, ResumeSession, TerminateSession; not newer: decision 11
	github.com/aws/aws-sdk-go-v2/service/sts v1.52.0 // roles to be assumed, with MFA codes
	github.com/aws/smithy-go v1.28.9 // the SDK's error types and logger
	github.com/charmbracelet/x/vt v0.1.0 // tests: what a terminal shows
	github.com/creack/pty v1.1.24 // the emulator's pty; tests
	github.com/google/shlex v0.0.0-20191202100458-e7afc7fbc510 // the emulator's splitting of commands, as AWS's agent has it
	github.com/google/uuid v1.6.0 // ids of messages
	github.com/gorilla/websocket v1.5.3 // the data channel's socket
	github.com/rogpeppe/go-internal v1.16.0 // tests: scripts of the command line
	github.com/spf13/cobra v1.10.2 // commands, help, completion
	github.com/spf13/pflag v1.0.9 // flags spelled as the AWS CLI's
	github.com/xtaci/smux v1.5.58 // many connections over one tunnel, as agents have it
	golang.org/x/net v0.62.0 // NO_PROXY, SOCKS5
	golang.org/x/sys v0.50.0 // process groups, poll, Windows consoles
	golang.org/x/term v0.48.0 // raw mode, the size of a terminal
	golang.org/x/time v0.16.0 // the pace of sending
)

require (
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.5.12 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.8.12 // indirect
	github.com/aws/aws-sdk-go-v2/internal/v4a v1.5.12 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding v1.13.25 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/presigned-url v1.14.12 // indirect
	github.com/aws/aws-sdk-go-v2/service/signin v1.13.1 // indirect
	github.com/aws/aws-sdk-go-v2/service/sso v1.39.5 // indirect
	github.com/aws/aws-sdk-go-v2/service/ssooidc v1.44.5 // indirect
	github.com/charmbracelet/colorprofile v0.4.2 // indirect
	github.com/charmbracelet/ultraviolet v0.0.0-20260303162955-0b88c25f3fff // indirect
	github.com/charmbracelet/x/ansi v0.11.7 // indirect
	github.com/charmbracelet/x/exp/ordered v0.1.0 // indirect
	github.com/charmbracelet/x/term v0.2.2 // indirect
	github.com/charmbracelet/x/termios v0.1.1 // indirect
	github.com/charmbracelet/x/windows v0.2.2 // indirect
	github.com/clipperhouse/displaywidth v0.11.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/lucasb-eyer/go-colorful v1.4.0 // indirect
	github.com/mattn/go-runewidth v0.0.23 // indirect
	github.com/muesli/cancelreader v0.2.2 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/xo/terminfo v0.0.0-20220910002029-abceb7e1c41e // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
)
