package slackapp

import (
	"fmt"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"github.com/jobgate/jobgate/internal/access"
)

// The buttons' action ids.
const (
	approveAction = "jobgate_approve"
	denyAction    = "jobgate_deny"
)

// content is a message: blocks, and the text that notifications and screen readers use.
type content struct {
	text   string
	blocks []slack.Block
}

func message(c content) []slack.MsgOption {
	return []slack.MsgOption{
		slack.MsgOptionText(c.text, false), slack.MsgOptionBlocks(c.blocks...),
		slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl(),
	}
}

// whole reports whether a message shows all of what a yes would be a yes to.
func whole(q access.Approval) bool {
	_, title := cut(visible(q.Title, false), maxTitle)
	_, text := cut(visible(q.Text, true), maxWhole)
	return !q.Truncated && title == 0 && text == 0 && len(q.ID) <= maxID
}

// asked is a pending question.
func asked(q access.Approval) content {
	blocks := append([]slack.Block{header("Approval needed"), who(q)}, what(q)...)
	blocks = append(blocks, why(q), facts(q,
		"Expires "+date(q.Expires), masked(q), "`jobgate approvals` answers it, too", mrkdwn(q.ID, maxLine)))
	if len(q.ID) <= maxID {
		blocks = append(blocks, buttons(q))
	}
	return content{"Approval needed: " + subject(q), blocks}
}

// settled is a question and its outcome.
func settled(q access.Approval) content {
	outcome := section(row("Outcome", outcomeText(q))...)
	blocks := []slack.Block{header(headline(q.State)), slack.NewRichTextBlock("outcome", outcome), who(q)}
	blocks = append(blocks, what(q)...)
	when := ""
	if !q.Vote.At.IsZero() {
		when = headline(q.State) + " " + date(q.Vote.At)
	}
	return content{headline(q.State) + ": " + subject(q), append(blocks, why(q), facts(q, when, masked(q), mrkdwn(q.ID, maxLine)))}
}

func headline(s access.ApprovalState) string {
	switch s {
	case access.Approved:
		return "Approved"
	case access.Denied:
		return "Denied"
	case access.Expired:
		return "Expired, which denies"
	}
	return "Cancelled"
}

// outcomeText says who decided, where, and why.
func outcomeText(q access.Approval) string {
	text := string(q.State)
	if q.State == access.Approved || q.State == access.Denied {
		text += " by " + line(q.Vote.By, maxValue)
		if q.Vote.Via != "" {
			text += ", via " + line(q.Vote.Via, maxLine)
		}
	}
	reason := q.Vote.Reason
	if reason == "" {
		reason = q.Note
	}
	if reason != "" {
		text += ": " + line(reason, maxReason)
	}
	return text
}

// subject is the question in one line.
func subject(q access.Approval) string {
	text := mrkdwn(q.Title, maxLine)
	if q.Job.Repository != "" {
		text += " for " + mrkdwn(q.Job.Repository, maxLine)
	}
	return text + " (rule " + mrkdwn(q.Rule, maxLine) + ")"
}

func header(text string) slack.Block {
	return slack.NewHeaderBlock(slack.NewTextBlockObject(slack.PlainTextType, text, false, false))
}

// who says which job asks, and by what it may.
func who(q access.Approval) slack.Block {
	var e []slack.RichTextSectionElement
	for _, f := range q.Job.Fields() {
		if href, ok := runLink(f[1]); ok && f[0] == "Run" {
			e = append(e, bold("Run: "), slack.NewRichTextSectionLinkElement(href, line(href, maxValue), nil), plain("\n"))
			continue
		}
		e = append(e, row(f[0], line(f[1], maxValue))...)
	}
	e = append(e, row("Mapping", fmt.Sprintf("%s, revision %d", line(q.Mapping, maxValue), q.Revision))...)
	e = append(e, row("Connection", line(q.Connection, maxValue))...)
	e = append(e, row("Session", line(q.Session, maxValue))...)
	return slack.NewRichTextBlock("who", section(e...))
}

