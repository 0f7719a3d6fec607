package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli anew")

// commandTree gives all commands that help shows, parents first.
func commandTree() []*cobra.Command {
	e := &env{getenv: func(string) string { return "" }, version: "0.0.0", commit: "none", report: newReport(io.Discard)}
	var all []*cobra.Command
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				add(sub)
			}
		}
	}
	add(newRoot(e))
	return all
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, cmd := range commandTree() {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
				t.Error("it lacks a short text, a long one or an example")
			}
			if strings.HasSuffix(cmd.Short, ".") || cmd.Short != strings.TrimSpace(cmd.Short) {
				t.Errorf("its short text is a sentence: %q", cmd.Short)
			}
			if first := cmd.Short[:1]; first != strings.ToLower(first) {
				t.Errorf("its short text begins with a capital letter: %q", cmd.Short)
			}
			for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > 81 {
					t.Errorf("a line of its help has %d columns: %s", n, line)
				}
			}
			if !strings.Contains(cmd.Example, cmd.CommandPath()) {
				t.Errorf("its example does not show it: %s", cmd.Example)
			}
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" {
					t.Errorf("its flag --%s is not explained", f.Name)
				}
			})
		})
	}
}

// TestCommandsThatOpenSessionsShareTheirFlags takes every command for one that
// opens a session unless it is named here.
func TestCommandsThatOpenSessionsShareTheirFlags(t *testing.T) {
	others := []string{"ssmsession", "ssmsession emulator", "ssmsession emulator fault", "ssmsession install-plugin"}
	common := pflag.NewFlagSet("common", pflag.ContinueOnError)
	new(opening).addFlags(common)
	request := pflag.NewFlagSet("request", pflag.ContinueOnError)
	new(opening).addRequestFlags(request)
	for _, name := range []string{"target", "document-name", "parameters", "reason", "region", "profile", "endpoint-url",
		"stream-endpoint", "ca-bundle", "no-verify-ssl", "connect-timeout", "rate"} {
		if common.Lookup(name) == nil {
			t.Errorf("the common flags lack --%s", name)
		}
	}
	for _, cmd := range commandTree() {
		if slices.Contains(others, cmd.CommandPath()) {
			continue
		}
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			common.VisitAll(func(want *pflag.Flag) {
				switch {
				case cmd.Name() == "connect" && request.Lookup(want.Name) != nil:
					return // its session has been started
				case want.Name == "target" && slices.Contains([]string{"connect", "ssh-config", "ssh-proxy"}, cmd.Name()):
					return // one that was started needs no name mostly, lines for ssh are for all, HOST is it
				}
				got := cmd.Flags().Lookup(want.Name)
				switch {
				case got == nil:
					t.Errorf("it opens sessions and has no --%s", want.Name)
				case want.Name == "document-name": // whose default is each command's own
				case got.Shorthand != want.Shorthand || got.DefValue != want.DefValue || got.Usage != want.Usage:
					t.Errorf("its --%s is one of its own", want.Name)
				}
			})
		})
	}
}

func TestNoCommandHasAFlagThatDoesNothingThere(t *testing.T) {
	of := map[string][]string{
		"escape-char":        {"start", "exec", "connect"},
		"output":             {"start", "exec", "forward", "connect"},
		"require-encryption": {"start", "exec", "connect"},
		"kms-endpoint":       {"start", "exec", "connect"},
	}
	for _, cmd := range commandTree() {
		for name, commands := range of {
			if got, want := has(cmd, name), slices.Contains(commands, cmd.Name()); got != want {
				t.Errorf("%s has --%s: %v, want %v", cmd.CommandPath(), name, got, want)
			}
		}
	}
}

func TestEveryCommandHasTheFlagsOfAllCommands(t *testing.T) {
	for _, cmd := range commandTree() {
		for _, name := range []string{"quiet", "debug", "log-file", "events", "help"} {
			// Flags of the parents count once the command line is read.
			if cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && cmd.PersistentFlags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", cmd.CommandPath(), name)
			}
		}
	}
}

// TestCommandPages compares docs/cli with what the commands say of themselves.
func TestCommandPages(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "cli")
	want := map[string][]byte{}
	for _, cmd := range commandTree() {
		want[pageOf(cmd)] = page(cmd)
	}
	if *update {
		writePages(t, dir, want)
	}
	got, err := readPages(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("docs/cli/%s is not what its command says: run make docs", name)
		}
		delete(got, name)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		t.Errorf("docs/cli/%s is no command's: run make docs", name)
	}
}

func writePages(t *testing.T, dir string, pages map[string][]byte) {
	t.Helper()
	old, err := readPages(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for name := range old {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readPages reads all files of a directory; a checkout may have changed their
// line ends.
func readPages(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	pages := map[string][]byte{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		pages[entry.Name()] = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	return pages, nil
}

func pageOf(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "_") + ".md"
}

// page is the page of a command. It is written here, not with cobra's own
// generator, for what that needs would be in our go.mod and show in an audit.
func page(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!-- Made by `make docs` from the program's own help. Do not edit. -->\n\n")
	fmt.Fprintf(&b, "# %s\n\n%s\n\n", cmd.CommandPath(), sentence(cmd.Short))
	use := cmd.UseLine()
	if !cmd.Runnable() {
		use = cmd.CommandPath() + " COMMAND"
	}
	block(&b, use)
	if cmd.Long != "" {
		fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.Example != "" {
		b.WriteString("## Examples\n\n")
		block(&b, unindent(cmd.Example))
	}
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		b.WriteString("## Flags\n\n")
		block(&b, flags.FlagUsages())
	}
	if flags := cmd.InheritedFlags(); flags.HasAvailableFlags() {
		b.WriteString("## Flags of every command\n\n")
		block(&b, flags.FlagUsages())
	}
	related(&b, cmd)
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

// related lists the commands above and below.
func related(b *bytes.Buffer, cmd *cobra.Command) {
	var list []*cobra.Command
	if parent := cmd.Parent(); parent != nil {
		list = append(list, parent)
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			list = append(list, sub)
		}
	}
	if len(list) == 0 {
		return
	}
	b.WriteString("## See also\n\n")
	for _, c := range list {
		fmt.Fprintf(b, "- [%s](%s): %s\n", c.CommandPath(), pageOf(c), c.Short)
	}
}

func block(b *bytes.Buffer, text string) {
	fmt.Fprintf(b, "```\n%s\n```\n\n", strings.TrimRight(text, "\n"))
}

// unindent takes off the two columns by which examples are set off in help.
func unindent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return b.String()
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }
