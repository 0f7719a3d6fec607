package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ssmsession/ssmsession/internal/emulator"
)

// ciPage is the page whose recipes are run here.
const ciPage = "../../docs/ci.md"

// ciJob is what a recipe runs: each script by a bash of its own, in order, until
// one fails.
type ciJob struct {
	env     []string // as the recipe sets it
	scripts []string
}

// ciRecipes are the recipes that the page must have, and how each is read.
func ciRecipes() map[string]func(*testing.T, string) ciJob {
	return map[string]func(*testing.T, string) ciJob{
		"github-actions": readActions,
		"gitlab-ci":      readGitLab,
		"jenkins":        readJenkins,
		"makefile":       readMakefile,
	}
}

// ciVersion is the version that the recipes deploy, by whatever name they have
// for it.
const ciVersion = "4711abc"

// TestRecipesForCI runs what docs/ci.md tells people to run, as they would: with
// bash -e, against a service.
func TestRecipesForCI(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the emulator's agent has no pty here")
	}
	for _, tool := range []string{"bash", "make", "tar"} {
		needTool(t, tool)
	}
	page, err := os.ReadFile(ciPage)
	if err != nil {
		t.Fatal(err)
	}
	recipes := ciBlocks(t, string(page), "recipe")
	if len(recipes) != len(ciRecipes()) {
		t.Errorf("docs/ci.md has %d recipes, and %d are known here", len(recipes), len(ciRecipes()))
	}
	deploy, ok := ciBlocks(t, string(page), "file")["deploy.sh"]
	if !ok {
		t.Fatal("docs/ci.md does not show deploy.sh, which its recipes run")
	}
	env := ciService(t)
	for name, read := range ciRecipes() {
		text, ok := recipes[name]
		if !ok {
			t.Errorf("docs/ci.md has no recipe %q", name)
			continue
		}
		job := read(t, text)
		if n := strings.Count(text, "ssmsession exec "); n < 4 {
			t.Errorf("the recipe %s has %d calls of exec, want at least 4", name, n)
		}
		for _, c := range []struct {
			name  string
			spoil func(w ciWorkspace) error // nil for what must work
		}{
			{"works", nil},
			{"fails when the directory is not there", func(w ciWorkspace) error { return os.Remove(w.app) }},
			{"fails when the script fails", func(w ciWorkspace) error {
				return os.Remove(filepath.Join(w.dir, "site", "index.html"))
			}},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				t.Parallel()
				w := newCIWorkspace(t, deploy, text)
				if c.spoil != nil {
					if err := c.spoil(w); err != nil {
						t.Fatal(err)
					}
				}
				out, err := w.run(t, job, env)
				switch {
				case c.spoil != nil && err == nil:
					t.Errorf("it succeeds:\n%s", out)
				case c.spoil != nil:
					if _, err := os.Stat(filepath.Join(w.dir, "deploy.json")); err == nil {
						t.Errorf("it goes on after the failure:\n%s", out)
					}
				case err != nil:
					t.Errorf("it fails: %v\n%s", err, out)
				default:
					w.wantDeployed(t, out)
				}
			})
		}
	}
}

// ciBlocks finds the fenced blocks that follow a comment with a mark and a name.
func ciBlocks(t *testing.T, page, mark string) map[string]string {
	t.Helper()
	blocks := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^<!-- "+mark+": (.+) -->\n```\\w+\n((?s:.*?))^```$").FindAllStringSubmatch(page, -1) {
		if _, twice := blocks[m[1]]; twice {
			t.Errorf("docs/ci.md has %s twice", m[1])
		}
		blocks[m[1]] = m[2]
	}
	if n := strings.Count(page, "<!-- "+mark+":"); n != len(blocks) {
		t.Errorf("docs/ci.md has %d marks %q and %d blocks behind them", n, mark, len(blocks))
	}
	return blocks
}

// ciService starts the service of the recipes and gives the environment that leads
// to it.
func ciService(t *testing.T) []string {
	t.Helper()
	server, err := emulator.Start(context.WithoutCancel(t.Context()), emulator.Config{
		Targets: []emulator.Target{{ID: exampleTarget}},
		Shell:   []string{"/bin/sh"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("the emulator does not stop: %v", err)
		}
	})
	key, secret := server.Credentials()
	return []string{
		"AWS_ENDPOINT_URL=" + server.URL(), "AWS_REGION=" + emulator.DefaultRegion,
		"AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=" + secret,
	}
}

// ciWorkspace is the directory that a job runs in, and what is the target's.
type ciWorkspace struct {
	dir string // with what the page says is in it
	bin string // programs of the runner's
	app string // the directory to deploy to
}

