package cond

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// LooseClaims returns the looks into claims that take more texts than they seem to, as written, each once and sorted: a
// prefix that ends within a name, such as startsWith("refs/heads/main"), which takes refs/heads/main-evil, too; a
// pattern that is not held at both ends; a part or an ending of a text.
func (c *Condition) LooseClaims() []string {
	var found []string
	findLoose(c.checked.NativeRep().Expr(), &found)
	slices.Sort(found)
	return slices.Compact(found)
}

func findLoose(e ast.Expr, found *[]string) {
	if e.Kind() == ast.CallKind {
		if text, loose := looseCall(e.AsCall()); loose {
			*found = append(*found, text)
		}
	}
	for _, child := range children(e) {
		findLoose(child, found)
	}
}

func looseCall(call ast.CallExpr) (text string, loose bool) {
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	if len(args) < 2 || !slices.Contains(textFunctions, call.FunctionName()) || !ofClaims(args[0]) {
		return "", false
	}
	if args[1].Kind() != ast.LiteralKind {
		return call.FunctionName(), true
	}
	literal, ok := args[1].AsLiteral().(types.String)
	if !ok {
		return call.FunctionName(), true
	}
	return fmt.Sprintf("%s(%q)", call.FunctionName(), string(literal)), !held(call.FunctionName(), string(literal))
}

// held reports whether a look takes whole names only.
func held(function, literal string) bool {
	switch function {
	case "startsWith":
		return strings.HasSuffix(literal, "/") || strings.HasSuffix(literal, ":") || strings.HasSuffix(literal, "@")
	case "matches":
		whole := strings.HasPrefix(literal, "^") && strings.HasSuffix(literal, "$") && !strings.HasSuffix(literal, `\$`)
		grouped := strings.HasPrefix(literal, "^(") && strings.HasSuffix(literal, ")$")
		return whole && (grouped || !strings.Contains(literal, "|"))
	}
	return false
}

// ofClaims reports whether an expression is made of claims.
func ofClaims(e ast.Expr) bool {
	if e.Kind() == ast.IdentKind && strings.TrimPrefix(e.AsIdent(), ".") == "claims" {
		return true
	}
	return slices.ContainsFunc(children(e), ofClaims)
}
