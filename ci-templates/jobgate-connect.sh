#!/bin/sh
# jobgate-connect.sh: opens and closes a Jobgate session where nothing can be installed. It needs a POSIX shell and curl.
# Where jobgate-job can be had, take that: it renews the lease, and its exec hides the CI token from the command.
#
#   eval "$(sh jobgate-connect.sh connect)"     variables for the job's clients, on stdout; the session token is in a file
#   sh jobgate-connect.sh close                 what the session did; closes it
#
# Variables: JOBGATE_URL (Jobgate's public_url, exactly; required), JOBGATE_MAPPING, JOBGATE_SCOPE, JOBGATE_CONNECTION,
# JOBGATE_ON_DENIAL (fail or warn), JOBGATE_STATE (a file; close finds the session by it), JOBGATE_ID_TOKEN (the CI token;
# another variable with --token-env NAME, a file with --token-file FILE).
# Exit codes: 0 done, 1 failed, 2 wrong use, 3 denied. When connect fails, what it prints makes eval fail with that code.
#
# No token stands on a command line, where every process could read it: curl takes them from its standard input, and
# printf is the shell's own.
set -eu
umask 077
LC_ALL=C
export LC_ALL

say() { printf 'jobgate-connect: %s\n' "$1" >&2; }
fail() { say "$2"; exit "$1"; }
usage() { fail 2 "usage: jobgate-connect.sh connect [--token-env NAME | --token-file FILE] | close"; }

command=${1-}
[ $# -gt 0 ] && shift
body=
leave() {
	status=$?
	[ -z "$body" ] || rm -f "$body"
	# eval of nothing succeeds, and the job would go on without a session.
	if [ "$status" -ne 0 ] && [ "$command" = connect ]; then printf '(exit %s)\n' "$status"; fi
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

token_env=JOBGATE_ID_TOKEN
token_file=
while [ $# -gt 0 ]; do
	case $1 in
	--token-env) [ $# -gt 1 ] || usage; token_env=$2; shift 2 ;;
	--token-file) [ $# -gt 1 ] || usage; token_file=$2; shift 2 ;;
	*) usage ;;
	esac
done
case $command in connect | close) ;; *) usage ;; esac

# only VALUE CHARACTERS succeeds where the value consists of nothing else.
only() { case $1 in '' | *[!$2]*) return 1 ;; esac; }

check_url() {
	url=${JOBGATE_URL-}
	while [ "${url%/}" != "$url" ]; do url=${url%/}; done
	only "$url" ']A-Za-z0-9:/._~%[-' || fail 2 "JOBGATE_URL must be Jobgate's public_url, such as https://jobgate.example.com"
	case $url in
	https://?*) ;;
	http://localhost | http://localhost[:/]* | http://127.0.0.1 | http://127.0.0.1[:/]* | http://\[::1\]*) ;;
	*) fail 2 "JOBGATE_URL must begin with https://; plain http is taken on a loopback address only" ;;
	esac
}

check_words() {
	[ -z "${JOBGATE_MAPPING-}" ] || only "$JOBGATE_MAPPING" 'a-z0-9-' || fail 2 "JOBGATE_MAPPING is no mapping's name"
	[ -z "${JOBGATE_SCOPE-}" ] || only "$JOBGATE_SCOPE" 'a-z0-9 -' || fail 2 "JOBGATE_SCOPE must be names of connections, separated by spaces"
	[ -z "${JOBGATE_CONNECTION-}" ] || only "$JOBGATE_CONNECTION" 'a-z0-9-' || fail 2 "JOBGATE_CONNECTION is no connection's name"
	case ${JOBGATE_ON_DENIAL-fail} in fail | warn) ;; *) fail 2 "JOBGATE_ON_DENIAL can be fail or warn" ;; esac
}

check_shadows() {
	for name in ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_PROFILE CLAUDE_CODE_OAUTH_TOKEN \
		CLAUDE_CODE_USE_BEDROCK CLAUDE_CODE_USE_VERTEX CLAUDE_CODE_USE_FOUNDRY; do
		eval "value=\${$name-}"
		[ -z "$value" ] || fail 1 "$name stands in this job's environment: Claude clients prefer it, silently, to a session, and calls would go around Jobgate. Take it out of the job's variables"
	done
	value=
}