// what shows exactly what would run, as far as it fits.
func what(q access.Approval) []slack.Block {
	parts := []slack.RichTextElement{section(bold(line(orElse(q.Title, "(no title)"), maxTitle)))}
	text, left := cut(visible(q.Text, true), maxWhole)
	if text != "" {
		parts = append(parts, &slack.RichTextPreformatted{Type: slack.RTEPreformatted, Elements: []slack.RichTextSectionElement{plain(text)}})
	}
	blocks := []slack.Block{slack.NewRichTextBlock("what", parts...)}
	if whole(q) {
		return blocks
	}
	missing := "Not all of it is shown."
	if left > 0 {
		missing = fmt.Sprintf("%d more characters are not shown.", left)
	}
	missing = "*" + missing + "*"
	if q.State == access.Pending {
		missing += fmt.Sprintf(" It can be denied here. To approve it, read it and run `jobgate approvals approve %s`", mrkdwn(q.ID, maxLine))
	}
	return append(blocks, slack.NewSectionBlock(markup(missing), nil, nil))
}

// why names the rule, its reason, and who may answer.
func why(q access.Approval) slack.Block {
	e := row("Rule", line(q.Rule, maxValue))
	e = append(e, row("Reason", line(q.Reason, maxReason))...)
	approvers := "every member of this workspace"
	if len(q.Approvers) > 0 {
		approvers = line(strings.Join(q.Approvers, ", "), maxValue)
	}
	return slack.NewRichTextBlock("why", section(append(e, row("Approvers", approvers)...)...))
}

func masked(q access.Approval) string {
	switch q.Masked {
	case 0:
		return "nothing masked"
	case 1:
		return "1 value masked"
	}
	return fmt.Sprintf("%d values masked", q.Masked)
}

// facts is the small print.
func facts(q access.Approval, texts ...string) slack.Block {
	var said []string
	for _, t := range texts {
		if t != "" {
			said = append(said, t)
		}
	}
	return slack.NewContextBlock("facts", markup(strings.Join(said, " · ")))
}

// buttons offers a yes only where all is shown.
func buttons(q access.Approval) slack.Block {
	label := func(text string) *slack.TextBlockObject {
		return slack.NewTextBlockObject(slack.PlainTextType, text, false, false)
	}
	deny := slack.NewButtonBlockElement(denyAction, q.ID, label("Deny")).WithStyle(slack.StyleDanger)
	if !whole(q) {
		return slack.NewActionBlock("decide", deny)
	}
	approve := slack.NewButtonBlockElement(approveAction, q.ID, label("Approve")).WithStyle(slack.StylePrimary)
	return slack.NewActionBlock("decide", approve, deny)
}

// date shows an instant in the reader's own time zone.
func date(t time.Time) string {
	return fmt.Sprintf("<!date^%d^{date_short_pretty} at {time_secs}|%s>", t.Unix(), t.UTC().Format("2006-01-02 15:04:05 UTC"))
}

func markup(text string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.MarkdownType, text, false, true)
}

func section(e ...slack.RichTextSectionElement) *slack.RichTextSection {
	return slack.NewRichTextSection(e...)
}

func row(label, text string) []slack.RichTextSectionElement {
	if text == "" {
		return nil
	}
	return []slack.RichTextSectionElement{bold(label + ": "), plain(text + "\n")}
}

func plain(text string) slack.RichTextSectionElement {
	return slack.NewRichTextSectionTextElement(text, nil)
}

func bold(text string) slack.RichTextSectionElement {
	return slack.NewRichTextSectionTextElement(text, &slack.RichTextSectionTextStyle{Bold: true})
}

func orElse(s, other string) string {
	if strings.TrimSpace(s) == "" {
		return other
	}
	return s
}
