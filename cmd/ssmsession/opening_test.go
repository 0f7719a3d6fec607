package main

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/ssmsession/ssmsession/internal/stream"
)

// aSocket is a socket that was dialled; nothing is done with it.
type aSocket struct{ stream.Socket }

func TestAResumedSessionIsDialledWhereTheServiceSays(t *testing.T) {
	for _, tt := range []struct {
		name   string
		again  string
		refuse []string
		want   []string
		fails  bool
	}{
		{"at the new address", "wss://new", nil, []string{"wss://new"}, false},
		{"at the first one, if the new one does not work", "wss://new", []string{"wss://new"}, []string{"wss://new", "wss://first"}, false},
		{"at the first one, if there is no new one", "", nil, []string{"wss://first"}, false},
		{"once, if they are the same", "wss://first", []string{"wss://first"}, []string{"wss://first"}, true},
		{"in vain, if neither works", "wss://new", []string{"wss://new", "wss://first"}, []string{"wss://new", "wss://first"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dialled []string
			s := &service{dial: func(_ context.Context, url string) (stream.Socket, error) {
				dialled = append(dialled, url)
				if slices.Contains(tt.refuse, url) {
					return nil, errors.New("refused")
				}
				return aSocket{}, nil
			}}
			socket, err := s.dialAgain(t.Context(), tt.again, "wss://first")
			if !slices.Equal(dialled, tt.want) {
				t.Errorf("dialled %q, want %q", dialled, tt.want)
			}
			if (err != nil) != tt.fails || (socket == nil) != tt.fails {
				t.Errorf("it gives %v, %v", socket, err)
			}
		})
	}
}

func TestThePrivateEndpointTakesTheServicesPlace(t *testing.T) {
	const given = "wss://ssmmessages.us-east-1.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe"
	for endpoint, want := range map[string]string{
		"":                          given,
		"vpce-1.example":            "wss://vpce-1.example/v1/data-channel/s-1?role=publish_subscribe",
		"https://vpce-1.example":    "wss://vpce-1.example/v1/data-channel/s-1?role=publish_subscribe",
		"wss://vpce-1.example:8443": "wss://vpce-1.example:8443/v1/data-channel/s-1?role=publish_subscribe",
		"http://127.0.0.1:8080/":    "ws://127.0.0.1:8080/v1/data-channel/s-1?role=publish_subscribe",
	} {
		got, err := (&opening{streamEndpoint: endpoint}).streamURL(given)
		if got != want || err != nil {
			t.Errorf("with the endpoint %q it is %q, %v; want %q", endpoint, got, err, want)
		}
	}
	for _, bad := range []string{"ftp://x", "https://", "https://u:p@host", "https://host/path", "https://host?q"} {
		if u, err := parseStreamEndpoint(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, u)
		}
	}
}

func TestARateIsANumberOrAWord(t *testing.T) {
	for text, want := range map[string]int{"auto": -1, "off": 0, "1": 1, "900": 900} {
		if got, err := parseRate(text); got != want || err != nil {
			t.Errorf("--rate %s is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-1", "1.5", "fast", "1e3"} {
		if got, err := parseRate(bad); err == nil {
			t.Errorf("--rate %q is taken as %d", bad, got)
		}
	}
}
