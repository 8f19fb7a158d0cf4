package cond

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

const (
	// maxSource bounds a condition's text. The longest that people write are lists of some hundred commands.
	maxSource = 16 << 10
	// maxCost bounds one evaluation, in CEL's units, of which a string costs one for ten bytes looked at. It leaves room
	// to search several megabytes once, and ends what grows faster than its input within a fraction of a second.
	maxCost = 1_000_000
	// interruptEvery is after how many steps of a loop the context is looked at.
	interruptEvery = 100
)

// Condition is a compiled condition. It is safe for concurrent use.
type Condition struct {
	source  string
	checked *cel.Ast
	full    cel.Program
	partial cel.Program
	names   references
}

// Compile parses and type-checks a condition. Errors name line and column and what stands there.
func Compile(source string, scope Scope) (*Condition, error) {
	env, err := environment(scope)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("the condition is empty; write an expression such as claims.ref == \"refs/heads/main\"")
	}
	checked, issues := env.Compile(source)
	if err := positions(issues); err != nil {
		return nil, err
	}
	if !checked.OutputType().IsExactType(types.BoolType) {
		return nil, fmt.Errorf("the condition is of type %s, not bool; compare it with something", cel.FormatCELType(checked.OutputType()))
	}
	c := &Condition{source: source, checked: checked, names: referencesOf(checked)}
	bounded := []cel.ProgramOption{cel.CostLimit(maxCost), cel.InterruptCheckFrequency(interruptEvery)}
	if c.full, err = env.Program(checked, append(bounded, cel.EvalOptions(cel.OptOptimize))...); err != nil {
		return nil, fmt.Errorf("plan condition: %w", err)
	}
	if c.partial, err = env.Program(checked, append(bounded, cel.EvalOptions(cel.OptOptimize, cel.OptPartialEval))...); err != nil {
		return nil, fmt.Errorf("plan condition: %w", err)
	}
	return c, nil
}

// String returns the condition's text.
func (c *Condition) String() string { return c.source }

// Eval evaluates the condition. An error is an access to what is absent, a comparison that cannot be made, the cost
// limit, or the context's end.
func (c *Condition) Eval(ctx context.Context, in Input) (bool, error) {
	out, _, err := c.full.ContextEval(ctx, &activation{Input: in})
	if err != nil {
		return false, fmt.Errorf("evaluate condition: %w", err)
	}
	match, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("evaluate condition: the result is a %s, not a bool", out.Type().TypeName())
	}
	return bool(match), nil
}

// MayMatchTool reports whether the condition could be true, or fail, for a use of the named tool. It is false only
// when that name alone settles that the condition is false, whatever else holds.
func (c *Condition) MayMatchTool(name string) bool {
	vars, err := cel.PartialVars(&activation{Input: Input{Tool: &Tool{Name: name}}}, unknownButToolName()...)
	if err != nil {
		return true
	}
	out, _, err := c.partial.Eval(vars)
	return err != nil || out != types.False
}

// unknownButToolName is every name and field but tool.name.
func unknownButToolName() []*cel.AttributePatternType {
	var unknown []*cel.AttributePatternType
	for _, v := range variables {
		if v.name != "tool" {
			unknown = append(unknown, cel.AttributePattern(v.name))
		}
	}
	for name := range fields[toolType.TypeName()] {
		if name != "name" {
			unknown = append(unknown, cel.AttributePattern("tool").QualString(name))
		}
	}
	return unknown
}

// environment returns the checker's and the interpreter's view of a scope.
func environment(scope Scope) (*cel.Env, error) {
	switch scope {
	case Mapping:
		return mappingEnv()
	case Rule:
		return ruleEnv()
	}
	return nil, fmt.Errorf("scope %d has no names", scope)
}

var (
	mappingEnv = sync.OnceValues(func() (*cel.Env, error) { return newEnv(Mapping) })
	ruleEnv    = sync.OnceValues(func() (*cel.Env, error) { return newEnv(Rule) })
)

func newEnv(scope Scope) (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("make the condition language: %w", err)
	}
	options := []cel.EnvOption{
		cel.CustomTypeAdapter(adapter{registry}),
		cel.CustomTypeProvider(provider{registry}),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.CrossTypeNumericComparisons(true),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
		ext.Strings(), ext.Lists(), ext.Sets(),
	}
	for _, v := range variables {
		if v.scope <= scope {
			options = append(options, cel.Variable(v.name, v.kind))
		}
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("make the condition language: %w", err)
	}
	return env, nil
}

// positions writes the checker's findings in one line each.
func positions(issues *cel.Issues) error {
	if issues == nil || issues.Err() == nil {
		return nil
	}
	var found []string
	for _, e := range issues.Errors() {
		found = append(found, fmt.Sprintf("line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
	}
	return errors.New(strings.Join(found, "; "))
}
