package main

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// declared is a mapping that a file says, with its place there.
type declared struct {
	spec   api.Mapping
	doc    *document
	path   string // in the document: "mappings[3]", or "" where the document is one mapping
	origin access.Origin
}

// document is a YAML file that was read.
type document struct {
	file string
	root *yaml.Node
}

// at joins a path in the mapping to the mapping's own.
func (d declared) at(path string) string {
	if path == "" || d.path == "" {
		return d.path + path
	}
	return d.path + "." + path
}

func (d declared) problem(found *problems, path string, err error) {
	at := d.at(path)
	found.addIn(d.doc.file, lineOf(d.doc.root, at), at, "%v", err)
}

// declared returns the mappings that the configuration file itself says.
func (c *config) declared() []declared {
	doc := &document{file: c.file, root: c.root}
	out := make([]declared, 0, len(c.Mappings))
	for i, spec := range c.Mappings {
		out = append(out, declared{spec: spec, doc: doc, path: fmt.Sprintf("mappings[%d]", i), origin: access.Origin{From: c.file, Revision: c.digest}})
	}
	return out
}

// mappingsFile is the format of a file with several mappings.
type mappingsFile struct {
	Mappings []api.Mapping `yaml:"mappings"`
}

// parseMappings reads a file that holds one mapping, or a list of them under the key mappings. A file that holds nothing
// is wrong: it is most often half written.
func parseMappings(file string, raw []byte, found *problems) []declared {
	one := &problems{file: file}
	const empty = "the file is empty; write one mapping into it, or a list under mappings"
	root := parseDocument(raw, empty, one)
	if root != nil && root.Tag == "!!null" {
		one.add(0, "", empty)
	}
	if root == nil || len(one.list) > 0 {
		found.merge(one)
		return nil
	}
	var specs []api.Mapping
	path := func(int) string { return "" }
	if list, line := child(root, "mappings", ""); list != nil {
		if isNothing(list) {
			one.add(line, "mappings", "there is none below it; write mappings: [] for a file without one")
		}
		var f mappingsFile
		decodeInto(root, &f, one)
		specs, path = f.Mappings, func(i int) string { return fmt.Sprintf("mappings[%d]", i) }
	} else {
		var spec api.Mapping
		decodeInto(root, &spec, one)
		specs = []api.Mapping{spec}
	}
	found.merge(one)
	if len(one.list) > 0 {
		return nil
	}
	doc := &document{file: file, root: root}
	out := make([]declared, 0, len(specs))
	for i, spec := range specs {
		out = append(out, declared{spec: spec, doc: doc, path: path(i)})
	}
	return out
}

// decodeInto decodes strictly. The first pass over the document is the decoder's own, which bounds what aliases blow up.
func decodeInto(root *yaml.Node, into any, found *problems) {
	if root.Kind != yaml.MappingNode {
		found.add(root.Line, "", "a section of keys is wanted here: a mapping, or mappings with a list of them")
		return
	}
	var anything any
	if err := root.Decode(&anything); err != nil {
		addDecodeErrors(found, err)
		return
	}
	checkKeys(root, into, found)
	if len(found.list) > 0 {
		return
	}
	if err := root.Decode(into); err != nil {
		addDecodeErrors(found, err)
	}
}

// checkMappings checks all that the files say: each mapping for itself, and that names are unique over all files.
func (b *built) checkMappings(found *problems) {
	seen := make(map[string]declared)
	for _, d := range b.declared {
		if first, twice := seen[d.spec.Name]; twice {
			text := fmt.Errorf("there are two mappings %q", d.spec.Name)
			if first.doc.file != d.doc.file {
				text = fmt.Errorf("there are two mappings %q: the other is at %s:%d", d.spec.Name, first.doc.file, lineOf(first.doc.root, first.at("name")))
			}
			d.problem(found, "name", text)
			continue
		}
		seen[d.spec.Name] = d
		_, err := federation.NewMapping(d.spec, b.mappingConfig())
		var field *api.FieldError
		switch {
		case errors.As(err, &field):
			d.problem(found, field.Path, field.Err)
		case err != nil:
			d.problem(found, "", err)
		}
	}
}

// mappings builds the mappings of the files, which were checked.
func (b *built) mappings() ([]*federation.Mapping, error) {
	var out []*federation.Mapping
	for _, d := range b.declared {
		m, err := federation.NewMapping(d.spec, b.mappingConfig())
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// inFiles is what the files say, as the mappings in force take it.
func (b *built) inFiles() []federation.Declared {
	out := make([]federation.Declared, 0, len(b.declared))
	for _, d := range b.declared {
		out = append(out, federation.Declared{Spec: d.spec, Origin: d.origin})
	}
	return out
}
