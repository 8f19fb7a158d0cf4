// Package httpd serves Jobgate's two sides over HTTP. They are two listeners and two origins, always: what a
// connection returns can be an attacker's page, and on the people's side it would act with an approver's cookie.
//
//	jobs' side     POST /oauth/token, /oauth/revoke, /oauth/introspect; /.well-known/jobgate-archive.json; health;
//	               and everything else is a call to a connection, which never passes a router that redirects or cleans
//	people's side  /v1/mappings, /v1/sessions, /v1/approvals, /hooks/slack/interactions, /metrics; health
//
// Handlers return errors; one table a side turns their codes into statuses. It is the only home of gin.
package httpd
