package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// maxShown bounds a file of a token or of claims: no token comes near it.
const maxShown = 64 << 10

// maxMapping bounds a mapping's file, as the server does.
const maxMapping = 1 << 20

func explainCommand(o *options) *cobra.Command {
	var token, claims, issuer, mapping, exchange string
	c := &cobra.Command{
		Use:   "explain (x_... | --token FILE|- | --claims FILE|-)",
		Short: "Say what the mappings make of a job: which condition holds, which fails, and the nearest change",
		Long: "Say what the mappings make of a job: of its CI token, of claims as a token would have them (JSON), or of an\n" +
			"exchange of the last two weeks, by the id in the job's log. A token is verified as an exchange does, opens nothing and is not used up.\n\n" +
			"The server is asked; where none runs and JOBGATE_URL is not set, the configuration file's mappings are.\n" +
			"Exit code 0: the job would get a session; 3: it would be refused.",
	}
	c.Flags().StringVar(&token, "token", "", "a file with a CI token; - reads it from the standard input")
	c.Flags().StringVar(&claims, "claims", "", "a file with claims; - reads them from the standard input")
	c.Flags().StringVar(&issuer, "issuer", "", "the issuer of claims that have no iss")
	c.Flags().StringVar(&exchange, "exchange", "", "the id of an exchange, x_..., as the job's log shows it; the flag may be left out")
	c.Flags().StringVar(&mapping, "mapping", "", "the mapping that the exchange names")
	c.Args = func(_ *cobra.Command, args []string) error {
		asked := len(args)
		for _, file := range []string{token, claims, exchange} {
			if file != "" {
				asked++
			}
		}
		if asked != 1 {
			return usageError{errors.New("explain takes one of --token FILE, --claims FILE and an exchange's id")}
		}
		if issuer != "" && claims == "" {
			return usageError{errors.New("--issuer goes with --claims; a token names its issuer itself")}
		}
		if mapping != "" && len(args)+len(exchange) > 0 {
			return usageError{errors.New("--mapping goes with --token and --claims; an exchange named its mapping then")}
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if exchange != "" {
			args = []string{exchange}
		}
		r, err := o.explainRequest(token, claims, issuer, args)
		if err != nil {
			return err
		}
		r.Mapping = mapping
		out, where, err := o.explain(c.Context(), r)
		if err != nil {
			return err
		}
		if o.json() {
			err = o.printJSON(out)
		} else {
			_, err = io.WriteString(o.env.Stdout, explanationText(out, where))
		}
		if err == nil && out.Outcome != "granted" {
			err = access.Refuse(access.CodeDenied, "this job would get no session")
		}
		return err
	}
	return c
}

func (o *options) explainRequest(token, claims, issuer string, args []string) (api.ExplainRequest, error) {
	switch {
	case token != "":
		raw, err := o.readInput(token, maxShown)
		if err == nil && strings.TrimSpace(string(raw)) == "" {
			err = fmt.Errorf("%s has no token in it", token)
		}
		return api.ExplainRequest{Token: strings.TrimSpace(string(raw))}, err
	case claims != "":
		raw, err := o.readInput(claims, maxShown)
		if err == nil && !json.Valid(raw) {
			err = fmt.Errorf("%s is no JSON: write the claims as an object, such as {\"repository_id\": \"456789\"}", claims)
		}
		return api.ExplainRequest{Claims: raw, Issuer: issuer}, err
	}
	if !strings.HasPrefix(args[0], "x_") {
		// What stands here is not repeated: it may be a token.
		return api.ExplainRequest{}, usageError{errors.New("an exchange's id begins with x_; a token is shown with --token FILE, and never as an argument")}
	}
	return api.ExplainRequest{Exchange: args[0]}, nil
}

// readInput reads a file, or the standard input, of a size at most.
func (o *options) readInput(file string, most int64) ([]byte, error) {
	in := o.env.Stdin
	if file != "-" {
		f, err := os.Open(filepath.Clean(file))
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("%s has more than %d bytes", file, most)
	}
	return raw, err
}

// explain asks the server, or the configuration file where there is none, and says which.
func (o *options) explain(ctx context.Context, r api.ExplainRequest) (out api.Explanation, where string, err error) {
	socket := ""
	if o.env.Getenv("JOBGATE_URL") == "" {
		cfg, err := loadConfig(o.config)
		if err != nil {
			return out, "", fmt.Errorf("%w (or set JOBGATE_URL and JOBGATE_ADMIN_TOKEN)", err)
		}
		if socket = filepath.Join(cfg.Data, "control.sock"); !listens(socket) {
			out, err = explainOffline(ctx, cfg, r)
			return out, "the mappings of " + o.config + ": no server runs here", err
		}
	}
	cl, err := o.newClient()
	if err != nil {
		return out, "", err
	}
	err = cl.do(ctx, http.MethodPost, "/v1/explain", nil, r, &out)
	return out, "the mappings in force", err
}

// listens reports whether somebody serves a socket: a killed server leaves its file behind.
func listens(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// explainOffline explains over the mappings of a file. It reads no secret of the configuration.
func explainOffline(ctx context.Context, cfg *config, r api.ExplainRequest) (api.Explanation, error) {
	b, mappings, err := readMappings(ctx, cfg)
	if err != nil {
		return api.Explanation{}, err
	}
	x, err := federation.NewExplainer(federation.ExplainerConfig{
		Verifier: b.verifier, Mappings: func() []*federation.Mapping { return mappings }, Connections: b.kinds,
	})
	if err != nil {
		return api.Explanation{}, err
	}
	out, err := x.Explain(ctx, r)
	if err != nil {
		return out, err
	}
	// As it would come over the wire: the job as a map.
	raw, err := json.Marshal(out)
	if err != nil {
		return out, err
	}
	var same api.Explanation
	err = json.Unmarshal(raw, &same)
	return same, err
}

// readMappings builds what mappings need of a configuration, and them: no credential, no listener.
func readMappings(ctx context.Context, cfg *config) (*built, []*federation.Mapping, error) {
	found := &problems{file: cfg.file}
	b := &built{config: cfg, declared: cfg.declared(), kinds: make(map[string]string)}
	if b.buildIssuers(found) {
		b.buildVerifier(found, slog.New(slog.DiscardHandler))
	}
	for _, c := range cfg.Connections {
		b.kinds[c.Name] = c.Kind
	}
	for name := range cfg.Approvals.Groups {
		b.groups = append(b.groups, name)
	}
	b.checkSources(found)
	b.checkMappings(found)
	if err := found.or(); err != nil {
		return nil, nil, err
	}
	if err := b.readSources(ctx); err != nil {
		return nil, nil, err
	}
	mappings, err := b.mappings()
	return b, mappings, err
}
