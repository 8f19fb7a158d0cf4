package main_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/jobgate/jobgate/"

// row is the house, from the ground up. An import goes down: never sideways, never up. So the three verbs do not know
// one another, nor where their rows are kept: they meet in serve.go.
var row = map[string]int{
	// Nouns and pure mechanisms. They import nothing of ours.
	"internal/access":  0,
	"internal/api":     0,
	"internal/dial":    0,
	"internal/signing": 0,
	"proxy/mask":       0,
	"proxy/record":     0,
	"proxy/upstream":   0,

	"internal/cond": 1,
	"proxy/dialect": 1,
	"proxy/inject":  1,
	// The job's helper stands this low because it links no server code.
	"cmd/jobgate-job": 1,

	"proxy/guard": 2,

	// The verbs, and what touches a product.
	"federation":         3,
	"proxy":              3,
	"approvals":          3,
	"approvals/slackapp": 3,
	"internal/store":     3,
	"internal/archive":   3,

	// The listeners, and the outside world in small.
	"internal/httpd":           4,
	"internal/testkit":         4,
	"internal/testkit/clients": 4,

	"cmd/jobgate": 5,
}

// home says who may import a foreign product: a product is replaced, and its errors and its types are understood, in one
// place. The longest prefix of an import path counts. What is not named here nobody may import.
var home = map[string][]string{
	"github.com/coreos/go-oidc/v3":        {"federation", "internal/httpd"},
	"github.com/go-jose/go-jose/v4":       {"federation", "internal/signing", "internal/testkit"},
	"github.com/google/go-github":         {"federation"},
	"github.com/gin-gonic/gin":            {"internal/httpd"},
	"github.com/slack-go/slack":           {"approvals/slackapp"},
	"cel.dev/cel-go":                      {"internal/cond"},
	"gocloud.dev/blob":                    {"internal/archive", "cmd/jobgate"},
	"gocloud.dev/blob/azureblob":          {"cmd/jobgate"},
	"gocloud.dev/blob/fileblob":           {"cmd/jobgate"},
	"gocloud.dev/blob/gcsblob":            {"cmd/jobgate"},
	"gocloud.dev/blob/memblob":            {"cmd/jobgate"},
	"gocloud.dev/blob/s3blob":             {"cmd/jobgate"},
	"gocloud.dev/runtimevar":              {"cmd/jobgate"},
	"github.com/fsnotify/fsnotify":        {"cmd/jobgate"},
	"gocloud.dev/gcerrors":                {"internal/archive"},
	"github.com/klauspost/compress/zstd":  {"internal/archive"},
	"database/sql":                        {"internal/store"},
	"modernc.org/sqlite":                  {"internal/store"},
	"go.yaml.in/yaml/v3":                  {"internal/api", "cmd/jobgate"},
	"golang.org/x/net/http/httpguts":      {"proxy/inject", "proxy/upstream"},
	"golang.org/x/sync/singleflight":      {"federation"},
	"golang.org/x/sync/errgroup":          {"cmd/jobgate"},
	"golang.org/x/term":                   {"cmd/jobgate"},
	"github.com/spf13/cobra":              {"cmd/jobgate"},
	"github.com/prometheus/client_golang": {"cmd/jobgate"},
}

type goPackage struct {
	ImportPath string
	Imports    []string // those of test files are not among them
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("read what go list says: %v", err)
		}
		list = append(list, p)
	}
}

func TestImports(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		if _, known := row[name]; !known {
			t.Errorf("package %s has no row: give it one in deps_test.go, or make it a file of a package that has", name)
			continue
		}
		for _, imported := range p.Imports {
			if broken := judge(name, imported); broken != "" {
				t.Error(broken)
			}
		}
	}
	for name := range row {
		if !seen[name] {
			t.Errorf("package %s has a row in deps_test.go, but is not there: take the row out", name)
		}
	}
}

// judge says what is wrong with an import, "" where nothing is.
func judge(name, imported string) string {
	if other, ours := strings.CutPrefix(imported, module); ours {
		if below, known := row[other]; known && below >= row[name] {
			return name + " imports " + other + ", which does not lie below it: declare an interface beside the caller, or move what both speak of down to internal/access"
		}
		return ""
	}
	homes, named := homesOf(imported)
	switch {
	case named && !slices.Contains(homes, name):
		return name + " imports " + imported + ", whose home is " + strings.Join(homes, " and ") + ": ask that package for what is needed"
	case !named && foreign(imported):
		return name + " imports " + imported + ", which has no home: use the standard library, or give it one in deps_test.go"
	}
	return ""
}

func homesOf(imported string) ([]string, bool) {
	for path := imported; path != ""; {
		if homes, ok := home[path]; ok {
			return homes, true
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return nil, false
}

// foreign reports whether an import is not of the standard library, whose paths have no dot in their first element.
func foreign(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return strings.Contains(first, ".")
}

func TestImportRules(t *testing.T) {
	for _, c := range []struct {
		name, imported string
		broken         bool
	}{
		{"proxy", "net/http", false},
		{"proxy", module + "proxy/guard", false},
		{"proxy", module + "federation", true},
		{"proxy", module + "internal/store", true},
		{"federation", module + "internal/httpd", true},
		{"internal/access", module + "proxy/mask", true},
		{"internal/httpd", "github.com/gin-gonic/gin/binding", false},
		{"proxy", "github.com/gin-gonic/gin", true},
		{"internal/archive", "gocloud.dev/blob/s3blob", true},
		{"cmd/jobgate", "gocloud.dev/blob/s3blob", false},
		{"cmd/jobgate", "database/sql", true},
		{"proxy", "example.com/anything", true},
	} {
		if got := judge(c.name, c.imported); (got != "") != c.broken {
			t.Errorf("judge(%s, %s) = %q, broken should be %v", c.name, c.imported, got, c.broken)
		}
	}
}
