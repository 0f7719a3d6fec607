package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FaultKind names what goes wrong. FaultForms says what each does.
type FaultKind string

// The faults: of frames between the legs, of sockets, of the API, of encryption, of
// the handshake.
const (
	FaultDrop        FaultKind = "drop"
	FaultDuplicate   FaultKind = "duplicate"
	FaultReorder     FaultKind = "reorder"
	FaultCorrupt     FaultKind = "corrupt"
	FaultDelay       FaultKind = "delay"
	FaultLoseAcks    FaultKind = "lose-acks"
	FaultSilentAgent FaultKind = "silent-agent"

	FaultCut      FaultKind = "cut"
	FaultHalfOpen FaultKind = "half-open"
	FaultPause    FaultKind = "pause"
	FaultSlow     FaultKind = "slow"
	FaultRefuse   FaultKind = "refuse"

	FaultResume            FaultKind = "resume"
	FaultExpireTokens      FaultKind = "expire-tokens"
	FaultExpireCredentials FaultKind = "expire-credentials"
	FaultThrottle          FaultKind = "throttle"

	FaultGenerateDataKey FaultKind = "generate-data-key"
	FaultDecrypt         FaultKind = "decrypt"
	FaultBadChallenge    FaultKind = "bad-challenge"
	FaultBadOutput       FaultKind = "bad-output"
	FaultLateEncryption  FaultKind = "late-encryption"

	FaultLateOpen FaultKind = "late-open"
)

// Direction is the way of a frame, or of the bytes of a socket. Empty is both.
type Direction string

// The directions.
const (
	ToClient Direction = "to-client"
	ToAgent  Direction = "to-agent"
)

// Ending is how the gateway cuts a socket. Empty is the end of TCP alone, which
// clients see as 1006.
type Ending string

// The endings.
const (
	EndClose Ending = "close" // a websocket close frame with code 1000 before
	EndReset Ending = "reset" // TCP is reset
)

// Fault is one thing that goes wrong on order. ParseFault makes one; which fields
// count depends on the kind. Zero is what was not said.
type Fault struct {
	Kind     FaultKind
	Percent  float64 // of the frames, above 0 and up to 100
	Toward   Direction
	Delay    time.Duration // of a frame, or of the agent; or the life of a token
	After    time.Duration // that it begins after
	Messages int           // that it begins after, relayed on a socket either way
	For      time.Duration // that it goes on for
	Times    int           // that it happens, for each session
	Rate     int           // bytes or calls a second
	Code     string        // of the API's error
	Status   int           // of HTTP
	Ending   Ending
}

// argument is a set of fields of a Fault.
type argument uint

// The arguments, a bit each.
const (
	argPercent argument = 1 << iota
	argToward
	argDelay
	argAfter
	argMessages
	argFor
	argTimes
	argRate
	argCode
	argStatus
	argEnding

	argWindow = argAfter | argFor
)

// faultForm is how a kind of fault is written: what it takes, what of that it
// needs, and of what it needs exactly one.
type faultForm struct {
	kind                FaultKind
	takes, needs, oneOf argument
	form, meaning       string
}

