package dialect

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/jobgate/jobgate/internal/access"
)

// What a request can make run, or read, at the provider, where nobody can hold it: a grant names what it allows. A
// server-side tool is named by its type without the date ("web_search", "code_execution"); these are the others.
const (
	FeatureMCPServers    = "mcp_servers"    // `mcp_servers`, and tools of type mcp_toolset
	FeatureContainer     = "container"      // `container`
	FeatureFileID        = "file_id"        // content that names an uploaded file
	FeatureURLSources    = "url_sources"    // content that the provider fetches from a URL
	FeatureBatches       = "batches"        // /v1/messages/batches
	FeatureFiles         = "files"          // /v1/files
	FeatureSkills        = "skills"         // /v1/skills, and skills of a container
	FeatureManagedAgents = "managed_agents" // /v1/agents and what belongs to it
)

// Facts are what the rules need to know of a request.
type Facts struct {
	Model     string
	Stream    bool
	MaxTokens int64    // 0 where the request names none; of a batch, the sum
	Tools     []string // names, in the request's order; a tool without a name is listed by its type
	Features  []string // sorted, each once
	// StreamSpan is where the member "stream" lies in the body, with the comma that goes with it: without these bytes
	// the body is JSON still, and the same for a request that is repeated without streaming. Zero where there is none.
	StreamSpan [2]int
}

// Anthropic is the dialect of Anthropic's Messages API, https://docs.anthropic.com/en/api.
type Anthropic struct{}

// Parse reads a request before it is judged. path is below the connection ("/v1/messages"), body the whole of it.
// Fields and betas that are not known here pass. An error has a code and a text for the caller.
func (Anthropic) Parse(method, path string, header http.Header, body []byte) (Facts, error) {
	p := requestParser{}
	p.path(path)
	p.betas(header)
	if !isJSON(path, header, body) {
		p.sort()
		return p.facts, nil
	}
	p.s = newScanner(body)
	p.request()
	if err := p.s.finish(); err != nil {
		return Facts{}, &access.Error{Code: access.CodeInvalid, Reason: "json", Err: err, Public: fmt.Sprintf(
			"Jobgate: the body of %s %s is not JSON that every parser reads alike (%v); send it without duplicate keys and in UTF-8", method, path, err)}
	}
	if p.err != nil {
		return Facts{}, p.err
	}
	p.sort()
	return p.facts, nil
}

// isJSON reports whether a body has to be read. The provider reads bodies of these paths as JSON whatever their type
// says; elsewhere a body is JSON when it looks like it.
func isJSON(path string, header http.Header, body []byte) bool {
	if len(body) == 0 {
		return false
	}
	if path == "/v1/messages" || strings.HasPrefix(path, "/v1/messages/") || path == "/v1/complete" {
		return true
	}
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' || strings.Contains(header.Get("Content-Type"), "json")
}

// requestParser gathers facts while the body is scanned once.
type requestParser struct {
	s     *scanner
	facts Facts
	batch bool
	err   *access.Error
}

func (p *requestParser) invalid(format string, args ...any) {
	if p.err == nil {
		p.err = &access.Error{Code: access.CodeInvalid, Reason: "field", Public: "Jobgate: " + fmt.Sprintf(format, args...)}
	}
}

func (p *requestParser) feature(name string) {
	if !slices.Contains(p.facts.Features, name) {
		p.facts.Features = append(p.facts.Features, name)
	}
}

func (p *requestParser) sort() { slices.Sort(p.facts.Features) }

// path finds what a path alone is.
func (p *requestParser) path(path string) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	switch first {
	case "messages":
		if second, _, _ := strings.Cut(rest, "/"); second == "batches" {
			p.batch = true
			p.feature(FeatureBatches)
		}
	case "files":
		p.feature(FeatureFiles)
	case "skills":
		p.feature(FeatureSkills)
	case "agents", "sessions", "environments", "vaults", "memory_stores":
		p.feature(FeatureManagedAgents)
	}
}

// betaFamilies are the betas that ask for a feature, by the beginning of their name.
var betaFamilies = [...]struct{ prefix, feature string }{
	{"files-api-", FeatureFiles},
	{"mcp-client-", FeatureMCPServers},
	{"code-execution-", "code_execution"},
	{"web-fetch-", "web_fetch"},
	{"skills-", FeatureSkills},
	{"managed-agents-", FeatureManagedAgents},
	{"message-batches-", FeatureBatches},
}

func (p *requestParser) betas(header http.Header) {
	for _, line := range header["Anthropic-Beta"] {
		for value := range strings.SplitSeq(line, ",") {
			value = strings.ToLower(strings.TrimSpace(value))
			for _, f := range betaFamilies {
				if strings.HasPrefix(value, f.prefix) {
					p.feature(f.feature)
				}
			}
		}
	}
}

// request reads the object of a request, at the top or in a batch.
func (p *requestParser) request() {
	top := p.s.depth == 0
	var comma int // of the member before; 0 for the first one
	p.s.object(func(key []byte) {
		switch string(key) {
		case "model":
			p.model()
		case "stream":
			if p.stream(); top {
				p.facts.StreamSpan = streamSpan(p.s.data, comma, p.s.keys[len(p.s.keys)-1].start-1, p.s.pos)
			}
		case "max_tokens", "max_tokens_to_sample":
			p.maxTokens()
		case "tools":
			p.list(p.tool)
		case "mcp_servers":
			if p.filled() {
				p.feature(FeatureMCPServers)
			}
		case "container":
			p.container()
		case "messages", "system":
			p.content()
		case "requests":
			if p.batch && top {
				p.list(p.batched)
				break
			}
			p.s.skip()
		default:
			p.s.skip()
		}
		p.s.peek()
		comma = p.s.pos
	})
}