# ci_token sets $token. $token_env is a name and nothing else before it is evaluated.
ci_token() {
	if [ -n "$token_file" ]; then
		[ -f "$token_file" ] || fail 1 "the token file $token_file is not there"
		token=$(head -c 16385 "$token_file" | tr -d ' \t\r\n')
	else
		case $token_env in [!A-Za-z_]* | *[!A-Za-z0-9_]* | '') fail 2 "--token-env must be the name of a variable" ;; esac
		eval "token=\${$token_env-}"
		[ -n "$token" ] || fail 1 "there is no CI token in $token_env; under GitLab add to the job: id_tokens: {$token_env: {aud: $url}}"
	fi
	only "$token" 'A-Za-z0-9._-' || fail 1 "what is in the CI token's place is no OIDC token"
}

# post PATH sends the curl configuration on its standard input, and sets $code; the answer is in the file $body. Redirects
# are not followed.
post() {
	[ -n "$body" ] || body=$(mktemp "${TMPDIR:-/tmp}/jobgate-answer.XXXXXX")
	code=$(curl --silent --show-error --max-time 20 --max-filesize 1048576 --header 'Accept: application/json' \
		--user-agent jobgate-connect --output "$body" --write-out '%{http_code}' --config - "$url$1") ||
		fail 1 "cannot reach $url (see curl's message above; for a private certificate authority set CURL_CA_BUNDLE)"
}

# patiently repeats what a server answers that is away for a moment: half a minute in all.
patiently() {
	for pause in 1 2 4 8 15 0; do
		"$1"
		case $code in 502 | 503 | 504) ;; *) return 0 ;; esac
		[ "$pause" -gt 0 ] || return 0
		say "Jobgate answered $code; asking again in $pause s"
		sleep "$pause"
	done
}

# text NAME and number NAME print the answer's field of this name. The values that are used consist of plain characters.
text() { sed -n 's/.*"'"$1"'":"\([^"\\]*\)".*/\1/p' "$body" | head -n 1; }
number() { sed -n 's/.*"'"$1"'":\([0-9][0-9]*\).*/\1/p' "$body" | head -n 1; }

# refusal shows an error of RFC 6749, whose description may hold escaped quotes.
refusal() {
	error=$(text error)
	[ -n "$error" ] || fail 1 "$url answered $code without an OAuth error; is it a Jobgate server's public_url?"
	why=$(sed -En 's/.*"error_description":"(([^"\\]|\\.)*)".*/\1/p' "$body" | tr -d '\000-\037\177' | cut -c 1-900)
	say "Jobgate refused the exchange with $code $error${why:+: $why}"
	if [ "$code" = 400 ]; then exit 3; fi
	exit 1
}

# field NAME VALUE prints a line of the configuration, where there is a value.
field() { [ -z "$2" ] || printf 'data-urlencode = "%s=%s"\n' "$1" "$2"; }

exchange() {
	post /oauth/token <<-CONFIG
		data-urlencode = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange"
		data-urlencode = "subject_token_type=urn:ietf:params:oauth:token-type:jwt"
		data-urlencode = "subject_token=$token"
		$(field mapping "${JOBGATE_MAPPING-}")
		$(field scope "${JOBGATE_SCOPE-}")
	CONFIG
}

introspect() {
	post /oauth/introspect <<-CONFIG
		header = "Authorization: Bearer $session_token"
		data-urlencode = "token=$session_token"
	CONFIG
}

revoke() {
	post /oauth/revoke <<-CONFIG
		data-urlencode = "token=$session_token"
	CONFIG
}

session_form() { case $1 in jg_*) only "$1" 'A-Za-z0-9_' ;; *) return 1 ;; esac; }

# choose sets $chosen to the connection of kind anthropic that the clients' variables shall name, or to nothing.
choose() {
	able=$(tr '{' '\n' <"$body" | sed -n '/"kind":"anthropic"/s/.*"name":"\([a-z0-9-]*\)".*/\1/p' | tr '\n' ' ')
	able=${able% }
	chosen=${JOBGATE_CONNECTION-}
	case " $able " in
	*" $chosen "*) ;;
	*) [ -z "$chosen" ] || fail 2 "connection $chosen is not granted here as one of kind anthropic; granted: $able" ;;
	esac
	[ -n "$chosen" ] || case $able in
	*' '*) fail 2 "several connections of kind anthropic are granted ($able); name one in JOBGATE_CONNECTION" ;;
	*) chosen=$able ;;
	esac
}

