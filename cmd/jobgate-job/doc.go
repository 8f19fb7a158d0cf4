// Command jobgate-job is the job's side of Jobgate, for every CI provider: it shows the job's OIDC token to Jobgate, points
// the job's SDKs at it, keeps the session awake, and closes it.
//
//	jobgate-job exec --url https://jobgate.example.com -- node agent.mjs
//	eval "$(jobgate-job connect)" ... jobgate-job close
//	jobgate-job doctor
//
// exec is the safer of the two: the command that it starts finds neither the CI token nor what more of them can be had
// with in its environment. Neither puts a token on a command line, into a variable or into its output: the session token
// stands in a file (0600), and its path in ANTHROPIC_IDENTITY_TOKEN_FILE and JOBGATE_TOKEN_FILE.
//
// Exit codes: 0 done, 1 failed, 2 wrong use, 3 denied. exec passes on the code of its command; 128+n for signal n.
package main
