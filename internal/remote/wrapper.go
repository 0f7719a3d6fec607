package remote

import (
	"fmt"
	"strings"
)

// form is what a runner runs in.
type form int

const (
	streamed form = iota
	framed
	onTerminal
)

// launchText is the sh that the agent starts in the streamed form: it looks for a
// shell with job control, without which a command cannot be interrupted, and has
// it supervise. dash has none without a terminal, but where dash is sh, there is
// a bash. $1 is the supervisor, the rest its arguments.
//
// From here on standard error is 3, and 2 is nothing: what a shell has to say about
// locales and jobs is not the command's. 3>&3 is for shells that keep such a file
// to themselves.
const launchText = `exec 3>&2 2>/dev/null
set -m
case $- in
*m*) ;;
*) if command -v bash >/dev/null; then exec bash --posix -c "$1" sh "$@"; fi ;;
esac
eval "$1"`

// superviseText runs the runner ($2) in a process group of its own and passes
// signals on to it. The agent signals the process that it started and nobody else,
// and from then on waits for it and closes the pipes when it ends; and once the
// command has ended it gives the client two seconds to take what is left. So this
// lingers, until the session is ended by whoever has read the markers. Its own word
// for the end only counts when the runner was killed before it could say its.
//
// Without job control a command in the background ignores INT, and gets TERM.
//
// USR1 asks for a sign on both outputs, [NONCE]: who hears it knows that the agent
// still reads them. A pipe that is full keeps waiting only who writes it. Probe finds
// this process by the comment in front of the runner.
const superviseText = `r=$2
shift 2
set -m
g= p= i=INT k=0 s=
case $- in
*m*) ;;
*) i=TERM; if command -v setsid >/dev/null; then s=setsid; else k=; fi ;;
esac
pass() { if [ -n "$p" ] && [ -n "$g" ]; then kill -$g -$p || kill -$g $p; fi; }
trap 'g=$i; pass' INT
trap 'g=QUIT; pass' QUIT
trap 'printf "[NONCE]" & printf "[NONCE]" >&3 &' USR1
$s sh -c "# NONCE.$$
$r" sh $$ "$k" "$@" 3>&3 &
p=$!
set +m
pass
while kill -0 $p; do wait $p; e=$?; done
printf '[NONCE %s]' "$e"
printf '[NONCE %s]' "$e" >&3
n=0
while [ $n -lt 10 ]; do sleep 1; n=$((n+1)); done >/dev/null 3>&-`

// superviseEncodedText is the same with both streams in base64, in which a bracket
// is the beginning of a sign, or of a marker that is not in the base64: the end of
// whoever encodes. Whoever does ignores the signals that the command gets. The word
// of the runner's end is encoded, as the runner's is: what comes in front is whole.
const superviseEncodedText = `r=$2
shift 2
if ! command -v base64 >/dev/null; then
	echo 'ssmsession: there is no base64 on the target, which --binary needs' >&3
	exit 127
fi
set -m
g= p= k=0
case $- in *m*) ;; *) k= ;; esac
encode() {
	trap '' HUP INT QUIT TERM
	while x=$(dd bs=49152 count=1 | base64) && [ -n "$x" ]; do printf '%s\n' "$x"; done
}
pass() { if [ -n "$p" ] && [ -n "$g" ]; then kill -$g -$p; fi; }
trap 'g=INT; pass' INT
trap 'g=QUIT; pass' QUIT
trap 'printf "[NONCE]" & printf "[NONCE]" >&3 &' USR1
{
	trap : HUP INT QUIT TERM
	{ { sh -c "# NONCE.$$
$r" sh $$ "$k" "$@" 3>&1 >&4 4>&-
	e=$?
	printf '[NONCE %s]' "$e"
	printf '[NONCE %s]' "$e" >&4
	} | encode >&3 4>&-; } 4>&1 | encode 3>&-
} &
p=$!
set +m
pass
while kill -0 $p; do wait $p; e=$?; done
printf '[NONCE %s]' "$e"
printf '[NONCE %s]' "$e" >&3
n=0
while [ $n -lt 10 ]; do sleep 1; n=$((n+1)); done >/dev/null 3>&-`