// streamSpan returns the member from start to end with the comma before it or, for the first member, behind it.
func streamSpan(data []byte, comma, start, end int) [2]int {
	if comma > 0 {
		return [2]int{comma, end}
	}
	for i := end; i < len(data); i++ {
		switch data[i] {
		case ' ', '\n', '\t', '\r':
		case ',':
			return [2]int{start, i + 1}
		default:
			return [2]int{start, end}
		}
	}
	return [2]int{start, end}
}

func (p *requestParser) model() {
	if p.s.peek() != '"' {
		p.invalid("the field model is no string")
		p.s.skip()
		return
	}
	model := string(p.s.string())
	if p.facts.Model != "" && p.facts.Model != model {
		p.invalid("a batch names several models; send one batch for each model, so that the mapping's limits can be held")
	}
	p.facts.Model = model
}

func (p *requestParser) stream() {
	switch p.s.peek() {
	case 't':
		p.facts.Stream = true
	case 'f', 'n':
	default:
		p.invalid("the field stream is neither true nor false")
	}
	p.s.skip()
}

func (p *requestParser) maxTokens() {
	switch c := p.s.peek(); {
	case c == 'n':
		p.s.skip()
	case c == '-' || '0' <= c && c <= '9':
		n, err := strconv.ParseInt(string(p.s.number()), 10, 64)
		if err != nil || n < 0 || n > 1<<40-p.facts.MaxTokens { // the sum of a batch, too
			p.invalid("the field max_tokens is no whole number that is not negative; the output limit is reserved by it")
			return
		}
		p.facts.MaxTokens += n
	default:
		p.invalid("the field max_tokens is no number")
		p.s.skip()
	}
}

// list calls fn at each element of an array; a value of another type is skipped.
func (p *requestParser) list(fn func()) {
	if p.s.peek() != '[' {
		p.s.skip()
		return
	}
	p.s.array(fn)
}

// filled consumes a value and reports whether there is anything in it.
func (p *requestParser) filled() bool {
	start, end := p.s.span()
	switch text := bytes.TrimSpace(p.s.data[start:end]); {
	case string(text) == "null", string(text) == `""`:
		return false
	case len(text) >= 2 && (text[0] == '[' || text[0] == '{'):
		return len(bytes.TrimSpace(text[1:len(text)-1])) > 0
	}
	return true
}

// tool reads one entry of tools. An entry with a type that the client does not run itself runs at the provider.
func (p *requestParser) tool() {
	if p.s.peek() != '{' {
		p.invalid("an entry of tools is no object")
		p.s.skip()
		return
	}
	var name, kind string
	p.s.object(func(key []byte) {
		switch {
		case string(key) == "name" && p.s.peek() == '"':
			name = string(p.s.string())
		case string(key) == "type" && p.s.peek() == '"':
			kind = string(p.s.string())
		case string(key) == "type" && p.s.peek() != 'n':
			p.invalid("the type of a tool is no string")
			p.s.skip()
		default:
			p.s.skip()
		}
	})
	base := undated(kind)
	if name == "" {
		name = base
	}
	p.facts.Tools = append(p.facts.Tools, name)
	switch base {
	case "", "custom", "bash", "text_editor", "computer", "memory":
	case "mcp_toolset":
		p.feature(FeatureMCPServers)
	default:
		p.feature(base)
	}
}

// undated cuts the date from the type of a tool: "web_search_20250305".
func undated(kind string) string {
	if i := strings.LastIndexByte(kind, '_'); i > 0 && len(kind)-i == len("_20250305") && strings.Trim(kind[i+1:], "0123456789") == "" {
		return kind[:i]
	}
	return kind
}

// container reads the container, by id or with the skills to load into it.
func (p *requestParser) container() {
	switch p.s.peek() {
	case 'n':
		p.s.skip()
		return
	case '{':
		p.s.object(func(key []byte) {
			if string(key) != "skills" {
				p.s.skip()
			} else if p.filled() {
				p.feature(FeatureSkills)
			}
		})
	default:
		p.s.skip()
	}
	p.feature(FeatureContainer)
}

// batched reads one request of a batch.
func (p *requestParser) batched() {
	if p.s.peek() != '{' {
		p.s.skip()
		return
	}
	p.s.object(func(key []byte) {
		if string(key) == "params" && p.s.peek() == '{' {
			p.request()
			return
		}
		p.s.skip()
	})
}

// content reads messages and what is in them at any depth: which sources are fetched by the provider. What a model
// wrote as the input of a tool is data that nobody fetches.
func (p *requestParser) content() {
	switch p.s.peek() {
	case '[':
		p.s.array(p.content)
	case '{':
		p.s.object(func(key []byte) {
			switch {
			case string(key) == "input":
				p.s.skip()
			case string(key) == "file_id":
				p.fileID()
			case string(key) == "source" && p.s.peek() == '{':
				p.source()
			default:
				p.content()
			}
		})
	default:
		p.s.skip()
	}
}

func (p *requestParser) fileID() {
	if p.filled() {
		p.feature(FeatureFileID)
	}
}

// source reads where a block's bytes come from. Either word that says so is enough.
func (p *requestParser) source() {
	p.s.object(func(key []byte) {
		switch {
		case string(key) == "type" && p.s.peek() == '"':
			switch string(p.s.string()) {
			case "url":
				p.feature(FeatureURLSources)
			case "file":
				p.feature(FeatureFileID)
			}
		case string(key) == "url":
			if p.filled() {
				p.feature(FeatureURLSources)
			}
		case string(key) == "file_id":
			p.fileID()
		default:
			p.content()
		}
	})
}
