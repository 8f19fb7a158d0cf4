package httpd_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// schemaTypes are the types behind the description's schemas. A schema of an object that is not here fails the test.
var schemaTypes = map[string]reflect.Type{
	"Problem":            reflect.TypeFor[api.Problem](),
	"MappingList":        reflect.TypeFor[api.MappingList](),
	"SourceView":         reflect.TypeFor[api.SourceView](),
	"MappingView":        reflect.TypeFor[api.MappingView](),
	"Origin":             reflect.TypeFor[api.Origin](),
	"Mapping":            reflect.TypeFor[api.Mapping](),
	"Override":           reflect.TypeFor[api.Override](),
	"PathCondition":      reflect.TypeFor[api.PathCondition](),
	"Window":             reflect.TypeFor[api.Window](),
	"Grant":              reflect.TypeFor[api.Grant](),
	"Limits":             reflect.TypeFor[api.Limits](),
	"Mask":               reflect.TypeFor[api.Mask](),
	"Rule":               reflect.TypeFor[api.Rule](),
	"MappingPreview":     reflect.TypeFor[api.MappingPreview](),
	"SessionEnding":      reflect.TypeFor[api.SessionEnding](),
	"ExplainRequest":     reflect.TypeFor[api.ExplainRequest](),
	"PlanRequest":        reflect.TypeFor[api.PlanRequest](),
	"Plan":               reflect.TypeFor[api.Plan](),
	"PlanChange":         reflect.TypeFor[api.PlanChange](),
	"PlanGroups":         reflect.TypeFor[api.PlanGroups](),
	"PlanGroup":          reflect.TypeFor[api.PlanGroup](),
	"Explanation":        reflect.TypeFor[api.Explanation](),
	"ExplainRefusal":     reflect.TypeFor[api.ExplainRefusal](),
	"ExchangeView":       reflect.TypeFor[api.ExchangeView](),
	"MappingExplanation": reflect.TypeFor[api.MappingExplanation](),
	"MappingCondition":   reflect.TypeFor[api.MappingCondition](),
	"MappingFix":         reflect.TypeFor[api.MappingFix](),
	"SessionList":        reflect.TypeFor[api.List[api.SessionView]](),
	"SessionView":        reflect.TypeFor[api.SessionView](),
	"StopList":           reflect.TypeFor[api.List[api.StopView]](),
	"StopRequest":        reflect.TypeFor[api.StopRequest](),
	"StopView":           reflect.TypeFor[api.StopView](),
	"StopChange":         reflect.TypeFor[api.StopChange](),
	"MappingHits":        reflect.TypeFor[api.MappingHits](),
	"ExchangeUse":        reflect.TypeFor[api.ExchangeUse](),
	"Enforcement":        reflect.TypeFor[api.Enforcement](),
	"RuleHits":           reflect.TypeFor[api.RuleHits](),
	"HitSample":          reflect.TypeFor[api.HitSample](),
	"HookResult":         reflect.TypeFor[api.HookResult](),
	"Job":                reflect.TypeFor[access.Job](),
	"Usage":              reflect.TypeFor[api.Usage](),
	"Tally":              reflect.TypeFor[api.Tally](),
	"ApprovalList":       reflect.TypeFor[api.List[api.ApprovalView]](),
	"ApprovalView":       reflect.TypeFor[api.ApprovalView](),
	"Vote":               reflect.TypeFor[api.Vote](),
	"DryRun":             reflect.TypeFor[api.DryRun](),
	"Token":              reflect.TypeFor[api.Token](),
	"Connection":         reflect.TypeFor[api.Connection](),
	"OAuthError":         reflect.TypeFor[api.OAuthError](),
	"Introspection":      reflect.TypeFor[api.Introspection](),
	"Span":               reflect.TypeFor[api.Span](),
	"Approvals":          reflect.TypeFor[api.Approvals](),
	"ConnectionUsage":    reflect.TypeFor[api.ConnectionUsage](),
	"Denial":             reflect.TypeFor[api.Denial](),
}

// optional are properties that a struct always writes and a sender may leave out.
var optional = map[string]bool{"Mapping.name": true}

type object = map[string]any