// probeText looks for a supervisor, whose process id stands in the arguments of its
// runner, and asks it for its sign. It finds itself by its own first line, too: if
// it does not, it has no way to look.
const probeText = `# NONCE.self
exec 2>/dev/null
LC_ALL=C
export LC_ALL
if [ -r /proc/self/cmdline ]; then all() { cat /proc/[0-9]*/cmdline | tr '\000' '\n'; }
else all() { ps -Aww -o args=; }; fi
k=4
for p in $(all | sed -n 's/.*# NONCE\.\([0-9a-z]*\).*/\1/p'); do
	case $p in
	self) k=3 ;;
	*) kill -USR1 "$p" && exit 0; exit 5 ;;
	esac
done
exit $k`

// frameText makes a binary-safe pipe of a pty: input in frames that a shell can
// read, output in frames of base64 (or hexadecimal digits), with nothing but the
// tools of POSIX. $1 is the runner; $2 is not empty when a script comes first.
//
// A frame of output has to be written in one piece, for there are two writers:
// dd does that for the long ones, and the short ones have no line breaks, after
// which some shells write. A frame of input is taken off the terminal
// whole before it is passed on, so that a command which reads nothing can still
// be interrupted; "a" says that it was passed on.
//
// Whoever reads must not read more than it is told to: read does on a terminal,
// not on a pipe; some heads do, and some dds read less. setsid keeps the command off the terminal.
const frameText = `r=$1 c=$2
shift 2
cannot() { printf '(xNONCE %s)' "$1"; exit 1; }
if [ -n "$KSH_VERSION" ]; then cannot 'the sh of the target is a Korn shell, which reads more than it is asked to'; fi
stty raw -echo 2>/dev/null || cannot 'there is no stty on the target, or it does not work'
exec 3>&1 2>/dev/null
o=o e=e b=49152
if [ "$(printf a | base64)" = YQ== ]; then digits() { base64; }
elif [ -n "$(printf a | od -An -v -tx1)" ]; then digits() { od -An -v -tx1; }; o=O e=E b=24576
else cannot 'there is neither base64 nor od on the target'; fi
if [ "$(printf ab | { head -c 1 >/dev/null; cat; })" = b ]; then take() { head -c "$1"; }
elif [ "$(printf ab | dd bs=2 count=1 iflag=fullblock)" = ab ]; then take() { dd bs="$1" count=1 iflag=fullblock; }
else take() { dd ibs=1 obs=4096 count="$1"; }; fi
input() {
	while IFS=' ' read -r v n; do
		case $v in
		d) take "$n" | { exec 8<&0; { cat <&8; printf '(a)' >&3; } & } ;;
		e) if [ -n "$1" ]; then return; fi; exec >&- ;;
		i) kill -INT -"$n" || kill -INT "$n" ;;
		k) kill -KILL -"$n" || kill -KILL "$n" ;;
		esac
	done
}
frames() {
	trap '' HUP INT QUIT TERM
	while x=$(dd bs=$b count=1 | digits) && [ -n "$x" ]; do
		if [ ${#x} -lt 900 ]; then printf '%s' "($1" $x ')' >&3
		else printf '%s' "($1$x)" | dd ibs=8192 obs=262144 >&3; fi
	done
}
run() {
	if command -v setsid >/dev/null; then setsid sh -c "$r" sh $$ 0 "$@"
	else set -m; sh -c "$r" sh $$ 0 "$@" & wait $!; fi
	x=$?
	printf '[NONCE %s]' $x
	printf '[NONCE %s]' $x >&3
}
printf '(sNONCE)'
if [ -n "$c" ]; then
	f=${TMPDIR:-/tmp}/ssmsession.NONCE
	( umask 077; set -C; : >"$f" ) || cannot "a script cannot be written to $f"
fi
dd bs=65536 | {
if [ -n "$c" ]; then input 1 >"$f"; fi
input | { { { run "$@" 5>&3 3>&1 >&4 4>&- | frames $e 4>&-; } 4>&1 | frames $o; } }
}`

