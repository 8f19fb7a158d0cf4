package federation

import (
	"strconv"

	"github.com/jobgate/jobgate/proxy/record"
)

// scopeKept bounds how many connections are kept of what somebody asks for.
const scopeKept = 64

// noName stands for what cannot be a name: anybody can put anything there, a secret by mistake.
const noName = "(no name)"

// quotedName is a name that somebody asked for, in a message.
func quotedName(name string) string {
	if !validName.MatchString(name) {
		return "of that name; names are letters, digits and hyphens"
	}
	return strconv.Quote(name)
}

// askedFor is what is kept of what somebody asked for.
func askedFor(mapping string, scope []string) record.Asked {
	kept := func(name string) string {
		if name != "" && !validName.MatchString(name) {
			return noName
		}
		return name
	}
	out := record.Asked{Mapping: kept(mapping)}
	for _, s := range scope[:min(len(scope), scopeKept)] {
		out.Scope = append(out.Scope, kept(s))
	}
	return out
}
