package tty

// ground follows what a program writes to a terminal and tells whether
// something of ours may come in between: whether the last character and the last
// control sequence are complete.
//
// Terminals differ, and which one is out there is not known. So what may begin a
// sequence begins one here, and what only may end one does not: to take the
// output for incomplete costs a status line, to take it for complete costs the
// picture. The forms are those of ECMA-48, the ends those that xterm and the
// VT500 series have:
//
//   - ESC begins anew wherever it comes; ESC \ is thereby the end of a string.
//   - CAN and SUB end everything.
//   - BEL ends an operating system command and no other string.
//   - The other control characters are obeyed within a sequence and change
//     nothing about it; within a string they are part of it.
//   - The C1 controls count as one byte, which some terminals obey, and as the
//     UTF-8 of U+0080 to U+009F, which others do; but neither form of ST ends a
//     string.
//   - ESC k begins a string, as screen and tmux have it.
//
// The zero ground is a terminal's at the start. It is pure.
type ground struct {
	state   vtState
	shifted bool // SS2 or SS3 came: the next character belongs to it
	lead    byte // the first byte of the UTF-8 character that is under way
	missing int  // how many of its bytes have still to come
}

type vtState byte

const (
	vtGround       vtState = iota
	vtEscape               // after ESC
	vtIntermediate         // after ESC and bytes of 0x20 to 0x2f
	vtControl              // within a control sequence, CSI
	vtString               // within a string that ends with ST: DCS, SOS, PM, APC, a title of screen's
	vtCommand              // within an operating system command, OSC
)

// The control characters that matter.
const (
	ctlBEL = 0x07
	ctlCAN = 0x18
	ctlSUB = 0x1a
	ctlESC = 0x1b
	ctlDEL = 0x7f
)

// complete reports whether the output so far ends between complete things.
func (g *ground) complete() bool {
	return g.state == vtGround && !g.shifted && g.missing == 0
}

// feed takes what the program writes next. The chunks make no difference.
func (g *ground) feed(p []byte) {
	for _, b := range p {
		if b >= ' ' && b < ctlDEL && g.complete() {
			continue // most of all output, and it changes nothing
		}
		g.next(b)
	}
}

func (g *ground) next(b byte) {
	switch {
	case b == ctlESC:
		g.state, g.missing = vtEscape, 0
	case b == ctlCAN || b == ctlSUB:
		g.state, g.missing = vtGround, 0
	case g.state == vtGround:
		g.text(b)
	case g.state == vtCommand && b == ctlBEL:
		g.state = vtGround
	case g.state == vtEscape:
		g.escape(b)
	case g.state == vtIntermediate && b >= '0' && b < ctlDEL,
		g.state == vtControl && b >= '@' && b < ctlDEL:
		g.state = vtGround
	}
}

// escape takes the byte after ESC, or after control characters that follow it.
func (g *ground) escape(b byte) {
	switch {
	case b >= ' ' && b < '0':
		g.state = vtIntermediate
	case b == 'k':
		g.state = vtString
	case b >= '@' && b <= '_':
		g.c1(b + 0x40)
	case b >= '0' && b < ctlDEL:
		g.state = vtGround
	}
}

// c1 takes a control of the set C1, of either length.
func (g *ground) c1(b byte) {
	switch b {
	case 0x8e, 0x8f: // SS2, SS3
		g.state, g.shifted = vtGround, true
	case 0x9b: // CSI
		g.state = vtControl
	case 0x9d: // OSC
		g.state = vtCommand
	case 0x90, 0x98, 0x9e, 0x9f: // DCS, SOS, PM, APC
		g.state = vtString
	default:
		g.state = vtGround
	}
}

// text takes a byte that is neither of a sequence nor begins one with ESC.
func (g *ground) text(b byte) {
	continues := b&0xc0 == 0x80
	if g.missing > 0 && continues {
		g.missing--
		switch {
		case g.missing > 0:
		case g.lead == 0xc2 && b < 0xa0: // U+0080 to U+009F
			g.c1(b)
		default:
			g.shifted = false
		}
		return
	}
	// What was under way ends here, for want of its bytes.
	g.lead, g.missing = b, 0
	switch {
	case b < ' ' || b == ctlDEL:
	case continues && b < 0xa0:
		g.c1(b)
	case b >= 0xc2 && b < 0xe0:
		g.missing = 1
	case b >= 0xe0 && b < 0xf0:
		g.missing = 2
	case b >= 0xf0 && b < 0xf5:
		g.missing = 3
	default: // ASCII, and what is no UTF-8
		g.shifted = false
	}
}