// The runner runs the program in the foreground of its process group and tells
// its status at the end of both outputs, of which standard error is 3. $1 is the process whose end is that of
// the session: when it is killed, the group is. $2 is the group to kill, as kill
// has it.
//
// An agent does not reap what it killed before the outputs have ended: such a
// zombie is as good as gone.
//
// exec in a subshell runs a program and never a builtin of the shell.
const (
	watchText = `w=$1 k=${2:-$$}
shift 2
`
	watcherText = `{
	trap '' HUP INT QUIT TERM
	while kill -0 $w; do
		if read -r x </proc/$w/stat; then :; else x=") $(ps -o stat= -p $w) "; fi
		case $x in *') Z'*) break ;; esac
		sleep 1
	done
	CLEAN
	kill -KILL $k
} </dev/null >/dev/null 2>&1 3>&- 5>&- &
w=$!
`
	// The size comes after the terminal does, within a moment.
	sizedText = `n=0
while [ "$(stty size 2>/dev/null)" = '0 0' ] && [ $n -lt 20 ] && sleep 0.05; do n=$((n+1)); done
`
	watchSelfText = `shift 2
k=0 w=$$
`
)

// runner makes the runner of p.
func (p Program) runner(nonce string, in form) string {
	var b strings.Builder
	clean := ":"
	switch in {
	case onTerminal:
		b.WriteString(watchSelfText)
	case framed:
		b.WriteString("printf '(p%s)' $$ >&5\n" + watchText)
	default:
		b.WriteString(watchText)
	}
	if p.Script != nil {
		b.WriteString("f=${TMPDIR:-/tmp}/ssmsession." + nonce + "\n")
		clean = `rm -f "$f"`
		write := `umask 077; set -C; printf %s "$1" >"$f" ) || exit 126` + "\nshift\n"
		switch in {
		case onTerminal:
			b.WriteString("( " + write)
		case streamed:
			b.WriteString("( exec 2>&3; " + write)
		}
	}
	b.WriteString(strings.Replace(watcherText, "CLEAN", clean, 1))
	p.arguments(&b)
	if in == onTerminal {
		if p.Sized {
			b.WriteString(sizedText)
		}
		b.WriteString("trap : INT QUIT\n(\n")
	} else {
		b.WriteString("trap : HUP INT QUIT TERM\n(\nexec 2>&3 3>&- 5>&-\n")
	}
	for _, v := range p.Env {
		name, val, _ := strings.Cut(v, "=")
		b.WriteString(value(name, val) + "export " + name + "\n")
	}
	if p.Dir != "" {
		dir := p.Dir
		if !strings.HasPrefix(dir, "/") {
			dir = "./" + dir // no option, and nothing for cd to look up and print
		}
		b.WriteString(value("d", dir) + `cd "$d" || exit 126` + "\nunset d\n")
	}
	b.WriteString(`exec "$@"` + "\n)\ns=$?\n")
	// Some shells add 256, or 384, for a death by signal.
	b.WriteString("while [ $s -gt 255 ]; do s=$((s-128)); done\n")
	if in == onTerminal {
		fmt.Fprintf(&b, "exec 2>/dev/null\n%s\nkill -KILL $w\nprintf '[%s %%s]' $s", clean, nonce)
		return b.String()
	}
	fmt.Fprintf(&b, "%s\nkill -KILL $w\nprintf '[%s %%s]' $s\nprintf '[%s %%s]' $s >&3", clean, nonce, nonce)
	return b.String()
}

// arguments puts together the words of the program.
func (p Program) arguments(b *strings.Builder) {
	words := `"$@"`
	if p.odd() {
		words = ""
		for i, a := range p.Argv {
			name := fmt.Sprintf("a%d", i)
			b.WriteString(value(name, a))
			words += ` "$` + name + `"`
		}
	}
	switch {
	case p.Script != nil:
		b.WriteString("set --")
		for _, w := range interpreter(p.Script) {
			b.WriteString(" " + quote(w))
		}
		b.WriteString(` "$f" ` + words + "\n")
	case words != `"$@"`:
		b.WriteString("set --" + words + "\n")
	}
}
