package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

func checkShadows(env environment) []finding {
	if found := foundShadows(env); len(found) > 0 {
		return []finding{{"shadows", fail, strings.Join(found, ", ") + " stands in the environment: Claude clients prefer it, silently, to a session",
			"take it out of the job's variables"}}
	}
	return []finding{{"shadows", ok, "nothing that a Claude client would prefer to a session", ""}}
}

// deletable are variables that hold a long-lived credential which a connection of Jobgate can hold in the job's place.
// Names that end in _API_KEY are taken for one, too.
func deletable() []string {
	return []string{"AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET", "GOOGLE_CREDENTIALS", "HF_TOKEN", "REPLICATE_API_TOKEN", "SLACK_BOT_TOKEN",
		"DATADOG_APP_KEY", "SENTRY_AUTH_TOKEN", "NPM_TOKEN", "PYPI_TOKEN", "SNYK_TOKEN", "SONAR_TOKEN", "CLOUDFLARE_API_TOKEN", "PULUMI_ACCESS_TOKEN"}
}

func checkDeletable(env environment) []finding {
	var found []string
	for _, pair := range env.Vars {
		name, value, _ := strings.Cut(pair, "=")
		if value != "" && name != "ANTHROPIC_API_KEY" && (strings.HasSuffix(name, "_API_KEY") || slices.Contains(deletable(), name)) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		return []finding{{"secrets", ok, "no long-lived credential is known by its name here", ""}}
	}
	return []finding{{"secrets", warn, "the job holds " + strings.Join(found, ", "),
		"give the service a connection in Jobgate, whose credential the job never sees, and delete the secret from the CI provider"}}
}

// checkToken gets a token of the job, which opens nothing yet. Its claims are read, not verified.
func checkToken(ctx context.Context, o *options) (*source, []finding) {
	s, err := newSource(o)
	if err != nil {
		return nil, []finding{{"provider", fail, err.Error(), ""}}
	}
	out := []finding{{"provider", ok, s.provider.name + ": a token comes from " + s.place(), ""}}
	token, err := s.token(ctx)
	if err != nil {
		return nil, append(out, finding{"token", fail, err.Error(), s.provider.help})
	}
	c, readable := readClaims(token.Reveal())
	if !readable {
		return nil, append(out, finding{"token", fail, "the token's payload cannot be read", s.provider.help})
	}
	left := time.Until(c.expires()).Round(time.Second)
	text := fmt.Sprintf("issuer %s, audience %s, good for %s", visible(c.Issuer, 200), visible(strings.Join(c.audiences(), ", "), 300), left)
	switch {
	case left <= 0:
		out = append(out, finding{"token", fail, text, "the token has expired, or this machine's clock is wrong"})
	case !slices.Equal(c.audiences(), []string{o.url}) && s.provider.from.http != nil && s.provider.from.http.audience == "":
		out = append(out, finding{"token", warn, text, s.provider.name + " has one fixed audience: the issuer must say shared_audience: true in Jobgate's configuration"})
	case !slices.Equal(c.audiences(), []string{o.url}):
		out = append(out, finding{"token", warn, text, "Jobgate takes tokens whose only audience is " + o.url + ", unless its issuer says shared_audience: true"})
	default:
		out = append(out, finding{"token", ok, text, ""})
	}
	return s, append(out, checkFresh(s))
}

// checkSandbox tells whether exec --sandbox can be had. Who does not use it needs nothing of that.
func checkSandbox() finding {
	if err := trySandbox(); err != nil {
		return finding{"sandbox", skipped, err.Error(), ""}
	}
	return finding{"sandbox", ok, "exec --sandbox can be had here", ""}
}

func checkFresh(s *source) finding {
	switch s.provider.fresh {
	case rotates:
		return finding{"renewal", ok, "the session's lease is renewed whenever the token's file is written anew; a file that is written once renews nothing", ""}
	case fresh:
		return finding{"renewal", ok, "fresh tokens can be had while the job runs: they renew the session's lease", ""}
	}
	return finding{"renewal", warn, s.provider.name + " gives a job one token: nothing in the job can renew the session's lease",
		"make the mapping's lease as long as its window, or let Jobgate ask the provider whether the job runs"}
}

// checkExchange asks what the exchange would answer, which opens nothing and leaves the token good; or, with --exchange,
// opens the job's session. That is not closed: it would be for good, and the job could open no other.
func checkExchange(ctx context.Context, o *options, s *source) []finding {
	if !o.exchange {
		return []finding{dryRun(ctx, o, s)}
	}
	j, err := newJobgate(o)
	if err != nil {
		return []finding{{"exchange", fail, err.Error(), ""}}
	}
	j.patience = 0
	answer, err := j.open(ctx, s, o.mapping, o.scope)
	if err != nil {
		return []finding{{"exchange", fail, err.Error(), toOperator}}
	}
	names := make([]string, 0, len(answer.Connections))
	for _, c := range answer.Connections {
		names = append(names, c.Name)
	}
	f := finding{"exchange", ok, fmt.Sprintf("session %s is open under mapping %s, for %s", answer.SessionID, answer.Mapping, strings.Join(names, ", ")),
		"it stays open: connect and exec of this job join it"}
	if s.provider.fresh == once {
		f.Status, f.Do = warn, "the job's one token is spent now: connect and exec of this job will be refused as replayed. Try this in a job of its own"
	}
	return []finding{f}
}

const toOperator = "what the server's operator needs is the exchange id; jobgate explain shows which condition failed"

// dryRun asks what the exchange would answer.
func dryRun(ctx context.Context, o *options, s *source) finding {
	j, err := newJobgate(o)
	if err != nil {
		return finding{"exchange", fail, err.Error(), ""}
	}
	j.patience = 0
	token, err := s.token(ctx)
	if err != nil {
		return finding{"exchange", fail, err.Error(), s.provider.help}
	}
	answer, err := j.tryExchange(ctx, token, o.mapping, o.scope)
	var no *refused
	switch {
	case errors.As(err, &no) && s.provider.fresh == once && strings.HasPrefix(no.description, "replayed"):
		return finding{"exchange", warn, "a dry run: the job's one token was exchanged before", "connect or exec of this job did that, and have its session; " +
			"if neither ran, somebody else has the token"}
	case errors.As(err, &no):
		return finding{"exchange", fail, "a dry run: " + err.Error(), toOperator}
	case err != nil:
		return finding{"exchange", skipped, "a dry run is not to be had: " + err.Error(), "--exchange tries it in earnest, and opens the job's session"}
	}
	opens := "would open a session"
	if answer.SessionID != "" {
		opens = "would join session " + answer.SessionID
	}
	return finding{"exchange", ok, fmt.Sprintf("a dry run, with nothing opened: it %s under mapping %s, for %s, for %s at most; its lease is %s",
		opens, answer.Mapping, strings.Join(answer.Connections, ", "), inWords(answer.ExpiresIn), inWords(answer.Lease)), ""}
}

// inWords writes seconds as a configuration does: 1h, 15m, 90s.
func inWords(seconds int64) string {
	text := (time.Duration(seconds) * time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
