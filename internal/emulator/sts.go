package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultMFACode is the code of the one MFA device there is.
	DefaultMFACode = "123456"
	// mfaRolePrefix begins the names of the roles that can only be assumed with an
	// MFA code. All other roles can be without.
	mfaRolePrefix = "mfa"
	// defaultRoleSeconds is how long a role is assumed for unless asked otherwise, and
	// the longest for who asks with the key of another one.
	defaultRoleSeconds = 3600
)

// role is a role that is being assumed, and what for.
type role struct {
	arn, account, name, session string
	lifetime                    time.Duration
}

// member reads and checks a string of a form against its model: a pattern, which
// is written without anchors, and a length. A member that is not there is empty.
func (v *validation) member(form url.Values, name string, required bool, pattern string, low, high int) string {
	value, member := form.Get(name), strings.ToLower(name[:1])+name[1:]
	if !form.Has(name) {
		v.required(member, !required)
		return ""
	}
	if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(value) {
		v.add(quote(value), member, "satisfy regular expression pattern: "+pattern)
	}
	v.length(member, value, low, high)
	return value
}

// parseRole reads and checks the members that all ways to assume a role have.
func parseRole(form url.Values, v *validation) (role, error) {
	arn := v.member(form, "RoleArn", true, `.*`, 20, 2048)
	session := v.member(form, "RoleSessionName", true, `[\w+=,.@-]*`, 2, 64)
	seconds := defaultRoleSeconds
	if form.Has("DurationSeconds") {
		var err error
		if seconds, err = strconv.Atoi(form.Get("DurationSeconds")); err != nil {
			return role{}, common("MalformedInput", "DurationSeconds is not a number.")
		}
		v.number("durationSeconds", &seconds, 900, 43200)
	}
	if err := v.err(); err != nil {
		return role{}, err
	}
	parts := regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}):role/(?:[!-~]+/)?([\w+=,.@-]{1,64})$`).FindStringSubmatch(arn)
	if parts == nil {
		return role{}, common("ValidationError", "Request ARN is invalid")
	}
	return role{arn, parts[1], parts[2], session, time.Duration(seconds) * time.Second}, nil
}

// assumedRole is the answer to a call that assumes a role.
type assumedRole struct {
	XMLName  xml.Name
	Subject  string `xml:"SubjectFromWebIdentityToken,omitempty"`
	Provider string `xml:",omitempty"`
	User     struct {
		ID  string `xml:"AssumedRoleId"`
		ARN string `xml:"Arn"`
	} `xml:"AssumedRoleUser"`
	Credentials struct {
		AccessKeyId, SecretAccessKey, SessionToken string // secret
		Expiration                                 string // ISO 8601
	}
}

// assume makes a temporary key for a role.
func (s *Server) assume(r role, action string) assumedRole {
	p := principal{
		key:    newTemporaryKey(time.Now(), r.lifetime),
		issued: time.Now(),
		arn:    "arn:aws:sts::" + r.account + ":assumed-role/" + r.name + "/" + r.session,
		userID: uniqueID("AROA", r.arn) + ":" + r.session,
	}
	s.temporary.add(p)
	out := assumedRole{XMLName: xml.Name{Local: action + "Result"}}
	out.User.ID, out.User.ARN = p.userID, p.arn
	out.Credentials.AccessKeyId, out.Credentials.SecretAccessKey = p.key.AccessKeyID, p.key.SecretAccessKey
	out.Credentials.SessionToken, out.Credentials.Expiration = p.key.SessionToken, p.key.Expires.Format(time.RFC3339)
	return out
}

// assumeRole is AssumeRole. A code is checked even if the role could be had without.
func (s *Server) assumeRole(c caller, form url.Values) (any, error) {
	var v validation
	serial := v.member(form, "SerialNumber", false, `[\w+=/:,.@-]*`, 9, 256)
	code := v.member(form, "TokenCode", false, `[\d]*`, 6, 6)
	r, err := parseRole(form, &v)
	switch {
	case err != nil:
		return nil, err
	case serial == "" && code == "" && strings.HasPrefix(r.name, mfaRolePrefix):
		return nil, notAuthorized(c, "AssumeRole", r.arn)
	case (serial == "") != (code == ""):
		return nil, stsAccessDenied("MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.")
	case code != "" && code != s.cfg.MFACode:
		return nil, stsAccessDenied("MultiFactorAuthentication failed with invalid MFA one time pass code.")
	case c.key.CanExpire && r.lifetime > defaultRoleSeconds*time.Second:
		return nil, common("ValidationError",
			"The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	return s.assume(r, "AssumeRole"), nil
}

// assumeRoleWithWebIdentity is AssumeRoleWithWebIdentity. There is no MFA for it.
func (s *Server) assumeRoleWithWebIdentity(c caller, form url.Values) (any, error) {
	r, err := parseRole(form, &validation{})
	if err != nil {
		return nil, err
	}
	claims, err := s.readWebIdentity(form.Get("WebIdentityToken"), time.Now())
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(r.name, mfaRolePrefix) {
		return nil, notAuthorized(c, "AssumeRoleWithWebIdentity", r.arn)
	}
	out := s.assume(r, "AssumeRoleWithWebIdentity")
	out.Subject, out.Provider = claims.Subject, claims.Issuer
	return out, nil
}

// webIdentity is what a web identity token claims (RFC 7519, section 4.1).
type webIdentity struct {
	Subject string   `json:"sub"`
	Issuer  string   `json:"iss"`
	Expires *float64 `json:"exp"` // seconds since 1970; nil: never
}

// readWebIdentity reads a web identity token, a JWT. The call that brings it is not
// signed, and what it gets is as good as the server's key. So the token must be
// signed with that key instead: HS256, by the secret key.
func (s *Server) readWebIdentity(token string, now time.Time) (webIdentity, error) {
	var claims webIdentity
	invalid := func(message string) (webIdentity, error) {
		return webIdentity{}, common("InvalidIdentityToken", message)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || !decodeJWTPart(parts[0], &struct{}{}) || !decodeJWTPart(parts[1], &claims) {
		return invalid("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	mac := hmac.New(sha256.New, []byte(s.key.SecretAccessKey))
	mac.Write([]byte(parts[0] + "." + parts[1])) // never fails
	if signature, err := base64.RawURLEncoding.DecodeString(parts[2]); err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
		return invalid("The ID Token provided is not signed with the secret access key of this emulator (HS256).")
	}
	if claims.Expires != nil && *claims.Expires <= float64(now.Unix()) {
		return webIdentity{}, common("ExpiredTokenException",
			fmt.Sprintf("Token expired: current date/time %d must be before the expiration date/time%.0f", now.Unix(), *claims.Expires))
	}
	return claims, nil
}

// decodeJWTPart reads a part of a JWT, a JSON object.
func decodeJWTPart(part string, into any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(raw, into) == nil
}

// callerIdentity is the answer to GetCallerIdentity.
type callerIdentity struct {
	XMLName xml.Name `xml:"GetCallerIdentityResult"`
	ARN     string   `xml:"Arn"`
	UserID  string   `xml:"UserId"`
	Account string
}

// getCallerIdentity is GetCallerIdentity.
func (s *Server) getCallerIdentity(c caller, _ url.Values) (any, error) {
	return callerIdentity{ARN: c.arn, UserID: c.userID, Account: strings.Split(c.arn, ":")[4]}, nil
}
