package testkit

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// Slack's limits, in characters unless said otherwise; see
// https://docs.slack.dev/reference/block-kit/blocks and
// https://docs.slack.dev/reference/methods/chat.postMessage.
const (
	maxText     = 40_000
	maxBlocks   = 50
	maxSection  = 3_000
	maxField    = 2_000
	maxFields   = 10
	maxHeader   = 150
	maxID       = 255
	maxElements = 25
	maxLabel    = 75
	maxValue    = 2_000
	maxURL      = 3_000
	maxContext  = 10
	// maxAllBlocks is of all texts together. Slack answers
	// msg_blocks_too_long without saying where it begins; this is on the safe
	// side.
	maxAllBlocks = 13_000
)

type slackText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type slackBlock struct {
	Type      string            `json:"type"`
	BlockID   string            `json:"block_id"`
	Text      *slackText        `json:"text"`
	Fields    []slackText       `json:"fields"`
	Accessory json.RawMessage   `json:"accessory"`
	Elements  []json.RawMessage `json:"elements"`
}

type slackElement struct {
	Type     string           `json:"type"`
	Text     json.RawMessage  `json:"text"`
	ActionID string           `json:"action_id"`
	Value    string           `json:"value"`
	Style    json.RawMessage  `json:"style"`
	URL      string           `json:"url"`
	UserID   string           `json:"user_id"`
	Range    string           `json:"range"`
	Format   string           `json:"format"`
	Time     int64            `json:"timestamp"`
	Elements []slackElement   `json:"elements"`
	Confirm  *json.RawMessage `json:"confirm"`
}

// slackChecker walks a message and collects what Slack would complain about,
// and what it would do with the texts.
type slackChecker struct {
	complaints []string
	total      int
	ids        map[string]bool
	pings      []string
	links      []string
}

// checkSlackMessage checks a message as chat.postMessage does.
func checkSlackMessage(text string, blocks json.RawMessage) error {
	if units(text) > maxText {
		return refuseSlack("msg_too_long")
	}
	if len(blocks) == 0 || string(blocks) == "null" || string(blocks) == "[]" {
		if text == "" {
			return refuseSlack("no_text")
		}
		return nil
	}
	c, err := walkSlackBlocks(blocks)
	switch {
	case err != nil:
		return refuseSlack("invalid_blocks_format", err.Error())
	case len(c.complaints) > 0:
		return refuseSlack("invalid_blocks", c.complaints...)
	case c.total > maxAllBlocks:
		return refuseSlack("msg_blocks_too_long")
	}
	return nil
}

func walkSlackBlocks(raw json.RawMessage) (*slackChecker, error) {
	c := &slackChecker{ids: map[string]bool{}}
	var blocks []slackBlock
	if err := json.Unmarshal(raw, &blocks); err != nil {
		return c, err
	}
	c.want(len(blocks) <= maxBlocks, "no more than %d blocks, not %d", maxBlocks, len(blocks))
	for i, b := range blocks {
		c.block(fmt.Sprintf("/blocks/%d", i), b)
	}
	return c, nil
}

func (c *slackChecker) want(ok bool, format string, args ...any) {
	if !ok {
		c.complaints = append(c.complaints, "[ERROR] "+fmt.Sprintf(format, args...))
	}
}

func (c *slackChecker) block(at string, b slackBlock) {
	c.want(units(b.BlockID) <= maxID, "%s: block_id of more than %d characters", at, maxID)
	if b.BlockID != "" {
		c.want(!c.ids[b.BlockID], "%s: block_id %q is taken", at, b.BlockID)
		c.ids[b.BlockID] = true
	}
	switch b.Type {
	case "divider":
	case "header":
		c.want(b.Text != nil && b.Text.Type == "plain_text", "%s: a header is plain_text", at)
		c.text(at, b.Text, maxHeader)
	case "section":
		c.section(at, b)
	case "context":
		c.want(1 <= len(b.Elements) && len(b.Elements) <= maxContext, "%s: 1 to %d elements, not %d", at, maxContext, len(b.Elements))
		for _, raw := range b.Elements {
			var t slackText
			c.want(json.Unmarshal(raw, &t) == nil, "%s: element is no text", at)
			c.text(at, &t, maxSection)
		}
	case "actions":
		c.want(1 <= len(b.Elements) && len(b.Elements) <= maxElements, "%s: 1 to %d elements, not %d", at, maxElements, len(b.Elements))
		for _, e := range c.decode(at, b.Elements) {
			c.button(at, e)
		}
	case "rich_text":
		c.want(len(b.Elements) > 0, "%s: no elements", at)
		for _, e := range c.decode(at, b.Elements) {
			c.rich(at, e)
		}
	default:
		c.want(false, "%s: unsupported block type %q", at, b.Type)
	}
}

