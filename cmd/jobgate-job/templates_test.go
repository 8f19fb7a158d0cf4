package main_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestTemplates holds that every template parses, starts the helper, and says how far it was tried.
func TestTemplates(t *testing.T) {
	files, err := filepath.Glob("../../ci-templates/*.yml")
	if err != nil || len(files) < 5 {
		t.Fatalf("templates: %v, %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		if !strings.Contains(text, "# Tried with ") || !strings.Contains(text, "jobgate-job exec -- ") {
			t.Errorf("%s does not say how far it was tried, or starts no helper", file)
		}
		documents := 0
		for d := yaml.NewDecoder(strings.NewReader(text)); ; documents++ {
			var into map[string]any
			if err := d.Decode(&into); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		if documents == 0 {
			t.Errorf("%s is empty", file)
		}
	}
}
