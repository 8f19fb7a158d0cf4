// Package slackapp is the approvals' face in Slack: it posts a question as a message with two buttons, verifies who
// pressed one, and replaces the message by the outcome.
//
// [App] satisfies the desk's Channel; [App.Handler] serves the interactions that Slack sends, and passes votes on to
// [Questions], which the desk satisfies.
//
//	app, err := slackapp.New(slackapp.Config{BotToken: token, SigningSecret: secret, Channel: "C0123456789", Groups: groups})
//	mux.Handle("POST /hooks/slack/interactions", app.Handler(desk))
//
// What it trusts: an interaction whose raw body carries Slack's signature and a timestamp of the last five minutes.
// From it, it takes ids only. The person is looked up by id and must be an active human member of the app's own
// workspace, and in one of the rule's approver groups by confirmed email or by user group. A group that is not
// configured has nobody in it. Where the rule names no approvers, every member but guests may answer.
//
// What it shows was chosen by whoever writes the repository or steers the agent: it stands in rich text, where Slack
// interprets nothing, with control, invisible and direction-changing characters spelled out. A question that does not
// fit into a message whole can be denied here, and approved at the command line only.
//
// The app needs the bot scopes chat:write, users:read, users:read.email and usergroups:read.
package slackapp