// faultForms gives the forms of all faults, in the order of the documentation.
func faultForms() []faultForm {
	const frames = argPercent | argToward | argWindow
	return []faultForm{
		{FaultDrop, frames, argPercent, 0, "drop=P%[,DIR][,WINDOW]", "frames are lost"},
		{FaultDuplicate, frames, argPercent, 0, "duplicate=P%[,DIR][,WINDOW]", "frames come twice"},
		{FaultReorder, frames, argPercent, 0, "reorder=P%[,DIR][,WINDOW]", "frames come after the one that follows them, or 100 ms late if none does"},
		{FaultCorrupt, frames, argPercent, 0, "corrupt=P%[,DIR][,WINDOW]", "one bit of the payload is wrong"},
		{FaultDelay, frames | argDelay, argDelay, 0, "delay=T[,P%][,DIR][,WINDOW]", "frames come T later; without P all of them, in order"},
		{FaultLoseAcks, frames, 0, 0, "lose-acks[=P%][,DIR][,WINDOW]", "acknowledgements are lost; DIR is their way"},
		{FaultSilentAgent, argWindow, 0, 0, "silent-agent[=WINDOW]", "no frame passes either way, but pings are answered"},
		{FaultCut, argAfter | argMessages | argEnding | argTimes, 0, argAfter | argMessages, "cut=after:T|N[,close|reset][,TIMES]", "the socket ends T after it opened or after N frames (close: code 1000)"},
		{FaultHalfOpen, argAfter | argMessages | argTimes, 0, 0, "half-open[=after:T|N][,TIMES]", "the gateway reads and writes no more, but the connection stays"},
		{FaultPause, argWindow | argToward | argTimes, argFor, 0, "pause=for:T[,after:T][,DIR][,TIMES]", "pause_publication, and start_publication T later"},
		{FaultSlow, argRate | argToward | argWindow, argRate, 0, "slow=N[,DIR][,WINDOW]", "sockets carry N bytes a second"},
		{FaultRefuse, argStatus | argTimes | argWindow, 0, 0, "refuse[=status:N][,TIMES][,WINDOW]", "dials get this status, or a connection that closes"},
		{FaultResume, argCode | argTimes | argWindow, argCode, 0, "resume=CODE[,TIMES][,WINDOW]", "ResumeSession fails with this error"},
		{FaultExpireTokens, argDelay | argTimes | argWindow, 0, 0, "expire-tokens[=T][,TIMES][,WINDOW]", "tokens are good for T only; without T they are not at all"},
		{FaultExpireCredentials, argWindow, 0, 0, "expire-credentials[=WINDOW]", "keys had before get ExpiredTokenException"},
		{FaultThrottle, argRate | argTimes | argWindow, 0, argRate | argTimes, "throttle=N|times:N[,WINDOW]", "calls beyond N a second, or the first N, get ThrottlingException"},
		{FaultGenerateDataKey, argCode | argTimes | argWindow, argCode, 0, "generate-data-key=CODE[,TIMES][,WINDOW]", "GenerateDataKey of KMS fails with this error"},
		{FaultDecrypt, argCode | argTimes | argWindow, argCode, 0, "decrypt=CODE[,TIMES][,WINDOW]", "Decrypt of KMS fails with this error, the agent's too"},
		{FaultBadChallenge, 0, 0, 0, "bad-challenge", "the agent's encryption challenge does not decrypt"},
		{FaultBadOutput, argMessages, 0, 0, "bad-output[=after:N]", "one message of encrypted output does not decrypt, after N that do"},
		{FaultLateEncryption, argMessages, argMessages, 0, "late-encryption=after:N", "the agent asks for encryption after N messages of output"},
		{FaultLateOpen, argDelay, argDelay, 0, "late-open=T", "the agent throws input away that comes less than T after the handshake"},
	}
}

// FaultForms gives, for each fault, how it is written and what it does. In the
// forms DIR is to-client or to-agent; WINDOW is after:T and for:T; TIMES is times:N
// or once.
func FaultForms() [][2]string {
	var forms [][2]string
	for _, f := range faultForms() {
		forms = append(forms, [2]string{f.form, f.meaning})
	}
	return forms
}

// formOf finds the form of a kind.
func formOf(kind FaultKind) (faultForm, error) {
	var kinds []string
	for _, form := range faultForms() {
		if form.kind == kind {
			return form, nil
		}
		kinds = append(kinds, string(form.kind))
	}
	return faultForm{}, fmt.Errorf("there is no fault %q; there are %s", kind, strings.Join(kinds, ", "))
}

// codesOf are the errors that a fault of some kind may name.
func codesOf(kind FaultKind) []string {
	switch kind {
	case FaultResume:
		return resumeCodes()
	case FaultGenerateDataKey, FaultDecrypt:
		return kmsCodes()
	}
	return nil
}

// resumeCodes are the errors that ResumeSession can be made to fail with.
func resumeCodes() []string {
	return []string{
		"AccessDeniedException", "DoesNotExistException", "ExpiredTokenException", "InternalServerError",
		"ServiceUnavailable", "ThrottlingException", "UnrecognizedClientException", "ValidationException",
	}
}