export_line() { printf "export %s='%s'\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\''/g")"; }

connect() {
	check_url; check_words; check_shadows; ci_token
	patiently exchange
	[ "$code" = 200 ] || refusal
	session_token=$(text access_token)
	session=$(text session_id)
	mapping=$(text mapping)
	scope=$(text scope)
	if ! session_form "$session_token" || ! only "$session" 'A-Za-z0-9_-' || ! only "$mapping" 'a-z0-9-' || ! only "$scope" 'a-z0-9 -'; then
		fail 1 "$url/oauth/token answered 200 without a session; is it a Jobgate server?"
	fi
	choose
	open_folder
	print_exports
	say "session $session is open under mapping $mapping, for $scope; its window closes with this job, or after $(number expires_in) s"
	say "nothing renews its lease of $(number lease_seconds) s: it sleeps after that unless Jobgate asks the provider itself"
}

# open_folder makes a folder that only this user can read, the token file in it, and the state that close reads.
open_folder() {
	state=${JOBGATE_STATE-}
	parent=${TMPDIR:-/tmp}
	if [ -n "$state" ]; then
		parent=$(dirname "$state")
		mkdir -p "$parent"
	fi
	dir=$(mktemp -d "$parent/jobgate-XXXXXX")
	dir=$(cd "$dir" && pwd)
	mkdir "$dir/federation"
	printf %s "$session_token" >"$dir/token"
	[ -n "$state" ] || state=$dir/state
	rm -f "$state"
	printf 'session=%s\ndir=%s\n' "$session" "$dir" >"$state"
}

print_exports() {
	if [ -n "$chosen" ]; then
		export_line ANTHROPIC_BASE_URL "$url/$chosen"
		export_line ANTHROPIC_FEDERATION_RULE_ID "$mapping"
		export_line ANTHROPIC_ORGANIZATION_ID jobgate
		export_line ANTHROPIC_IDENTITY_TOKEN_FILE "$dir/token"
		export_line CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC 1
		export_line CLAUDE_CODE_FEDERATION_CACHE_DIR "$dir/federation"
		export_line CLAUDE_CODE_GATEWAY_HINT_HEADERS 1
	fi
	for name in $scope; do
		export_line "JOBGATE_URL_$(printf %s "$name" | tr 'a-z-' 'A-Z_')" "$url/$name"
	done
	export_line JOBGATE_SESSION_ID "$session"
	export_line JOBGATE_STATE "$state"
	export_line JOBGATE_TOKEN_FILE "$dir/token"
	# It was for Jobgate alone, and has been used.
	[ -n "$token_file" ] || printf 'unset %s\n' "$token_env"
}

close() {
	check_url; check_words
	state=${JOBGATE_STATE-}
	[ -f "$state" ] || fail 1 "close needs what connect left: the file of JOBGATE_STATE is not there"
	session=$(sed -n 's/^session=//p' "$state" | head -n 1)
	dir=$(sed -n 's/^dir=//p' "$state" | head -n 1)
	session_token=$(head -c 256 "$dir/token" 2>/dev/null || :)
	denials=
	if session_form "$session_token"; then
		patiently introspect
		if [ "$code" = 200 ] && [ "$(text session_id)" = "$session" ]; then
			denials=$(number denials)
			say "session $session: $(number calls) calls, $denials refused, $(number asked) questions; archive: $(text archive)"
			patiently revoke
			[ "$code" = 200 ] || say "it could not be closed ($code); it sleeps when its lease ends"
		fi
	fi
	# Deleted is only what connect makes.
	case $dir in */jobgate-??????) [ ! -d "$dir/federation" ] || rm -rf "$dir" ;; esac
	rm -f "$state"
	judge
}

judge() {
	[ "${JOBGATE_ON_DENIAL-fail}" = fail ] || return 0
	[ -n "$denials" ] || fail 1 "what session $session did is not known: the token file no longer holds its token"
	[ "$denials" = 0 ] || fail 3 "$denials calls and tool uses were refused. With JOBGATE_ON_DENIAL=warn the job would not fail for it"
}

"$command"
