package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/internal/api"
)

// maxAnswer bounds what the operator's commands read of the server.
const maxAnswer = 64 << 20

// client is the operator's way to the people's side: JOBGATE_URL and JOBGATE_ADMIN_TOKEN, or the server's socket.
type client struct {
	base  string
	token string
	http  *http.Client
}

// newClient finds the server. Without JOBGATE_URL it is the socket in the data folder of the configuration file.
func (o *options) newClient() (*client, error) {
	if base := o.env.Getenv("JOBGATE_URL"); base != "" {
		u, err := url.Parse(base)
		if err != nil || u.Host == "" {
			return nil, usageError{fmt.Errorf("JOBGATE_URL %q is no URL such as https://jobgate-control.example.com", base)}
		}
		token := o.env.Getenv("JOBGATE_ADMIN_TOKEN")
		if token == "" {
			return nil, usageError{errors.New("JOBGATE_URL is set and JOBGATE_ADMIN_TOKEN is not; set both, or none to use the server's socket")}
		}
		if u.Scheme != "https" && !loopbackHost(u.Hostname()) {
			return nil, usageError{fmt.Errorf("JOBGATE_URL %q: the admin token goes over https, or to a loopback address", base)}
		}
		return &client{base: strings.TrimSuffix(base, "/"), token: token, http: &http.Client{Timeout: time.Minute}}, nil
	}
	cfg, err := loadConfig(o.config)
	if err != nil {
		return nil, fmt.Errorf("%w (or set JOBGATE_URL and JOBGATE_ADMIN_TOKEN)", err)
	}
	socket := filepath.Join(cfg.Data, "control.sock")
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("there is no server at %s: start it with `jobgate serve -c %s`, or set JOBGATE_URL and JOBGATE_ADMIN_TOKEN", socket, o.config)
	}
	return socketClient(socket), nil
}

func socketClient(socket string) *client {
	var dialer net.Dialer
	return &client{base: "http://jobgate", http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// do sends a request and decodes the answer into out, which may be nil.
func (c *client) do(ctx context.Context, method, path string, header map[string]string, body, out any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Jobgate-Client", "cli")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		return problemOf(resp.StatusCode, raw)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}

func problemOf(status int, raw []byte) error {
	var p api.Problem
	if json.Unmarshal(raw, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the server answered %d %s", status, http.StatusText(status))
	}
	switch status {
	case http.StatusUnauthorized:
		return access.Refuse(access.CodeDenied, "the server does not take the token in JOBGATE_ADMIN_TOKEN: "+p.Detail)
	case http.StatusForbidden:
		return access.Refuse(access.CodeDenied, p.Detail)
	}
	return access.Refuse(access.CodeInternal, p.Detail)
}

// printJSON writes a value for programs. It may be read on a terminal, too: what escape would show as a code is written
// as an escape of JSON, which programs read as the same text.
func (o *options) printJSON(v any) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(o.env.Stdout, escapeJSON(out.String()))
	return err
}

// say writes one of two sentences in place of an empty table.
func (o *options) say(usually, otherwise string, other bool) error {
	if other {
		usually = otherwise
	}
	_, err := fmt.Fprintln(o.env.Stdout, usually)
	return err
}

// table writes rows in columns; every cell is made safe for a terminal.
func (o *options) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(o.env.Stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = line(row[i], 100)
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// ago says how far away a time is.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Until(t).Round(time.Second)
	switch {
	case d == 0:
		return "now"
	case d < 0:
		return (-d).String() + " ago"
	}
	return "in " + d.String()
}