// ParseFault reads a fault: NAME, or NAME=ARGUMENT,ARGUMENT… in any order. The error
// is a *ConfigError that says what is taken.
func ParseFault(spec string) (Fault, error) {
	name, rest, more := strings.Cut(spec, "=")
	f := Fault{Kind: FaultKind(name)}
	form, err := formOf(f.Kind)
	if err != nil {
		return Fault{}, &ConfigError{err}
	}
	if more {
		for text := range strings.SplitSeq(rest, ",") {
			if err := f.read(form, text); err != nil {
				return Fault{}, form.error(spec, err)
			}
		}
	}
	if err := f.check(); err != nil {
		return Fault{}, err
	}
	return f, nil
}

// ParseFaults reads faults, until one is wrong.
func ParseFaults(specs ...string) ([]Fault, error) {
	var faults []Fault
	for _, spec := range specs {
		f, err := ParseFault(spec)
		if err != nil {
			return nil, err
		}
		faults = append(faults, f)
	}
	return faults, nil
}

// error says what is wrong with a fault, and what is right.
func (form faultForm) error(spec string, err error) error {
	return &ConfigError{fmt.Errorf("fault %s: %w; the form is %s", spec, err, form.form)}
}

// read reads one argument into its field.
func (f *Fault) read(form faultForm, text string) error {
	arg, err := f.readValue(text)
	switch {
	case err != nil:
		return err
	case form.takes&arg == 0:
		return fmt.Errorf("it takes no %s", text)
	}
	return nil
}

// setOnce sets a field that was not set yet.
func setOnce[T comparable](field *T, value T) error {
	var zero T
	switch {
	case value == zero:
		return errors.New("nothing may be zero")
	case *field != zero:
		return errors.New("something is said twice")
	}
	*field = value
	return nil
}

// readValue finds out by its form which argument a text is.
func (f *Fault) readValue(text string) (argument, error) {
	key, value, keyed := strings.Cut(text, ":")
	if keyed {
		return f.readKeyed(key, value)
	}
	number, isPercent := strings.CutSuffix(text, "%")
	switch {
	case text == string(ToClient) || text == string(ToAgent):
		return argToward, setOnce(&f.Toward, Direction(text))
	case text == string(EndClose) || text == string(EndReset):
		return argEnding, setOnce(&f.Ending, Ending(text))
	case text == "once":
		return argTimes, setOnce(&f.Times, 1)
	case slices.Contains(codesOf(f.Kind), text):
		return argCode, setOnce(&f.Code, text)
	case isPercent:
		percent, err := parsePercent(number)
		return argPercent, cmp.Or(err, setOnce(&f.Percent, percent))
	case isDigits(text):
		rate, err := parseCount(text)
		return argRate, cmp.Or(err, setOnce(&f.Rate, rate))
	}
	duration, err := parseDuration(text)
	if codes := codesOf(f.Kind); err != nil && codes != nil {
		return 0, fmt.Errorf("%q is no error of it; there are %s", text, strings.Join(codes, ", "))
	}
	return argDelay, cmp.Or(err, setOnce(&f.Delay, duration))
}

// readKeyed reads an argument of the form key:value.
func (f *Fault) readKeyed(key, value string) (argument, error) {
	switch {
	case key == "times":
		n, err := parseCount(value)
		return argTimes, cmp.Or(err, setOnce(&f.Times, n))
	case key == "status":
		n, err := parseCount(value)
		return argStatus, cmp.Or(err, setOnce(&f.Status, n))
	case key == "after" && isDigits(value):
		n, err := parseCount(value)
		return argMessages, cmp.Or(err, setOnce(&f.Messages, n))
	case key == "after":
		d, err := parseDuration(value)
		return argAfter, cmp.Or(err, setOnce(&f.After, d))
	case key == "for":
		d, err := parseDuration(value)
		return argFor, cmp.Or(err, setOnce(&f.For, d))
	}
	return 0, fmt.Errorf("%q is not understood", key+":"+value)
}

