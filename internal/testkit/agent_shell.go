package testkit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Shell plays the machine of a CI job for an agent's Bash tool. It runs no
// program and touches no file: echo, printf, cat, ls, pwd, true, false, make
// test and npm ci are played, `>` and `>>` write into files that exist in
// memory only, `&&` and `;` chain, and every other command is "not found".
type Shell struct {
	mu    sync.Mutex // guards all below
	files map[string]string
	ran   []string
}

// NewShell is a shell in a working copy with a Makefile and a README.
func NewShell() *Shell {
	return &Shell{files: map[string]string{
		"Makefile":  "test:\n\tgo test ./...\n",
		"README.md": "# octo-repo\n",
	}}
}

// Ran lists the command lines that were started, played or not.
func (s *Shell) Ran() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ran)
}

// Files are the files that there are now, by name.
func (s *Shell) Files() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files)
}

// bashName is the one tool that the agent has.
const bashName = "Bash"

// bashTool is the tool as the agent offers it.
func bashTool() map[string]any {
	return map[string]any{
		"name":        bashName,
		"description": "Runs a shell command in the job's working copy.",
		"input_schema": map[string]any{
			"type":       "object",
			"properties": map[string]any{"command": map[string]any{"type": "string"}},
			"required":   []string{"command"},
		},
	}
}

// use answers a tool use: the result's text, and whether it is an error. An
// unknown tool reads as Claude Code puts it.
func (s *Shell) use(use ToolUse) (string, bool) {
	if use.Name != bashName {
		return fmt.Sprintf("<tool_use_error>Error: No such tool available: %s</tool_use_error>", use.Name), true
	}
	var input struct{ Command string }
	if err := json.Unmarshal([]byte(use.Input), &input); err != nil || input.Command == "" {
		return "<tool_use_error>InputValidationError: The required parameter `command` is missing</tool_use_error>", true
	}
	return s.Run(input.Command)
}

// Run plays a command line, and returns what it prints and whether it failed.
func (s *Shell) Run(line string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ran = append(s.ran, line)
	words, err := splitWords(line)
	if err != nil {
		return "bash: " + err.Error(), true
	}
	var out strings.Builder
	failed := false
	for len(words) > 0 {
		end := slices.IndexFunc(words, func(w word) bool { return w.operator && (w.text == "&&" || w.text == ";") })
		command, operator := words, ""
		words = nil
		if end >= 0 {
			command, operator, words = command[:end], command[end].text, command[end+1:]
		}
		printed, ok := s.commandLocked(command)
		out.WriteString(printed)
		if failed = !ok; failed && operator == "&&" {
			break
		}
	}
	return strings.TrimSuffix(out.String(), "\n"), failed
}

// commandLocked plays one command with its redirection.
func (s *Shell) commandLocked(words []word) (string, bool) {
	var args []string
	target, add := "", false
	for n := 0; n < len(words); n++ {
		switch w := words[n]; {
		case !w.operator:
			args = append(args, w.text)
		case (w.text == ">" || w.text == ">>") && n+1 < len(words) && !words[n+1].operator:
			target, add = words[n+1].text, w.text == ">>"
			n++
		default:
			return fmt.Sprintf("bash: syntax error near unexpected token `%s'\n", w.text), false
		}
	}
	if len(args) == 0 {
		return "", true
	}
	printed, ok := s.builtinLocked(args)
	if target == "" || !ok {
		return printed, ok
	}
	if add {
		printed = s.files[target] + printed
	}
	s.files[target] = printed
	return "", true
}

func (s *Shell) builtinLocked(args []string) (string, bool) {
	switch name := args[0]; {
	case name == "echo":
		return strings.Join(args[1:], " ") + "\n", true
	case name == "printf" && len(args) > 1:
		return strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(args[1]), true
	case name == "pwd":
		return "/home/runner/work/octo-repo/octo-repo\n", true
	case name == "true" || name == "false":
		return "", name == "true"
	case name == "ls":
		return strings.Join(slices.Sorted(maps.Keys(s.files)), "\n") + "\n", true
	case name == "cat":
		return s.catLocked(args[1:])
	case slices.Equal(args, []string{"make", "test"}):
		return "go test ./...\nok  \tgithub.com/octo-org/octo-repo\t0.412s\n", true
	case slices.Equal(args, []string{"npm", "ci"}):
		return "added 108 packages in 2s\n", true
	default:
		return fmt.Sprintf("bash: %s: command not found\n", name), false
	}
}

func (s *Shell) catLocked(names []string) (string, bool) {
	var out strings.Builder
	for _, name := range names {
		text, ok := s.files[name]
		if !ok {
			return out.String() + fmt.Sprintf("cat: %s: No such file or directory\n", name), false
		}
		out.WriteString(text)
	}
	return out.String(), true
}

// word is one word of a command line; operators are never quoted.
type word struct {
	text     string
	operator bool
}

// splitWords splits a line at blanks and operators, and takes quotes and
// backslashes away. Nothing is expanded.
func splitWords(line string) ([]word, error) {
	var words []word
	for rest := strings.TrimLeft(line, " \t\n"); rest != ""; rest = strings.TrimLeft(rest, " \t\n") {
		if op := operatorAt(rest); op != "" {
			words = append(words, word{op, true})
			rest = rest[len(op):]
			continue
		}
		text, after, err := firstWord(rest)
		if err != nil {
			return nil, err
		}
		words = append(words, word{text, false})
		rest = after
	}
	return words, nil
}

func operatorAt(s string) string {
	for _, op := range []string{"&&", "||", ">>", ">", "<", "|", "&", ";", "(", ")"} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// firstWord reads up to the first unquoted blank or operator.
func firstWord(s string) (text, rest string, err error) {
	var out strings.Builder
	for n := 0; n < len(s); n++ {
		switch c := s[n]; {
		case c == '\'' || c == '"':
			end := strings.IndexByte(s[n+1:], c)
			if end < 0 {
				return "", "", fmt.Errorf("unexpected EOF while looking for matching `%c'", c)
			}
			out.WriteString(s[n+1 : n+1+end])
			n += 1 + end
		case c == '\\' && n+1 < len(s):
			n++
			out.WriteByte(s[n])
		case strings.IndexByte(" \t\n", c) >= 0 || operatorAt(s[n:]) != "":
			return out.String(), s[n:], nil
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), "", nil
}
