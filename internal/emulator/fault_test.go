package emulator

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestParseFault is the specification of how faults are written.
func TestParseFault(t *testing.T) {
	for spec, want := range map[string]Fault{
		"drop=5%":                             {Kind: FaultDrop, Percent: 5},
		"drop=0.5%,to-client":                 {Kind: FaultDrop, Percent: 0.5, Toward: ToClient},
		"duplicate=to-agent,100%":             {Kind: FaultDuplicate, Percent: 100, Toward: ToAgent},
		"reorder=5%,after:10s,for:1m":         {Kind: FaultReorder, Percent: 5, After: 10 * time.Second, For: time.Minute},
		"corrupt=1%":                          {Kind: FaultCorrupt, Percent: 1},
		"delay=25ms":                          {Kind: FaultDelay, Delay: 25 * time.Millisecond},
		"delay=1s,10%,to-client":              {Kind: FaultDelay, Delay: time.Second, Percent: 10, Toward: ToClient},
		"lose-acks":                           {Kind: FaultLoseAcks},
		"lose-acks=50%,to-agent":              {Kind: FaultLoseAcks, Percent: 50, Toward: ToAgent},
		"silent-agent":                        {Kind: FaultSilentAgent},
		"silent-agent=after:3s,for:20s":       {Kind: FaultSilentAgent, After: 3 * time.Second, For: 20 * time.Second},
		"cut=after:3s,close":                  {Kind: FaultCut, After: 3 * time.Second, Ending: EndClose},
		"cut=after:100,reset,times:2":         {Kind: FaultCut, Messages: 100, Ending: EndReset, Times: 2},
		"cut=after:1h,once":                   {Kind: FaultCut, After: time.Hour, Times: 1},
		"half-open":                           {Kind: FaultHalfOpen},
		"half-open=after:7,once":              {Kind: FaultHalfOpen, Messages: 7, Times: 1},
		"pause=for:5s":                        {Kind: FaultPause, For: 5 * time.Second},
		"pause=after:3s,for:5s,to-client":     {Kind: FaultPause, After: 3 * time.Second, For: 5 * time.Second, Toward: ToClient},
		"slow=65536,to-client":                {Kind: FaultSlow, Rate: 65536, Toward: ToClient},
		"refuse":                              {Kind: FaultRefuse},
		"refuse=status:503,times:3":           {Kind: FaultRefuse, Status: 503, Times: 3},
		"refuse=for:10s":                      {Kind: FaultRefuse, For: 10 * time.Second},
		"resume=ThrottlingException,times:3":  {Kind: FaultResume, Code: "ThrottlingException", Times: 3},
		"resume=InternalServerError":          {Kind: FaultResume, Code: "InternalServerError"},
		"expire-tokens":                       {Kind: FaultExpireTokens},
		"expire-tokens=50ms,once":             {Kind: FaultExpireTokens, Delay: 50 * time.Millisecond, Times: 1},
		"expire-credentials=after:10s,for:5s": {Kind: FaultExpireCredentials, After: 10 * time.Second, For: 5 * time.Second},
		"throttle=5":                          {Kind: FaultThrottle, Rate: 5},
		"throttle=times:3":                    {Kind: FaultThrottle, Times: 3},
		"decrypt=AccessDeniedException,once":  {Kind: FaultDecrypt, Code: "AccessDeniedException", Times: 1},
		"generate-data-key=DisabledException": {Kind: FaultGenerateDataKey, Code: "DisabledException"},
		"bad-challenge":                       {Kind: FaultBadChallenge},
		"bad-output":                          {Kind: FaultBadOutput},
		"bad-output=after:3":                  {Kind: FaultBadOutput, Messages: 3},
		"late-encryption=after:2":             {Kind: FaultLateEncryption, Messages: 2},
		"late-open=5ms":                       {Kind: FaultLateOpen, Delay: 5 * time.Millisecond},
	} {
		got, err := ParseFault(spec)
		if err != nil || got != want {
			t.Errorf("%s is read as %+v, %v, not %+v", spec, got, err, want)
			continue
		}
		if again, err := ParseFault(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which is read as %+v, %v", spec, got, again, err)
		}
	}
}

