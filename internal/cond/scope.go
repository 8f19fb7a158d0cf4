package cond

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/jobgate/jobgate/internal/access"
)

// Scope says which names a condition may use. The zero Scope has none.
type Scope uint8

const (
	// Mapping is the scope of a mapping's condition: what the token says.
	Mapping Scope = iota + 1
	// Rule is the scope of a grant's rules: the token, the session, and the call or the tool use.
	Rule
)

// Input is what a condition is evaluated over. What is left out reads as empty, except Call and Tool: a condition
// that uses them without there being one is an error.
type Input struct {
	Claims   access.Claims
	Provider string
	Issuer   string

	Call    *access.Call
	Session Session
	Tool    *Tool
	MCP     map[string]any
	Usage   access.Counts
}

// Session is what a rule may know of the session.
type Session struct {
	ID      string
	Mapping string
	Age     time.Duration
}

// Tool is a tool use that conditions look at. Its input is decoded once, when the first condition asks for it: one Tool
// may be shared by the evaluations of one goroutine.
type Tool struct {
	ID   string
	Name string
	// JSON is the input's text.
	JSON []byte

	decoded bool
	input   any // or the error why there is none
}

// NewTool returns a tool use for conditions.
func NewTool(use access.ToolUse) *Tool { return &Tool{ID: use.ID, Name: use.Name, JSON: use.Input} }

// value returns the decoded input, or an error in its place.
func (t *Tool) value() any {
	if t.decoded {
		return t.input
	}
	t.decoded = true
	dec := json.NewDecoder(bytes.NewReader(t.JSON))
	dec.UseNumber()
	if err := dec.Decode(&t.input); err != nil {
		t.input = fmt.Errorf("tool.input is no JSON: %w", err)
	} else if _, err := dec.Token(); err != io.EOF {
		t.input = errors.New("tool.input is more than one JSON value")
	}
	return t.input
}

// The object types are known to the checker by these names only: no condition can make a value of them.
var (
	callType    = types.NewObjectType("jobgate.Call")
	sessionType = types.NewObjectType("jobgate.Session")
	toolType    = types.NewObjectType("jobgate.Tool")
	usageType   = types.NewObjectType("jobgate.Usage")
	textList    = types.NewListType(types.StringType)
	jsonObject  = types.NewMapType(types.StringType, types.DynType)
)

// variable is a name in scope.
type variable struct {
	name  string
	kind  *types.Type
	scope Scope // the smallest that has it
	value func(*activation) any
}

// self stands for an object: its fields are read from the activation, so that nothing is copied for an evaluation.
func self(a *activation) any { return a }

var variables = []variable{
	{"claims", jsonObject, Mapping, func(a *activation) any { return map[string]any(a.Claims) }},
	{"provider", types.StringType, Mapping, func(a *activation) any { return a.Provider }},
	{"issuer", types.StringType, Mapping, func(a *activation) any { return a.Issuer }},
	{"call", callType, Rule, self},
	{"session", sessionType, Rule, self},
	{"model", types.StringType, Rule, func(a *activation) any { return a.call().Model }},
	{"tools", textList, Rule, func(a *activation) any { return a.call().Tools }},
	{"tool", toolType, Rule, self},
	{"mcp", jsonObject, Rule, func(a *activation) any { return a.MCP }},
	{"usage", usageType, Rule, self},
}

