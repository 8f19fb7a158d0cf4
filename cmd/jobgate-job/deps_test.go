package main_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps the program small: a job's helper links nothing of the server's.
func TestDependencies(t *testing.T) {
	allowed := []string{
		"github.com/jobgate/jobgate/cmd/jobgate-job", "github.com/jobgate/jobgate/internal/access",
		"github.com/jobgate/jobgate/internal/api", "github.com/jobgate/jobgate/proxy/mask", "go.yaml.in/yaml/v3",
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if !slices.Contains(allowed, path) {
			t.Errorf("jobgate-job links %s", path)
		}
	}
}