func newCIWorkspace(t *testing.T, deploy, recipe string) ciWorkspace {
	t.Helper()
	w := ciWorkspace{t.TempDir(), t.TempDir(), t.TempDir()}
	if err := os.Mkdir(filepath.Join(w.dir, "site"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(w.dir, "site", "index.html"): "<p>hello\n",
		filepath.Join(w.dir, "deploy.sh"):          deploy,
		filepath.Join(w.dir, "Makefile"):           recipe,
		// Nothing is installed: what is to be tested is there.
		filepath.Join(w.bin, "go"): "#!/bin/sh\n" +
			`test "$*" = "install github.com/ssmsession/ssmsession/cmd/ssmsession@latest"` + "\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// run runs a job and gives its output, up to the first script that fails.
func (w ciWorkspace) run(t *testing.T, job ciJob, service []string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	env := childEnv(job.env...)
	env = append(env, service...)
	env = append(env, "PATH="+w.bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "APP="+w.app, "CI=true",
		"GITHUB_SHA="+ciVersion, "CI_COMMIT_SHA="+ciVersion, "GIT_COMMIT="+ciVersion, "VERSION="+ciVersion)
	var out bytes.Buffer
	for _, script := range job.scripts {
		cmd := exec.CommandContext(ctx, "bash", "-e", "-c", script)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, env, &out, &out
		if err := cmd.Run(); err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

// wantDeployed tells what is missing after a job.
func (w ciWorkspace) wantDeployed(t *testing.T, out string) {
	t.Helper()
	if !strings.Contains(out, "deployed "+ciVersion+"\n") {
		t.Errorf("the script's output is not in the job's:\n%s", out)
	}
	for name, want := range map[string]string{"index.html": "<p>hello\n", "VERSION": ciVersion + "\n"} {
		if got, err := os.ReadFile(filepath.Join(w.app, name)); err != nil || string(got) != want {
			t.Errorf("%s is deployed as %q, %v; want %q", name, got, err, want)
		}
	}
	var kept struct {
		ExitCode *int   `json:"exit_code"`
		Stdout   string `json:"stdout"`
	}
	data, err := os.ReadFile(filepath.Join(w.dir, "deploy.json"))
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil || kept.ExitCode == nil || *kept.ExitCode != 0 || kept.Stdout != ciVersion+"\n" {
		t.Errorf("deploy.json is not the document of a command that printed the version: %v\n%s", err, data)
	}
}

// readActions takes the run lines, each a script of its own, and env.
func readActions(t *testing.T, text string) ciJob {
	t.Helper()
	var job ciJob
	lines := yamlLines(t, text)
	for i, line := range lines {
		switch key, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "- "), ":"); {
		case key == "run" && value != "":
			job.scripts = append(job.scripts, yamlText(t, value, yamlChildren(lines, i)))
		case key == "env":
			job.env = append(job.env, yamlVariables(t, yamlChildren(lines, i))...)
		}
	}
	return job
}

// readGitLab takes before_script and script, which are one, and variables.
func readGitLab(t *testing.T, text string) ciJob {
	t.Helper()
	var job ciJob
	var script []string
	lines := yamlLines(t, text)
	for i, line := range lines {
		switch strings.TrimSpace(line) {
		case "before_script:", "script:":
			items := yamlChildren(lines, i)
			for j, item := range items {
				if value, ok := strings.CutPrefix(strings.TrimSpace(item), "-"); ok {
					script = append(script, yamlText(t, value, yamlChildren(items, j)))
				}
			}
		case "variables:":
			job.env = append(job.env, yamlVariables(t, yamlChildren(lines, i))...)
		}
	}
	job.scripts = []string{strings.Join(script, "\n")}
	return job
}

// readJenkins takes the steps sh, each a script of its own, and environment.
func readJenkins(t *testing.T, text string) ciJob {
	t.Helper()
	if strings.Count(text, "{") != strings.Count(text, "}") || strings.Count(text, "'")%2 != 0 {
		t.Error("the Jenkinsfile's braces and quotes are not paired")
	}
	if strings.Contains(text, `\`) {
		t.Error(`the Jenkinsfile has a \ in it, which Groovy reads before a shell does`)
	}
	var job ciJob
	for _, m := range regexp.MustCompile(`(?ms)^ +sh (?:'''(.*?)'''|'([^'\n]+)')$`).FindAllStringSubmatch(text, -1) {
		job.scripts = append(job.scripts, m[1]+m[2])
	}
	if n := strings.Count(text, " sh '"); n != len(job.scripts) {
		t.Errorf("the Jenkinsfile has %d steps sh, and %d can be read", n, len(job.scripts))
	}
	environment := regexp.MustCompile(`(?s)environment \{(.*?)\}`).FindStringSubmatch(text)
	if environment == nil {
		t.Fatal("the Jenkinsfile has no environment")
	}
	for _, m := range regexp.MustCompile(`(?m)^ +(\w+) = '(.*)'$`).FindAllStringSubmatch(environment[1], -1) {
		job.env = append(job.env, m[1]+"="+m[2])
	}
	return job
}

// readMakefile leaves the reading to make.
func readMakefile(*testing.T, string) ciJob { return ciJob{scripts: []string{"make deploy"}} }

// yamlLines are the lines of the part of YAML that is read here: block mappings and
// sequences, plain and quoted scalars, literal blocks.
func yamlLines(t *testing.T, text string) []string {
	t.Helper()
	if strings.Contains(text, "\t") {
		t.Error("YAML takes no tabs for indentation")
	}
	return slices.Collect(strings.Lines(text))
}

// yamlChildren are the lines behind line i that are indented more.
func yamlChildren(lines []string, i int) []string {
	end := i + 1
	for end < len(lines) && (strings.TrimSpace(lines[end]) == "" || indent(lines[end]) > indent(lines[i])) {
		end++
	}
	return lines[i+1 : end]
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// yamlText is the value of a scalar: what follows its key, or the block below.
func yamlText(t *testing.T, value string, block []string) string {
	t.Helper()
	value = strings.TrimSpace(value)
	if value == "|" && len(block) > 0 {
		var text strings.Builder
		for _, line := range block {
			text.WriteString(line[min(len(line)-1, indent(block[0])):])
		}
		return text.String()
	}
	if value == "" || strings.ContainsAny(value[:1], "\"'|>&*!%@`{[#") || strings.Contains(value, ": ") || strings.Contains(value, " #") {
		t.Errorf("to YAML, %q is not the text that it looks like", value)
	}
	return value
}

// yamlVariables reads a mapping of names to values.
func yamlVariables(t *testing.T, lines []string) []string {
	t.Helper()
	var env []string
	for _, line := range lines {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			t.Errorf("%q is not a variable and its value", line)
			continue
		}
		env = append(env, name+"="+yamlText(t, value, nil))
	}
	return env
}