// fields are the objects' fields. A value that cannot be had is returned as an error.
var fields = map[string]map[string]field{
	callType.TypeName(): {
		"connection": {types.StringType, onCall(func(c *access.Call) any { return c.Connection })},
		"kind":       {types.StringType, onCall(func(c *access.Call) any { return c.Kind })},
		"method":     {types.StringType, onCall(func(c *access.Call) any { return c.Method })},
		"path":       {types.StringType, onCall(func(c *access.Call) any { return c.Path })},
		"query":      {types.StringType, onCall(func(c *access.Call) any { return c.Query })},
		"bytes":      {types.IntType, onCall(func(c *access.Call) any { return c.Bytes })},
		"stream":     {types.BoolType, onCall(func(c *access.Call) any { return c.Stream })},
		"max_tokens": {types.IntType, onCall(func(c *access.Call) any { return c.MaxTokens })},
		"features":   {textList, onCall(func(c *access.Call) any { return c.Features })},
	},
	sessionType.TypeName(): {
		"id":          {types.StringType, func(a *activation) any { return a.Session.ID }},
		"mapping":     {types.StringType, func(a *activation) any { return a.Session.Mapping }},
		"age_seconds": {types.IntType, func(a *activation) any { return int64(a.Session.Age / time.Second) }},
	},
	toolType.TypeName(): {
		"id":    {types.StringType, onTool(func(t *Tool) any { return t.ID })},
		"name":  {types.StringType, onTool(func(t *Tool) any { return t.Name })},
		"input": {types.DynType, onTool((*Tool).value)},
	},
	usageType.TypeName(): {
		"requests":      {types.IntType, func(a *activation) any { return a.Usage.Requests }},
		"input_tokens":  {types.IntType, func(a *activation) any { return a.Usage.InputTokens }},
		"output_tokens": {types.IntType, func(a *activation) any { return a.Usage.OutputTokens }},
	},
}

type field struct {
	kind  *types.Type
	value func(*activation) any
}

func onCall(value func(*access.Call) any) func(*activation) any {
	return func(a *activation) any {
		if a.Call == nil {
			return errors.New("there is no call here")
		}
		return value(a.Call)
	}
}

func onTool(value func(*Tool) any) func(*activation) any {
	return func(a *activation) any {
		if a.Tool == nil {
			return errors.New("there is no tool use here")
		}
		return value(a.Tool)
	}
}

// activation gives one evaluation its values.
type activation struct{ Input }

var noCall access.Call

func (a *activation) call() *access.Call {
	if a.Call == nil {
		return &noCall
	}
	return a.Call
}

// ResolveName returns a variable's value.
func (a *activation) ResolveName(name string) (any, bool) {
	for i := range variables {
		if variables[i].name == name {
			return variables[i].value(a), true
		}
	}
	return nil, false
}

// Parent returns nil: there is one level of names.
func (a *activation) Parent() interpreter.Activation { return nil }

// provider tells the checker which fields the objects have, and the interpreter how to read them.
type provider struct{ *types.Registry }

func (p provider) FindStructType(object string) (*types.Type, bool) {
	if _, ok := fields[object]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(object)), true
	}
	return p.Registry.FindStructType(object)
}

func (p provider) FindStructFieldNames(object string) ([]string, bool) {
	known, ok := fields[object]
	if !ok {
		return p.Registry.FindStructFieldNames(object)
	}
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	return names, true
}

func (p provider) FindStructFieldType(object, name string) (*types.FieldType, bool) {
	known, ok := fields[object]
	if !ok {
		return p.Registry.FindStructFieldType(object, name)
	}
	f, ok := known[name]
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type:    f.kind,
		IsSet:   func(any) bool { return true },
		GetFrom: f.read,
	}, true
}

func (f field) read(target any) (any, error) {
	a, ok := target.(*activation)
	if !ok {
		return nil, fmt.Errorf("no object of a condition: %T", target)
	}
	value := f.value(a)
	if err, failed := value.(error); failed {
		return nil, err
	}
	return value, nil
}

// adapter converts JSON as the tokens and the models write it: a number that is whole and fits is an int, any other a
// double.
type adapter struct{ *types.Registry }

func (d adapter) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case string:
		return types.String(v)
	case bool:
		return types.Bool(v)
	case int64:
		return types.Int(v)
	case json.Number:
		return number(v)
	case map[string]any:
		return types.NewStringInterfaceMap(d, v)
	case []any:
		return types.NewDynamicList(d, v)
	case []string:
		return types.NewStringList(d, v)
	case *activation:
		return types.NewErr("an object is no value here; name one of its fields")
	}
	return d.Registry.NativeToValue(value)
}

func number(n json.Number) ref.Val {
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return types.Int(i)
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return types.NewErr("number %s is out of range", n)
	}
	return types.Double(f)
}
