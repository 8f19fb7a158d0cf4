package main

import (
	"context"
	"fmt"
)

// status is how a check came out.
type status string

const (
	ok      status = "ok"
	warn    status = "warn"
	fail    status = "fail"
	skipped status = "skip"
)

// finding is one line of the doctor's.
type finding struct {
	Check  string `json:"check"`
	Status status `json:"status"`
	Text   string `json:"text"`
	Do     string `json:"do,omitempty"` // what to do
}

// doctor looks for what would keep a session from working. Only with --exchange does it ask Jobgate for one.
func doctor(ctx context.Context, o *options, _ []string) error {
	var all []finding
	failed := false
	add := func(list ...finding) {
		for _, f := range list {
			all = append(all, f)
			failed = failed || f.Status == fail
			if !o.json() {
				f.print(o.env)
			}
		}
	}
	add(checkShadows(o.env)...)
	add(checkDeletable(o.env)...)
	address, err := checkURL(o.url)
	if err != nil {
		add(finding{"url", fail, err.Error(), "write Jobgate's public_url, as the server's configuration has it"})
	} else {
		o.url = address
		add(finding{"url", ok, address, ""})
		add(checkServer(ctx, o)...)
	}
	add(checkSandbox())
	s, list := checkToken(ctx, o)
	add(list...)
	if err == nil && s != nil {
		add(checkExchange(ctx, o, s)...)
	}
	if o.json() {
		if err := o.printJSON(map[string]any{"items": all}); err != nil {
			return err
		}
	}
	if failed {
		return exitError(exitFailed)
	}
	return nil
}

func (f finding) print(env environment) {
	_, _ = fmt.Fprintf(env.Stdout, "%-4s  %-9s  %s\n", f.Status, f.Check, visible(f.Text, 500))
	if f.Do != "" {
		_, _ = fmt.Fprintf(env.Stdout, "                 -> %s\n", visible(f.Do, 500))
	}
}
