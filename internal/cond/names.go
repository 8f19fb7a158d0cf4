package cond

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// references are the names in scope that a condition uses, each with the fields that it takes of it.
type references map[string][]string

// Mentions reports whether the condition uses a name in scope, such as "tool". A loop's own variable of that name does
// not count: tools.exists(tool, tool == "Bash") mentions only tools.
func (c *Condition) Mentions(name string) bool {
	_, used := c.names[name]
	return used
}

// Fields returns, sorted, the fields that the condition takes of a name in scope: "ref" of claims for claims.ref,
// claims["ref"], has(claims.ref) and "ref" in claims.
func (c *Condition) Fields(name string) []string { return c.names[name] }

func referencesOf(checked *cel.Ast) references {
	found := references{}
	found.walk(checked.NativeRep().Expr(), nil)
	for name := range found {
		slices.Sort(found[name])
		found[name] = slices.Compact(found[name])
	}
	return found
}

// walk visits an expression under the names that loops around it have bound.
func (r references) walk(e ast.Expr, bound []string) {
	switch e.Kind() {
	case ast.IdentKind:
		r.use(e, "", bound)
	case ast.SelectKind:
		s := e.AsSelect()
		r.use(s.Operand(), s.FieldName(), bound)
		r.walk(s.Operand(), bound)
	case ast.CallKind:
		r.call(e.AsCall(), bound)
	case ast.ListKind:
		r.all(e.AsList().Elements(), bound)
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.all([]ast.Expr{entry.AsMapEntry().Key(), entry.AsMapEntry().Value()}, bound)
		}
	case ast.StructKind:
		for _, entry := range e.AsStruct().Fields() {
			r.walk(entry.AsStructField().Value(), bound)
		}
	case ast.ComprehensionKind:
		r.loop(e.AsComprehension(), bound)
	}
}

func (r references) all(list []ast.Expr, bound []string) {
	for _, e := range list {
		r.walk(e, bound)
	}
}

func (r references) call(c ast.CallExpr, bound []string) {
	args := c.Args()
	if len(args) == 2 {
		switch c.FunctionName() {
		case operators.Index, operators.OptIndex, operators.OptSelect:
			r.use(args[0], literal(args[1]), bound)
		case operators.In, operators.OldIn:
			r.use(args[1], literal(args[0]), bound)
		}
	}
	if c.IsMemberFunction() {
		r.walk(c.Target(), bound)
	}
	r.all(args, bound)
}

func (r references) loop(c ast.ComprehensionExpr, bound []string) {
	r.walk(c.IterRange(), bound)
	r.walk(c.AccuInit(), bound)
	inner := append(slices.Clone(bound), c.AccuVar())
	r.walk(c.Result(), inner)
	inner = append(inner, c.IterVar())
	if c.HasIterVar2() {
		inner = append(inner, c.IterVar2())
	}
	r.walk(c.LoopCondition(), inner)
	r.walk(c.LoopStep(), inner)
}

func (r references) use(e ast.Expr, field string, bound []string) {
	if e.Kind() != ast.IdentKind {
		return
	}
	name := e.AsIdent()
	if slices.Contains(bound, name) {
		return
	}
	name = strings.TrimPrefix(name, ".")
	if !slices.ContainsFunc(variables, func(v variable) bool { return v.name == name }) {
		return
	}
	if field == "" {
		r[name] = append(r[name], []string{}...)
		return
	}
	r[name] = append(r[name], field)
}

func literal(e ast.Expr) string {
	if e.Kind() != ast.LiteralKind {
		return ""
	}
	s, _ := e.AsLiteral().(types.String)
	return string(s)
}