func (c *slackChecker) section(at string, b slackBlock) {
	c.want(b.Text != nil || len(b.Fields) > 0, "%s: a section has text or fields", at)
	if b.Text != nil {
		c.text(at, b.Text, maxSection)
	}
	c.want(len(b.Fields) <= maxFields, "%s: more than %d fields", at, maxFields)
	for i := range b.Fields {
		c.text(at, &b.Fields[i], maxField)
	}
	if len(b.Accessory) > 0 {
		for _, e := range c.decode(at, []json.RawMessage{b.Accessory}) {
			c.button(at, e)
		}
	}
}

func (c *slackChecker) decode(at string, raw []json.RawMessage) []slackElement {
	out := make([]slackElement, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &out[i]); err != nil {
			c.want(false, "%s/%d: %v", at, i, err)
		}
	}
	return out
}

func (c *slackChecker) text(at string, t *slackText, most int) {
	if t == nil {
		c.want(false, "%s: text is missing", at)
		return
	}
	c.want(t.Type == "plain_text" || t.Type == "mrkdwn", "%s: text type %q", at, t.Type)
	c.size(at, t.Text, most)
	if t.Type == "mrkdwn" {
		c.parse(t.Text)
	}
}

func (c *slackChecker) size(at, text string, most int) {
	n := units(text)
	c.total += n
	c.want(1 <= n && n <= most, "%s: text of %d characters, 1 to %d are allowed", at, n, most)
}

func (c *slackChecker) button(at string, e slackElement) {
	var label slackText
	c.want(e.Type == "button", "%s: element type %q", at, e.Type)
	c.want(json.Unmarshal(e.Text, &label) == nil && label.Type == "plain_text", "%s: a button's text is plain_text", at)
	c.size(at, label.Text, maxLabel)
	c.want(units(e.ActionID) <= maxID, "%s: action_id of more than %d characters", at, maxID)
	if e.ActionID != "" {
		c.want(!c.ids["action "+e.ActionID], "%s: action_id %q is taken", at, e.ActionID)
		c.ids["action "+e.ActionID] = true
	}
	c.want(units(e.Value) <= maxValue, "%s: value of more than %d characters", at, maxValue)
	c.want(units(e.URL) <= maxURL, "%s: url of more than %d characters", at, maxURL)
	c.want(slices.Contains([]string{"", `"primary"`, `"danger"`}, string(e.Style)), "%s: style %s", at, e.Style)
	if e.URL != "" {
		c.links = append(c.links, e.URL)
	}
}

func (c *slackChecker) rich(at string, e slackElement) {
	switch e.Type {
	case "rich_text_section", "rich_text_preformatted", "rich_text_quote", "rich_text_list":
		c.want(len(e.Elements) > 0, "%s: %s without elements", at, e.Type)
		for _, inner := range e.Elements {
			c.rich(at, inner)
		}
	case "text", "link":
		var text string
		c.want(len(e.Text) == 0 || json.Unmarshal(e.Text, &text) == nil, "%s: the text of %s is no string", at, e.Type)
		if e.Type == "link" {
			c.want(e.URL != "" && units(e.URL) <= maxURL, "%s: a link's url has 1 to %d characters", at, maxURL)
			c.links = append(c.links, e.URL)
		}
		if e.Type == "text" || text != "" {
			c.size(at, text, maxSection)
		}
	case "date":
		c.want(e.Time > 0 && e.Format != "", "%s: a date has a timestamp and a format", at)
	case "emoji":
	case "user":
		c.pings = append(c.pings, "@"+e.UserID)
	case "broadcast":
		c.pings = append(c.pings, "!"+e.Range)
	default:
		c.want(false, "%s: unsupported element type %q", at, e.Type)
	}
}

var (
	slackPing = regexp.MustCompile(`<([!@#][^<>]*)>`)
	slackLink = regexp.MustCompile(`<([a-z]+:[^<>|]*)(\|[^<>]*)?>`)
)

// parse finds what mrkdwn text does beside being read.
func (c *slackChecker) parse(text string) {
	for _, m := range slackPing.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], "!date^") {
			c.pings = append(c.pings, m[1])
		}
	}
	for _, m := range slackLink.FindAllStringSubmatch(text, -1) {
		c.links = append(c.links, m[1])
	}
}

// Pings returns whom the message notifies or refers to by its markup, such as
// "!channel" and "@U123".
func (m SlackMessage) Pings() []string { return m.walk().pings }

// Links returns where the message's links lead.
func (m SlackMessage) Links() []string { return m.walk().links }

func (m SlackMessage) walk() *slackChecker {
	c := &slackChecker{}
	if len(m.Blocks) > 0 {
		c, _ = walkSlackBlocks(m.Blocks)
	}
	c.parse(m.Text)
	return c
}

// units counts characters as JavaScript does, which is never less than what
// Slack counts.
func units(s string) int { return len(utf16.Encode([]rune(s))) }
