package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// formats are the ways to give variables to a job.
var formats = []string{"shell", "github", "gitlab-dotenv", "json"}

// state is what connect leaves for close: a file (0600) in the session's folder, and where --state says. No token is in it.
type state struct {
	URL       string `json:"url"`
	Mapping   string `json:"mapping"`
	Session   string `json:"session_id"`
	Dir       string `json:"dir"`
	TokenFile string `json:"token_file"`
	Renewal   int    `json:"renewal_pid,omitempty"`
	Joined    bool   `json:"joined,omitempty"`
}

// connect opens the session and gives its variables to the steps of the job that follow.
func connect(ctx context.Context, o *options, _ []string) error {
	format := o.format
	if o.json() {
		format = "json"
	}
	err := connectAs(ctx, o, format)
	if err != nil && format == "shell" {
		// eval of nothing succeeds, and the job would go on without a session.
		_, _ = fmt.Fprintf(o.env.Stdout, "(exit %d)\n", codeFor(err))
	}
	return err
}

func connectAs(ctx context.Context, o *options, format string) error {
	if format == "github" && (o.env.get("GITHUB_ENV") == "" || o.env.get("GITHUB_OUTPUT") == "") {
		return misuse("--format github writes to the files of GITHUB_ENV and GITHUB_OUTPUT, which are not set here")
	}
	parent := temporary(o.env)
	if o.stateFile != "" {
		parent = filepath.Dir(o.stateFile)
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return fmt.Errorf("make the folder of --state: %w", err)
		}
	}
	s, err := open(ctx, o, parent)
	if err != nil {
		return err
	}
	place := filepath.Join(s.dir, "state.json")
	if o.stateFile != "" {
		place = o.stateFile
	}
	s.vars["JOBGATE_STATE"] = place
	st := state{URL: o.url, Mapping: s.mapping, Session: s.answer.SessionID, Dir: s.dir, TokenFile: s.file, Joined: s.joined}
	if s.source.provider.fresh != once {
		if st.Renewal, err = startRenewal(o, s); err != nil {
			o.env.say("the session's lease cannot be renewed: %v", err)
		}
	}
	if err := st.write(place); err != nil {
		return err
	}
	s.tell(o.env.say)
	return give(o, s, format)
}

func (st state) write(place string) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	// A link that somebody put there is not followed.
	if err := os.Remove(place); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the state of an earlier connect: %w", err)
	}
	f, err := os.OpenFile(place, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

func readState(place string) (state, error) {
	if place == "" {
		return state{}, misuse("close needs to know which session: --state FILE, or JOBGATE_STATE as connect sets it")
	}
	raw, err := readSmall(place)
	if err != nil {
		return state{}, fmt.Errorf("read what connect left: %w", err)
	}
	var st state
	if err := json.Unmarshal([]byte(raw), &st); err != nil || st.Session == "" || st.URL == "" {
		return state{}, fmt.Errorf("%s is not what connect leaves", place)
	}
	return st, nil
}

// give prints the variables in a format. What it writes is taken for code by a shell or a runner, so that a value which
// could end a line is refused.
func give(o *options, s *session, format string) error {
	names := slices.Sorted(maps.Keys(s.vars))
	for _, name := range names {
		if strings.ContainsAny(s.vars[name], "\x00\r\n") {
			return fmt.Errorf("the value of %s has several lines, and is not given to the job", name)
		}
	}
	var out strings.Builder
	switch format {
	case "github":
		return giveGitHub(o, s, names)
	case "json":
		return o.printJSON(map[string]any{
			"session_id": s.answer.SessionID, "mapping": s.mapping, "expires_in": s.answer.ExpiresIn, "lease_seconds": int64(s.lease().Seconds()),
			"base_url": s.base, "token_file": s.file, "state": s.vars["JOBGATE_STATE"], "env": s.vars,
		})
	case "gitlab-dotenv":
		for _, name := range names {
			fmt.Fprintf(&out, "%s=%s\n", name, s.vars[name])
		}
	default:
		for _, name := range names {
			fmt.Fprintf(&out, "export %s=%s\n", name, shellQuoted(s.vars[name]))
		}
		for _, name := range spent(s.source) {
			fmt.Fprintf(&out, "unset %s\n", name)
		}
	}
	_, err := o.env.Stdout.Write([]byte(out.String()))
	return err
}

// spent are the variables of a token that was for Jobgate alone and has been used: the rest of the job needs it no more.
func spent(s *source) []string {
	if s.provider.fresh != once || s.provider.name != "gitlab" && s.provider.name != "generic" {
		return nil
	}
	return s.provider.from.vars
}

// giveGitHub appends to the files of a GitHub runner or its kin.
// https://docs.github.com/actions/reference/workflow-commands-for-github-actions
func giveGitHub(o *options, s *session, names []string) error {
	end := "end-" + rand.Text()
	block := func(list [][2]string) string {
		var out strings.Builder
		for _, pair := range list {
			fmt.Fprintf(&out, "%s<<%s\n%s\n%s\n", pair[0], end, pair[1], end)
		}
		return out.String()
	}
	var vars [][2]string
	for _, name := range names {
		vars = append(vars, [2]string{name, s.vars[name]})
	}
	outputs := [][2]string{{"session-id", s.answer.SessionID}, {"base-url", s.base}, {"token-file", s.file}}
	return errors.Join(
		appendFile(o.env.get("GITHUB_ENV"), block(vars)),
		appendFile(o.env.get("GITHUB_OUTPUT"), block(outputs)),
	)
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
