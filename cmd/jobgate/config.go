package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/jobgate/jobgate/internal/api"
)

// config is the file format of jobgate.yaml. It has no behaviour; serve.go builds the program from it.
type config struct {
	PublicURL      string             `yaml:"public_url"`
	Listen         string             `yaml:"listen"`
	TLS            tlsConfig          `yaml:"tls"`
	TrustedProxies []string           `yaml:"trusted_proxies"`
	Control        controlConfig      `yaml:"control"`
	Data           string             `yaml:"data"`
	Store          string             `yaml:"store"`
	Archive        archiveConfig      `yaml:"archive"`
	Issuers        []issuerConfig     `yaml:"issuers"`
	Connections    []connectionConfig `yaml:"connections"`
	Mappings       []api.Mapping      `yaml:"mappings"`
	MappingsFrom   []sourceConfig     `yaml:"mappings_from"`
	Approvals      approvalsConfig    `yaml:"approvals"`
	Log            logConfig          `yaml:"log"`

	file   string
	digest string // of the file's text, "sha256:" and hex
	root   *yaml.Node
}

type tlsConfig struct {
	Cert string `yaml:"cert"` // file:PATH
	Key  string `yaml:"key"`  // file:PATH
}

type controlConfig struct {
	Listen string `yaml:"listen"`
	URL    string `yaml:"url"`
	Token  string `yaml:"token"` // reference; empty: the Unix socket only
}

type archiveConfig struct {
	Bucket     string       `yaml:"bucket"`
	Prefix     string       `yaml:"prefix"`
	OnBacklog  string       `yaml:"on_backlog"` // refuse or continue
	SpoolMax   int64        `yaml:"spool_max_bytes"`
	PartAge    api.Duration `yaml:"part_age"`
	Durability string       `yaml:"durability"` // process or power
}

type issuerConfig struct {
	Name           string       `yaml:"name"`
	Provider       string       `yaml:"provider"`
	URL            string       `yaml:"url"`
	Algorithms     []string     `yaml:"algorithms"`
	KeysFile       string       `yaml:"keys_file"`
	CAFile         string       `yaml:"ca_file"`
	Private        bool         `yaml:"private"`
	SharedAudience bool         `yaml:"shared_audience"`
	MaxAge         api.Duration `yaml:"max_age"`
	MaxLifetime    api.Duration `yaml:"max_lifetime"`
	StaleKeys      api.Duration `yaml:"stale_keys"`

	Tokens  *tokensConfig  `yaml:"tokens"`
	API     *jobAPIConfig  `yaml:"api"`
	Webhook *webhookConfig `yaml:"webhook"`
}

type jobAPIConfig struct {
	URL            string       `yaml:"url"`
	Token          string       `yaml:"token"` // reference
	AppID          int64        `yaml:"app_id"`
	InstallationID int64        `yaml:"installation_id"`
	PrivateKey     string       `yaml:"private_key"` // reference
	Every          api.Duration `yaml:"every"`
}

type webhookConfig struct {
	Secret string `yaml:"secret"` // reference
}

type connectionConfig struct {
	Name       string           `yaml:"name"`
	Kind       string           `yaml:"kind"`
	Upstream   string           `yaml:"upstream"`
	Private    bool             `yaml:"private"`
	Credential credentialConfig `yaml:"credential"`
}

type credentialConfig struct {
	Header string `yaml:"header"`
	Prefix string `yaml:"prefix"`
	User   string `yaml:"user"` // of Basic authentication, in place of header
	Value  string `yaml:"value"`
}

type approvalsConfig struct {
	Slack  *slackConfig           `yaml:"slack"`
	Groups map[string]groupConfig `yaml:"groups"`
}

type slackConfig struct {
	BotToken      string `yaml:"bot_token"`
	SigningSecret string `yaml:"signing_secret"`
	Channel       string `yaml:"channel"`
	APIURL        string `yaml:"api_url"` // for tests and proxies; empty takes Slack's
}

type groupConfig struct {
	Emails          []string `yaml:"emails"`
	SlackUsergroups []string `yaml:"slack_usergroups"`
}

