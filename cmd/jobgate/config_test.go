package main

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jobgate/jobgate/internal/api"
)

var updateConfig = flag.Bool("update-config", false, "write what the bad configurations are answered with into testdata/config")

// fakeEnv is the environment that configurations of tests refer to.
func fakeEnv(name string) string {
	return map[string]string{
		"ANTHROPIC_API_KEY": "sk-ant-api03-of-the-test", "JOBGATE_ADMIN_TOKEN": "admin-token-of-the-test",
		"SLACK_BOT_TOKEN": "xoxb-of-the-test", "SLACK_SIGNING_SECRET": "signing-secret-of-the-test",
		"KEY": "a-key-of-the-test", "SHORT": "abc", "ADMIN": "admin-token-of-the-test",
	}[name]
}

func buildFile(file string) (*built, error) {
	c, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	return buildConfig(c, environment{Getenv: fakeEnv}, slog.New(slog.DiscardHandler))
}

// Every file of testdata/config is refused, with the text beside it.
func TestBadConfigs(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "config"))
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			_, err := buildFile(file)
			if err == nil {
				t.Fatal("it was taken")
			}
			beside := strings.TrimSuffix(file, ".yaml") + ".want"
			if *updateConfig {
				if err := os.WriteFile(beside, []byte(err.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(beside)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			for _, secret := range []string{"sk-ant-api03-literal", fakeEnv("KEY"), fakeEnv("ADMIN")} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the answer shows a secret: %v", err)
				}
			}
		})
	}
}

func TestNoConfig(t *testing.T) {
	if _, err := loadConfig(filepath.Join(t.TempDir(), "jobgate.yaml")); err == nil || !strings.Contains(err.Error(), "name it with -c") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := parseConfig(filepath.Join("some", "folder", "jobgate.yaml"), []byte("public_url: https://jobgate.example.com/\n"))
	if err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.Abs(filepath.Join("some", "folder", "archive"))
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		PublicURL: "https://jobgate.example.com", Listen: ":8080", Data: filepath.Join("some", "folder"), Store: "sqlite:jobgate.db",
		Archive: archiveConfig{Bucket: "file://" + folder, OnBacklog: "refuse", Durability: "process"}, Log: logConfig{Format: "text", Level: "info"},
	}
	c.file, c.digest, c.root = "", "", nil
	if diff := cmp.Diff(want, *c, cmp.AllowUnexported(config{})); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

const exampleFile = "../../jobgate.example.yaml"

func TestExampleConfig(t *testing.T) {
	b, err := buildFile(exampleFile)
	if err != nil {
		t.Fatalf("the example is not taken:\n%v", err)
	}
	if len(b.config.Mappings) != 2 || len(b.connections) != 1 || len(b.groups) != 1 || b.adminToken.IsZero() || b.slackToken.IsZero() {
		t.Errorf("the example is not what it says: %+v", b)
	}
}

// The example and the reference show every key that there is, and the reference no other.
func TestEveryKeyIsShown(t *testing.T) {
	keys := make(map[string]bool)
	collectKeys(reflect.TypeFor[config](), keys)
	for file, shown := range map[string]string{exampleFile: `(?m)(?:^[# ]*(?:- )?|[{,] ?|or )%s:`, "../../docs/configuration.md": "`%s`"} {
		text := readText(t, file)
		for key := range keys {
			if !regexp.MustCompile(strings.ReplaceAll(shown, "%s", key)).MatchString(text) {
				t.Errorf("%s does not show the key %q", file, key)
			}
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`").FindAllStringSubmatch(readText(t, "../../docs/configuration.md"), -1) {
		if !keys[row[1]] {
			t.Errorf("docs/configuration.md explains the key %q, which there is not", row[1])
		}
	}
}

func collectKeys(t reflect.Type, keys map[string]bool) {
	switch {
	case t == reflect.TypeFor[api.Values](), t == reflect.TypeFor[api.Duration]():
	case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		collectKeys(t.Elem(), keys)
	case t.Kind() == reflect.Struct:
		for name, field := range yamlFields(t) {
			keys[name] = true
			collectKeys(field, keys)
		}
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// The texts of the documentation are good: a block of YAML is a configuration, or a part of one, that is taken; or it is
// one of the workflows in docs/workflows, which lint reads.
func TestDocumentedYAML(t *testing.T) {
	var workflows []string
	files, err := filepath.Glob("../../docs/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	for _, file := range files {
		workflows = append(workflows, readText(t, file))
	}
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(docs, "../../README.md", "../../SECURITY.md") {
		for _, block := range yamlBlock.FindAllStringSubmatch(readText(t, file), -1) {
			if strings.Contains(block[1], "runs-on:") {
				if !slices.Contains(workflows, block[1]) {
					t.Errorf("%s: this workflow is none of docs/workflows:\n%s", file, block[1])
				}
				continue
			}
			if err := takePart(t, block[1]); err != nil {
				t.Errorf("%s: this configuration is not taken: %v\n%s", file, err, block[1])
			}
		}
	}
}

func takePart(t *testing.T, text string) error {
	t.Helper()
	_, err := buildPart(t, text)
	return err
}

// buildPart builds a configuration from a part of one; what it leaves out is the example's.
func buildPart(t *testing.T, text string) (*built, error) {
	t.Helper()
	c, err := parseConfig("block.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	whole, err := loadConfig(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	if c.PublicURL == "" {
		c.PublicURL = whole.PublicURL
	}
	if c.Issuers == nil {
		c.Issuers = whole.Issuers
	}
	if c.Connections == nil {
		c.Connections = whole.Connections
	}
	if c.Approvals.Groups == nil {
		c.Approvals = whole.Approvals
	}
	return buildConfig(c, environment{Getenv: fakeEnv}, slog.New(slog.DiscardHandler))
}