func description(t *testing.T) object {
	t.Helper()
	raw, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc object
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func at(t *testing.T, v any, path ...string) object {
	t.Helper()
	for _, key := range path {
		o, ok := v.(object)
		if !ok {
			t.Fatalf("%s: there is no object above %q", strings.Join(path, "."), key)
		}
		v = o[key]
	}
	o, ok := v.(object)
	if !ok {
		t.Fatalf("%s is no object", strings.Join(path, "."))
	}
	return o
}

var methods = []string{"get", "put", "post", "delete", "patch", "head", "options", "trace"}

// described returns "METHOD /path" of a side's operations.
func described(t *testing.T, doc object, side string) []string {
	t.Helper()
	var out []string
	for path, item := range at(t, doc, "paths") {
		for method, operation := range item.(object) {
			if slices.Contains(methods, method) && slices.Contains(operation.(object)["tags"].([]any), any(side)) {
				out = append(out, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(out)
	return out
}

// served turns gin's routes into the description's form.
func served(routes []string) []string {
	var out []string
	for _, route := range routes {
		parts := strings.Split(route, "/")
		for i, p := range parts {
			if name, ok := strings.CutPrefix(p, ":"); ok {
				parts[i] = "{" + name + "}"
			}
		}
		out = append(out, strings.Join(parts, "/"))
	}
	slices.Sort(out)
	return out
}

func TestRoutesAreDescribed(t *testing.T) {
	doc := description(t)
	if diff := cmp.Diff(served(newWorld(t).people().Routes()), described(t, doc, "people")); diff != "" {
		t.Errorf("the people's side (-served +described):\n%s", diff)
	}
	w := jobsWorld{}
	// The door of a connection is no route: the way of a call opens it.
	want := append(served(w.jobs().Routes()), "POST /{connection}/v1/oauth/token")
	slices.Sort(want)
	if diff := cmp.Diff(want, described(t, doc, "jobs")); diff != "" {
		t.Errorf("the jobs' side (-served +described):\n%s", diff)
	}
}

func TestOperationsAreComplete(t *testing.T) {
	ids := make(map[string]bool)
	for path, item := range at(t, description(t), "paths") {
		for method, v := range item.(object) {
			if !slices.Contains(methods, method) {
				continue
			}
			operation := v.(object)
			id, _ := operation["operationId"].(string)
			if id == "" || ids[id] {
				t.Errorf("%s %s: operationId %q is missing or used twice", method, path, id)
			}
			ids[id] = true
			if operation["summary"] == nil || len(at(t, operation, "responses")) == 0 {
				t.Errorf("%s %s: summary or responses are missing", method, path)
			}
			for _, name := range pathParameters(path) {
				list, _ := item.(object)["parameters"].([]any)
				if !slices.ContainsFunc(list, func(p any) bool { return p.(object)["name"] == name }) {
					t.Errorf("%s: the parameter %q is not described", path, name)
				}
			}
		}
	}
}

func pathParameters(path string) []string {
	var out []string
	for _, part := range strings.Split(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			out = append(out, strings.TrimSuffix(name, "}"))
		}
	}
	return out
}

func TestReferencesLeadSomewhere(t *testing.T) {
	doc := description(t)
	walk(doc, "", func(path string, o object) {
		if ref, ok := o["$ref"].(string); ok && resolve(doc, ref) == nil {
			t.Errorf("%s: %s is not there", path, ref)
		}
	})
}

func walk(v any, path string, visit func(string, object)) {
	switch v := v.(type) {
	case object:
		visit(path, v)
		for key, child := range v {
			walk(child, path+"/"+key, visit)
		}
	case []any:
		for i, child := range v {
			walk(child, fmt.Sprintf("%s/%d", path, i), visit)
		}
	}
}

func resolve(doc object, ref string) object {
	var v any = doc
	for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		o, ok := v.(object)
		if !ok {
			return nil
		}
		v = o[key]
	}
	o, _ := v.(object)
	return o
}

func TestSchemasAreTheStructs(t *testing.T) {
	doc := description(t)
	schemas := at(t, doc, "components", "schemas")
	for name, s := range schemas {
		if s.(object)["type"] == "object" && schemaTypes[name] == nil {
			t.Errorf("schema %s has no type here", name)
		}
	}
	for name, typ := range schemaTypes {
		t.Run(name, func(t *testing.T) {
			schema := at(t, schemas, name)
			properties := at(t, schema, "properties")
			required := make(map[string]bool)
			for _, r := range asList(schema["required"]) {
				required[r.(string)] = true
			}
			fields := jsonFields(typ)
			if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(properties))); diff != "" {
				t.Fatalf("properties (-struct +schema):\n%s", diff)
			}
			for key, f := range fields {
				if want := f.always && !optional[name+"."+key]; required[key] != want {
					t.Errorf("%s: required is %v, want %v", key, required[key], want)
				}
				if got, want := schemaType(doc, properties[key].(object)), jsonType(f.typ); want != "" && got != "" && got != want {
					t.Errorf("%s: type %s, the struct writes %s", key, got, want)
				}
			}
		})
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

type jsonField struct {
	typ    reflect.Type
	always bool // written also when empty
}

func jsonFields(t reflect.Type) map[string]jsonField {
	out := make(map[string]jsonField)
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			maps.Copy(out, jsonFields(f.Type))
			continue
		}
		out[name] = jsonField{typ: f.Type, always: !strings.Contains(options, "omitempty")}
	}
	return out
}

func schemaType(doc, schema object) string {
	if ref, ok := schema["$ref"].(string); ok {
		return schemaType(doc, resolve(doc, ref))
	}
	name, _ := schema["type"].(string)
	return name
}

// jsonType is the JSON type of a Go type, "" where it may be several.
func jsonType(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[*time.Time](), reflect.TypeFor[api.Duration]():
		return "string"
	case reflect.TypeFor[api.Values](), reflect.TypeFor[api.LimitsList](), reflect.TypeFor[json.RawMessage]():
		return ""
	}
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Slice:
		return "array"
	case reflect.Map, reflect.Struct:
		return "object"
	}
	return ""
}

// Every example reads into the type of its schema without an unknown property, and has what is required.
func TestExamplesFit(t *testing.T) {
	doc := description(t)
	examples := 0
	walk(doc, "", func(path string, o object) {
		example, ok := o["example"]
		if !ok {
			return
		}
		examples++
		ref, _ := at(t, o, "schema")["$ref"].(string)
		name := ref[strings.LastIndex(ref, "/")+1:]
		typ := schemaTypes[name]
		if typ == nil {
			t.Errorf("%s: the example's schema is none of the structs", path)
			return
		}
		raw, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.DisallowUnknownFields()
		if err := d.Decode(reflect.New(typ).Interface()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, r := range asList(resolve(doc, ref)["required"]) {
			if _, ok := example.(object)[r.(string)]; !ok {
				t.Errorf("%s: %q is required and missing", path, r)
			}
		}
	})
	if examples < 8 {
		t.Errorf("only %d examples were found", examples)
	}
}
