package emulator

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// validation gathers what is wrong with an input, in the words of AWS's front
// ends. Members are named from the outside in, each in lower camel case.
type validation struct{ violations []string }

// violationLimit is how many violations are told: a call can have far more of them
// than bytes that an answer should have.
const violationLimit = 100

// add adds that a member with a value must be otherwise.
func (v *validation) add(value, member, constraint string) {
	if len(v.violations) == violationLimit {
		return
	}
	v.violations = append(v.violations,
		fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: Member must %s", value, member, constraint))
}

// err is nil or a ValidationException that lists them.
func (v *validation) err() error {
	n := len(v.violations)
	if n == 0 {
		return nil
	}
	noun := "error"
	if n > 1 {
		noun = "errors"
	}
	return common("ValidationException",
		fmt.Sprintf("%d validation %s detected: %s", n, noun, strings.Join(v.violations, "; ")))
}

// quote is how a value is written; nothing in it is escaped.
func quote(s string) string { return "'" + s + "'" }

// required tells whether the member is there.
func (v *validation) required(member string, there bool) bool {
	if !there {
		v.add("null", member, "not be null")
	}
	return there
}

// length checks the length of a string, in characters.
func (v *validation) length(member, s string, low, high int) {
	switch n := utf8.RuneCountInString(s); {
	case n < low:
		v.add(quote(s), member, "have length greater than or equal to "+strconv.Itoa(low))
	case n > high:
		v.add(quote(s), member, "have length less than or equal to "+strconv.Itoa(high))
	}
}

// count checks the length of a list.
func (v *validation) count(member string, n, low, high int) {
	switch {
	case n < low:
		v.add("'[]'", member, "have length greater than or equal to "+strconv.Itoa(low))
	case n > high:
		v.add("'[...]'", member, "have length less than or equal to "+strconv.Itoa(high))
	}
}

// number checks an optional number.
func (v *validation) number(member string, n *int, low, high int) {
	switch {
	case n == nil:
	case *n < low:
		v.add(quote(strconv.Itoa(*n)), member, "have value greater than or equal to "+strconv.Itoa(low))
	case *n > high:
		v.add(quote(strconv.Itoa(*n)), member, "have value less than or equal to "+strconv.Itoa(high))
	}
}

// pattern checks a string against a modelled pattern.
func (v *validation) pattern(member, s string, pattern *regexp.Regexp) {
	if !pattern.MatchString(s) {
		v.add(quote(s), member, "satisfy regular expression pattern: "+pattern.String())
	}
}

// oneOf checks a string that is modelled as an enumeration.
func (v *validation) oneOf(member, s string, values ...string) {
	for _, value := range values {
		if s == value {
			return
		}
	}
	v.add(quote(s), member, "satisfy enum value set: ["+strings.Join(values, ", ")+"]")
}

// timestamp checks a time in a string, as the filters of DescribeSessions have it.
func (v *validation) timestamp(member, s string) {
	if _, err := time.Parse(time.RFC3339, s); err != nil {
		v.add(quote(s), member, "be a timestamp in ISO-8601 form")
	}
}

// sessionID checks the one member of ResumeSession and TerminateSession.
func (v *validation) sessionID(id *string) {
	if v.required("sessionId", id != nil) {
		v.length("sessionId", *id, 1, 96)
	}
}

// sessionTarget checks the member Target of several actions.
func (v *validation) sessionTarget(target *string) {
	if v.required("target", target != nil) {
		v.length("target", *target, 1, 400)
	}
}