type logConfig struct {
	Format string `yaml:"format"` // text or json
	Level  string `yaml:"level"`  // debug, info, warn or error
}

// problem is one thing that is wrong with a file.
type problem struct {
	file string // "" for the one that the problems are of
	line int
	path string
	text string
}

// problems are all that is wrong with a file and with those that it names, in the order of their lines.
type problems struct {
	file string
	list []problem
}

// Error names file and line of each problem.
func (p *problems) Error() string {
	slices.SortStableFunc(p.list, func(a, b problem) int {
		if a.file != b.file {
			return strings.Compare(a.file, b.file)
		}
		return a.line - b.line
	})
	lines := make([]string, 0, len(p.list))
	for _, one := range p.list {
		where := one.file
		if where == "" {
			where = p.file
		}
		if one.line > 0 {
			where = fmt.Sprintf("%s:%d", where, one.line)
		}
		if one.path != "" {
			where += ": " + one.path
		}
		lines = append(lines, where+": "+one.text)
	}
	return strings.Join(lines, "\n")
}

func (p *problems) add(line int, path, format string, args ...any) {
	p.addIn(p.file, line, path, format, args...)
}

func (p *problems) addIn(file string, line int, path, format string, args ...any) {
	if file == p.file {
		file = ""
	}
	p.list = append(p.list, problem{file: file, line: line, path: path, text: fmt.Sprintf(format, args...)})
}

// merge takes over what is wrong with another file.
func (p *problems) merge(other *problems) {
	for _, one := range other.list {
		p.addIn(other.file, one.line, one.path, "%s", one.text)
	}
}

func (p *problems) or() error {
	if len(p.list) == 0 {
		return nil
	}
	return p
}

// maxConfig bounds the file: ten thousand mappings fit.
const maxConfig = 16 << 20

// loadConfig reads and decodes the file strictly. What its values mean is checked by who builds from them.
func loadConfig(file string) (*config, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w; name it with -c", err)
	}
	if info.Size() > maxConfig {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", file, info.Size(), maxConfig)
	}
	raw, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return parseConfig(file, raw)
}

func parseConfig(file string, raw []byte) (*config, error) {
	found := &problems{file: file}
	root := parseDocument(raw, "the file is empty; it needs public_url, issuers, connections and mappings", found)
	if root == nil {
		return nil, found
	}
	c := &config{file: file, digest: digestOf(raw), root: root}
	checkKeys(c.root, c, found)
	if err := found.or(); err != nil {
		return nil, err
	}
	if err := c.root.Decode(c); err != nil {
		addDecodeErrors(found, err)
		return nil, found
	}
	c.applyDefaults()
	return c, nil
}

// parseDocument reads the one document of a file, or finds what is wrong and returns nil.
func parseDocument(raw []byte, empty string, found *problems) *yaml.Node {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		found.add(0, "", "%s", empty)
		return nil
	case err != nil:
		addDecodeErrors(found, err)
		return nil
	}
	if next := new(yaml.Node); decoder.Decode(next) == nil {
		found.add(next.Line, "", "a second document begins here; only one is read")
		return nil
	}
	return doc.Content[0]
}

func digestOf(raw []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)) }

func (c *config) applyDefaults() {
	set := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	set(&c.Listen, ":8080")
	set(&c.Data, ".")
	if !filepath.IsAbs(c.Data) {
		c.Data = filepath.Join(filepath.Dir(c.file), c.Data)
	}
	set(&c.Store, "sqlite:jobgate.db")
	set(&c.Archive.OnBacklog, "refuse")
	set(&c.Archive.Durability, "process")
	set(&c.Log.Format, "text")
	set(&c.Log.Level, "info")
	if c.Archive.Bucket == "" {
		folder, err := filepath.Abs(filepath.Join(c.Data, "archive"))
		if err == nil {
			c.Archive.Bucket = "file://" + filepath.ToSlash(folder)
		}
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
}

// problem puts an error of the place that a path names.
func (c *config) problem(found *problems, path string, err error) {
	found.add(lineOf(c.root, path), path, "%v", err)
}