// isDigits tells whether s is a number without anything else.
func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// parsePercent reads digits with at most one point.
func parsePercent(s string) (float64, error) {
	whole, part, pointed := strings.Cut(s, ".")
	if !isDigits(whole) || pointed && !isDigits(part) || len(s) > 10 {
		return 0, fmt.Errorf("%q is no percentage", s+"%")
	}
	return strconv.ParseFloat(s, 64)
}

// parseCount reads a number of things.
func parseCount(s string) (int, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil && isDigits(s) {
		return int(n), nil
	}
	return 0, fmt.Errorf("%q is no number, or too large", s)
}

// parseDuration reads a duration as Go writes it: 200ms, 3s, 1h30m.
func parseDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is not understood: a time is like 200ms or 3s", s)
}

// given is the set of arguments that f has.
func (f Fault) given() argument {
	var given argument
	for arg, has := range map[argument]bool{
		argPercent: f.Percent != 0, argToward: f.Toward != "", argDelay: f.Delay != 0,
		argAfter: f.After != 0, argMessages: f.Messages != 0, argFor: f.For != 0,
		argTimes: f.Times != 0, argRate: f.Rate != 0, argCode: f.Code != "",
		argStatus: f.Status != 0, argEnding: f.Ending != "",
	} {
		if has {
			given |= arg
		}
	}
	return given
}

// check tells what is wrong with a fault, as a *ConfigError.
func (f Fault) check() error {
	form, err := formOf(f.Kind)
	if err != nil {
		return &ConfigError{err}
	}
	given := f.given()
	one := given & form.oneOf
	switch {
	case given&^form.takes != 0:
		err = errors.New("it has what it does not take")
	case given&form.needs != form.needs, form.oneOf != 0 && one == 0:
		err = errors.New("something is missing")
	case one&(one-1) != 0, given&argAfter != 0 && given&argMessages != 0:
		err = errors.New("something is said twice")
	case f.Percent < 0 || f.Percent > 100:
		err = errors.New("a percentage is above 0 and at most 100")
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		err = errors.New("a status that refuses is from 400 to 599")
	case min(f.Delay, f.After, f.For) < 0 || min(f.Messages, f.Times, f.Rate) < 0:
		err = errors.New("nothing is below zero")
	case f.Code != "" && !slices.Contains(codesOf(f.Kind), f.Code):
		err = errors.New("the errors are " + strings.Join(codesOf(f.Kind), ", "))
	}
	if err != nil {
		return form.error(f.String(), err)
	}
	return nil
}

// String gives the fault as ParseFault reads it.
func (f Fault) String() string {
	var args []string
	add := func(given bool, text string) {
		if given {
			args = append(args, text)
		}
	}
	add(f.Code != "", f.Code)
	add(f.Delay != 0, f.Delay.String())
	add(f.Rate != 0, strconv.Itoa(f.Rate))
	add(f.Percent != 0, strconv.FormatFloat(f.Percent, 'f', -1, 64)+"%")
	add(f.Messages != 0, "after:"+strconv.Itoa(f.Messages))
	add(f.Status != 0, "status:"+strconv.Itoa(f.Status))
	add(f.Ending != "", string(f.Ending))
	add(f.Toward != "", string(f.Toward))
	add(f.After != 0, "after:"+f.After.String())
	add(f.For != 0, "for:"+f.For.String())
	add(f.Times != 0, "times:"+strconv.Itoa(f.Times))
	if len(args) == 0 {
		return string(f.Kind)
	}
	return string(f.Kind) + "=" + strings.Join(args, ",")
}

// goes tells whether the fault is for this direction.
func (f Fault) goes(toward Direction) bool { return f.Toward == "" || f.Toward == toward }

// chance is the percentage of frames; all, if nothing else is said.
func (f Fault) chance() float64 { return cmp.Or(f.Percent, 100) }

// open tells whether the fault happens at a time, its window being counted from
// another.
func (f Fault) open(now, from time.Time) bool {
	since := now.Sub(from)
	return since >= f.After && (f.For == 0 || since < f.After+f.For)
}
