package emulator

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Target is a managed node to connect to. All of them are this machine; they
// differ in what the API tells of them.
type Target struct {
	ID           string            // what StartSession names: "local", "i-…", "mi-…"
	Name         string            // of a managed node, and the value of its tag Name
	PlatformType string            // Linux, MacOS or Windows; empty is this system
	Tags         map[string]string // for the filters of DescribeInstanceInformation
	Offline      bool              // its agent is not connected
}

// LocalTarget is the id of the target that is there without configuration.
const LocalTarget = "local"

func (s *Server) target(id string) (Target, bool) {
	i := slices.IndexFunc(s.cfg.Targets, func(t Target) bool { return t.ID == id })
	if i < 0 {
		return Target{}, false
	}
	return s.cfg.Targets[i], true
}

type connectionStatusInput struct{ Target *string }

func (in *connectionStatusInput) validate(v *validation) { v.sessionTarget(in.Target) }

// connectionStatus is GetConnectionStatus. A target that is not known is not
// connected.
func (s *Server) connectionStatus(_ caller, in *connectionStatusInput) (any, error) {
	status := "notconnected"
	if t, ok := s.target(*in.Target); ok && !t.Offline {
		status = "connected"
	}
	return map[string]string{"Target": *in.Target, "Status": status}, nil
}

// describeInstancesInput has two kinds of filters: the older one has a fixed set
// of keys. Only one may be used.
type describeInstancesInput struct {
	InstanceInformationFilterList []struct {
		Key      *string  `json:"key"`
		ValueSet []string `json:"valueSet"`
	}
	Filters []struct {
		Key    *string
		Values []string
	}
	MaxResults *int
	NextToken  *string
}

func (in *describeInstancesInput) validate(v *validation) {
	values := func(member string, values []string) {
		v.count(member, len(values), 1, 100)
		for i, value := range values {
			v.length(fmt.Sprintf("%s.%d.member", member, i+1), value, 1, 1<<16)
		}
	}
	for i, f := range in.InstanceInformationFilterList {
		at := fmt.Sprintf("instanceInformationFilterList.%d.member.", i+1)
		if v.required(at+"key", f.Key != nil) {
			v.oneOf(at+"key", *f.Key, "InstanceIds", "AgentVersion", "PingStatus", "PlatformTypes",
				"ActivationIds", "IamRole", "ResourceType", "AssociationStatus")
		}
		values(at+"valueSet", f.ValueSet)
	}
	for i, f := range in.Filters {
		at := fmt.Sprintf("filters.%d.member.", i+1)
		if v.required(at+"key", f.Key != nil) {
			v.length(at+"key", *f.Key, 1, 1<<16)
		}
		values(at+"values", f.Values)
	}
	v.number("maxResults", in.MaxResults, 5, 50)
}

// filters gives the filters of either kind, by key.
func (in *describeInstancesInput) filters() (map[string][]string, error) {
	if len(in.Filters) > 0 && len(in.InstanceInformationFilterList) > 0 {
		return nil, common("ValidationException", "Use either Filters or InstanceInformationFilterList, not both.")
	}
	filters := map[string][]string{}
	for _, f := range in.Filters {
		filters[*f.Key] = append(filters[*f.Key], f.Values...)
	}
	for _, f := range in.InstanceInformationFilterList {
		filters[*f.Key] = append(filters[*f.Key], f.ValueSet...)
	}
	return filters, nil
}

// instanceInformation is one element of DescribeInstanceInformation's answer.
type instanceInformation struct {
	InstanceID       string `json:"InstanceId"`
	PingStatus       string
	LastPingDateTime timestamp
	AgentVersion     string
	IsLatestVersion  bool
	PlatformType     string
	PlatformName     string `json:",omitempty"`
	ResourceType     string
	Name             string `json:",omitempty"`
	IPAddress        string
	ComputerName     string `json:",omitempty"`

	number int
}

func (s *Server) instanceInformation(t Target) instanceInformation {
	info := instanceInformation{
		InstanceID:       t.ID,
		PingStatus:       "Online",
		LastPingDateTime: timestamp(time.Now()),
		AgentVersion:     s.cfg.AgentVersion,
		IsLatestVersion:  s.cfg.AgentVersion == DefaultAgentVersion,
		PlatformType:     t.PlatformType,
		PlatformName:     runtime.GOOS,
		ResourceType:     "EC2Instance",
		Name:             t.Name,
		IPAddress:        "127.0.0.1",
	}
	if host, err := os.Hostname(); err == nil { // without it the member is absent
		info.ComputerName = host
	}
	if t.Offline {
		info.PingStatus = "ConnectionLost"
		info.LastPingDateTime = timestamp(s.started)
	}
	if strings.HasPrefix(t.ID, "mi-") {
		info.ResourceType = "ManagedInstance"
	}
	if info.PlatformType == "" {
		info.PlatformType = map[string]string{"windows": "Windows", "darwin": "MacOS"}[runtime.GOOS]
	}
	if info.PlatformType == "" {
		info.PlatformType = "Linux"
	}
	return info
}

// describeInstances is DescribeInstanceInformation.
func (s *Server) describeInstances(_ caller, in *describeInstancesInput) (any, error) {
	filters, err := in.filters()
	if err != nil {
		return nil, err
	}
	found := []instanceInformation{}
	for i, t := range s.cfg.Targets {
		info := s.instanceInformation(t)
		info.number = i
		ok, err := matches(t, info, filters)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, info)
		}
	}
	inOrder := func(i instanceInformation) int { return i.number }
	page, next, err := paginate(found, inOrder, orDefault(in.MaxResults, 10), in.NextToken)
	if err != nil {
		return nil, err
	}
	return struct {
		InstanceInformationList []instanceInformation
		NextToken               string `json:",omitempty"`
	}{page, next}, nil
}

// matches tells whether a target passes all filters. A key that no filter has is
// an InvalidFilterKey.
func matches(t Target, info instanceInformation, filters map[string][]string) (bool, error) {
	tags := map[string]string{}
	if t.Name != "" {
		tags["Name"] = t.Name
	}
	for key, value := range t.Tags {
		tags[key] = value
	}
	all := true
	for key, values := range filters {
		var has string
		switch key {
		case "InstanceIds":
			has = info.InstanceID
		case "AgentVersion":
			has = info.AgentVersion
		case "PingStatus":
			has = info.PingStatus
		case "PlatformType", "PlatformTypes":
			has = info.PlatformType
		case "ResourceType":
			has = info.ResourceType
		case "ActivationIds", "IamRole", "AssociationStatus", "SourceIds", "SourceTypes": // no target has these
		case "tag-key":
			all = all && slices.ContainsFunc(values, func(k string) bool { _, ok := tags[k]; return ok })
			continue
		default:
			tag, ok := strings.CutPrefix(key, "tag:")
			if !ok {
				return false, errInvalidFilterKey
			}
			value, ok := tags[tag]
			all = all && ok && slices.Contains(values, value)
			continue
		}
		all = all && slices.Contains(values, has)
	}
	return all, nil
}
