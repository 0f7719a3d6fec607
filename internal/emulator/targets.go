package emulator

import (
	"cmp"
	"fmt"
	"maps"
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

	container bool // it is a container of ECS (Task), not one of Config.Targets
}

// LocalTarget is the id of the target that is there without configuration.
const LocalTarget = "local"

// target finds a target by its id: a managed node, or a container of a task.
func (s *Server) target(id string) (Target, bool) {
	i := slices.IndexFunc(s.cfg.Targets, func(t Target) bool { return t.ID == id })
	if i < 0 {
		return s.containerTarget(id)
	}
	return s.cfg.Targets[i], true
}

// connectionStatusInput is the input of GetConnectionStatus.
type connectionStatusInput struct{ Target *string }

// validate implements input.
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

// describeInstancesInput is the input of DescribeInstanceInformation. It has two
// kinds of filters: the older one has a fixed set of keys, the newer one takes tags,
// too. Only one may be used.
type describeInstancesInput struct {
	InstanceInformationFilterList []olderInstanceFilter
	Filters                       []newerInstanceFilter
	MaxResults                    *int
	NextToken                     *string
}

// olderInstanceFilter is a filter of the older kind.
type olderInstanceFilter struct {
	Key      *string  `json:"key"`
	ValueSet []string `json:"valueSet"`
}

// UnmarshalJSON has the names of members count here, too.
func (f *olderInstanceFilter) UnmarshalJSON(data []byte) error { return decode(data, f) }

// newerInstanceFilter is a filter of the newer kind.
type newerInstanceFilter struct {
	Key    *string
	Values []string
}

// UnmarshalJSON has the names of members count here, too.
func (f *newerInstanceFilter) UnmarshalJSON(data []byte) error { return decode(data, f) }

// validate implements input. The model leaves keys of the newer filters free.
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

// instanceFilter is a filter of either kind.
type instanceFilter struct {
	key    string
	values []string
}

// filters gives the filters of the kind that is used.
func (in *describeInstancesInput) filters() ([]instanceFilter, error) {
	if len(in.Filters) > 0 && len(in.InstanceInformationFilterList) > 0 {
		return nil, common("ValidationException", "Use either Filters or InstanceInformationFilterList, not both.")
	}
	var filters []instanceFilter
	for _, f := range in.Filters {
		filters = append(filters, instanceFilter{*f.Key, f.Values})
	}
	for _, f := range in.InstanceInformationFilterList {
		filters = append(filters, instanceFilter{*f.Key, f.ValueSet})
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

	number int // its place among the targets; not a member
}

// instanceInformation tells of a target what the API tells. An agent that is not
// connected was last heard of when the emulator started.
func (s *Server) instanceInformation(t Target) instanceInformation {
	info := instanceInformation{
		InstanceID:       t.ID,
		PingStatus:       "Online",
		LastPingDateTime: timestamp(time.Now()),
		AgentVersion:     s.cfg.AgentVersion,
		IsLatestVersion:  s.cfg.AgentVersion == DefaultAgentVersion,
		PlatformType:     cmp.Or(t.PlatformType, map[string]string{"windows": "Windows", "darwin": "MacOS"}[runtime.GOOS], "Linux"),
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
	return info
}

// describeInstances is DescribeInstanceInformation. The order is that of the
// configuration; a page has ten targets unless told otherwise.
func (s *Server) describeInstances(_ caller, in *describeInstancesInput) (any, error) {
	filters, err := in.filters()
	if err != nil {
		return nil, err
	}
	found := []instanceInformation{}
	for i, t := range s.cfg.Targets {
		info := s.instanceInformation(t)
		info.number = i
		ok, err := info.matches(t, filters)
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

// filterable gives what filters compare, by their keys. What no target has here
// is there, and empty.
func (i *instanceInformation) filterable(t Target) map[string][]string {
	has := map[string][]string{
		"InstanceIds":  {i.InstanceID},
		"AgentVersion": {i.AgentVersion},
		"PingStatus":   {i.PingStatus},
		"PlatformType": {i.PlatformType}, "PlatformTypes": {i.PlatformType}, // the older kind's name
		"ResourceType":  {i.ResourceType},
		"ActivationIds": nil, "IamRole": nil, "AssociationStatus": nil, "SourceIds": nil, "SourceTypes": nil,
		"tag-key": slices.Collect(maps.Keys(t.Tags)),
	}
	for name, value := range t.Tags {
		has["tag:"+name] = []string{value}
	}
	if t.Name != "" {
		has["tag-key"] = append(has["tag-key"], "Name")
		has["tag:Name"] = []string{t.Name}
	}
	return has
}

// matches tells whether a target passes all filters. A key that no filter has is
// an InvalidFilterKey.
func (i *instanceInformation) matches(t Target, filters []instanceFilter) (bool, error) {
	all, has := true, i.filterable(t)
	for _, f := range filters {
		values, known := has[f.key]
		if !known && !strings.HasPrefix(f.key, "tag:") {
			return false, errInvalidFilterKey
		}
		if !slices.ContainsFunc(values, func(v string) bool { return slices.Contains(f.values, v) }) {
			all = false
		}
	}
	return all, nil
}