// TestBadFaults: every mistake is told, with what is taken instead.
func TestBadFaults(t *testing.T) {
	for spec, want := range map[string]string{
		"":                            "there are drop, duplicate, reorder",
		"dorp=5%":                     `there is no fault "dorp"`,
		"drop":                        "something is missing; the form is drop=P%[,DIR][,WINDOW]",
		"drop=":                       "is not understood",
		"drop=5":                      "it takes no 5",
		"drop=0%":                     "nothing may be zero",
		"drop=101%":                   "at most 100",
		"drop=-5%":                    "is no percentage",
		"drop=1e1%":                   "is no percentage",
		"drop=infinity%":              "is no percentage",
		"drop=5.%":                    "is no percentage",
		"drop=%":                      "is no percentage",
		"drop=5%,":                    "is not understood",
		"drop=5%,5%":                  "something is said twice",
		"drop=5%,to-client,to-agent":  "something is said twice",
		"drop=5%,to-server":           "is not understood",
		"drop=5%,after:100":           "it takes no after:100",
		"drop=5%,times:2":             "it takes no times:2",
		"drop=5%, to-client":          "is not understood",
		"DROP=5%":                     "there is no fault",
		"delay":                       "something is missing",
		"delay=0s":                    "nothing may be zero",
		"delay=-1s":                   "is not understood",
		"delay=10":                    "it takes no 10",
		"silent-agent=to-client":      "it takes no to-client",
		"silent-agent=for":            "is not understood",
		"silent-agent=during:3s":      `"during:3s" is not understood`,
		"cut":                         "the form is cut=after:T|N",
		"cut=close":                   "something is missing",
		"cut=after:3s,after:10":       "something is said twice",
		"cut=after:3s,close,reset":    "something is said twice",
		"cut=after:0":                 "nothing may be zero",
		"half-open=after:3s,after:10": "something is said twice",
		"pause=after:3s":              "something is missing",
		"slow=10KB":                   "is not understood",
		"slow=0":                      "nothing may be zero",
		"slow=99999999999":            "too large",
		"refuse=status:200":           "from 400 to 599",
		"refuse=status:x":             "is no number",
		"resume":                      "something is missing",
		"resume=Throttling":           "no error of it; there are AccessDeniedException",
		"expire-tokens=5%":            "it takes no 5%",
		"throttle":                    "something is missing",
		"throttle=5,times:3":          "something is said twice",
		"throttle=+5":                 "is not understood",
		"decrypt=TargetNotConnected":  "no error of it; there are AccessDeniedException, Depend",
		"bad-challenge=once":          "it takes no once",
		"bad-output=after:3s":         "it takes no after:3s",
		"late-encryption":             "something is missing",
		"late-open=once":              "it takes no once",
	} {
		f, err := ParseFault(spec)
		if err == nil {
			t.Errorf("%q is taken for %+v", spec, f)
			continue
		}
		if bad := (*ConfigError)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("of %q it is said: %v", spec, err)
		}
	}
}

// TestFaultsMadeByHand are checked like those that are read.
func TestFaultsMadeByHand(t *testing.T) {
	s := startServer(t, Config{})
	good := Fault{Kind: FaultDrop, Percent: 5}
	for name, bad := range map[string]Fault{
		"nothing":               {},
		"an unknown kind":       {Kind: "drip", Percent: 5},
		"too many per cent":     {Kind: FaultDrop, Percent: 500},
		"less than no per cent": {Kind: FaultDrop, Percent: -1},
		"less than no time":     {Kind: FaultCut, After: -1},
		"what it does not take": {Kind: FaultDrop, Percent: 5, Rate: 5},
		"an unknown error":      {Kind: FaultResume, Code: "Oops"},
	} {
		if err := s.SetFaults(good, bad); err == nil {
			t.Errorf("a fault with %s is set", name)
		}
		if s.faults.get() != nil {
			t.Fatalf("of faults one of which has %s, some are set", name)
		}
		if other, err := Start(t.Context(), Config{Faults: []Fault{bad}}); err == nil {
			t.Errorf("a server starts with a fault with %s", name)
			other.Close()
		}
	}
	if err := s.SetFaults(make([]Fault, faultLimit+1)...); err == nil {
		t.Error("any number of faults can be set")
	}
}

// TestFaultFormsAreComplete: what is documented of a fault names its kind and all
// that it takes.
func TestFaultFormsAreComplete(t *testing.T) {
	if forms := FaultForms(); len(forms) != len(faultForms()) {
		t.Errorf("%d forms are told of %d", len(forms), len(faultForms()))
	}
	for _, form := range faultForms() {
		if !strings.HasPrefix(form.form, string(form.kind)) || form.meaning == "" {
			t.Errorf("the form of %s is %q, %q", form.kind, form.form, form.meaning)
		}
		for arg, text := range map[argument]string{argPercent: "P%", argToward: "DIR", argTimes: "TIMES",
			argMessages: "after:T|N", argCode: "CODE", argEnding: "close|reset", argStatus: "status:N"} {
			has := strings.Contains(form.form, text) || arg == argTimes && strings.Contains(form.form, "times:N") ||
				arg == argMessages && strings.Contains(form.form, "after:N")
			if has != (form.takes&arg != 0) {
				t.Errorf("the form %s names %s: %v", form.form, text, has)
			}
		}
	}
	if n := reflect.TypeFor[Fault]().NumField(); n != 12 {
		t.Errorf("a fault has %d fields: String, given and check are to know them all", n)
	}
}

// TestWindow: a fault begins after a time and goes on for a time.
func TestWindow(t *testing.T) {
	from := time.Now()
	f := Fault{After: 2 * time.Second, For: time.Second}
	for at, want := range map[time.Duration]bool{
		0: false, 2*time.Second - 1: false, 2 * time.Second: true, 3*time.Second - 1: true, 3 * time.Second: false,
	} {
		if f.open(from.Add(at), from) != want {
			t.Errorf("after %v it happens: %v", at, !want)
		}
	}
	if !(Fault{}).open(from, from) || !(Fault{}).open(from.Add(time.Hour), from) {
		t.Error("a fault without a window does not always happen")
	}
}

// FuzzParseFault: whatever is read is written as something that is read as the same.
func FuzzParseFault(f *testing.F) {
	for _, form := range FaultForms() {
		f.Add(form[0])
	}
	for _, spec := range []string{"drop=5%,to-client,after:1s,for:1h2m", "cut=after:3,reset,once", "resume=ThrottlingException,times:3",
		"delay=1.5s,0.0000001%", "=", "drop==", "pause=for:for:", "slow=\x00", "refuse=status:0503"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		fault, err := ParseFault(spec)
		if err != nil {
			if bad := (*ConfigError)(nil); !errors.As(err, &bad) || fault != (Fault{}) {
				t.Errorf("%q gives %+v and %v", spec, fault, err)
			}
			return
		}
		if again, err := ParseFault(fault.String()); err != nil || again != fault {
			t.Errorf("%q is read as %+v, written as %s and read as %+v, %v", spec, fault, fault, again, err)
		}
	})
}
