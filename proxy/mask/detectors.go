package mask

// Detectors returns the built-in detectors: shapes of credentials that their issuers document or that their tools check.
// They are tuned to miss a value rather than to mask ordinary text. Of values without an upper bound, 4 KiB are held back
// by a stream and the rest is masked as it comes; of private keys 16 KiB.
func Detectors() []Detector {
	list := prefixed()
	list = append(list, structured()...)
	return append(list, contextual()...)
}

// prefixed are tokens that begin with their issuer's mark and go on in one run of characters, whatever its length.
func prefixed() []Detector {
	alnum, word, url64 := chars("A-Za-z0-9"), chars("A-Za-z0-9_"), chars("A-Za-z0-9_-")
	dotted := chars("A-Za-z0-9_.-")
	row := func(name string, set *charset, min int, anchors ...string) Detector {
		match := func(t text) (find, verdict) { return find{}, absent }
		for _, a := range anchors {
			match = oneOf(shape(word, nil, lit(a), endless(set, min)), match)
		}
		return Detector{Name: name, Anchors: anchors, after: set, match: match}
	}
	return []Detector{
		row("anthropic-key", url64, 20, "sk-ant-"),
		row("openai-key", url64, 20, "sk-proj-", "sk-svcacct-", "sk-admin-", "sk-or-v1-"),
		row("github-token", alnum, 36, "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
		row("github-token", word, 36, "github_pat_"),
		row("gitlab-token", dotted, 20, "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "gloas-", "glimt-"),
		row("slack-token", chars("A-Za-z0-9-"), 20, "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxc-", "xoxd-", "xoxe-", "xoxe.xox", "xapp-"),
		row("stripe-key", alnum, 16, "sk_live_", "rk_live_", "sk_test_", "rk_test_"),
		row("webhook-secret", chars("A-Za-z0-9+/="), 24, "whsec_"),
		row("npm-token", alnum, 36, "npm_"),
		row("pypi-token", url64, 50, "pypi-AgE"),
		row("google-oauth-token", url64, 20, "ya29.", "GOCSPX-"),
		row("huggingface-token", alnum, 30, "hf_", "api_org_"),
		row("digitalocean-token", chars("0-9a-f"), 64, "dop_v1_", "doo_v1_", "dor_v1_"),
		row("vault-token", url64, 24, "hvs.", "hvb.", "hvr."),
		row("docker-token", url64, 24, "dckr_pat_", "dckr_oat_"),
		row("shopify-token", chars("0-9a-fA-F"), 32, "shpat_", "shpss_", "shpca_", "shppa_"),
		row("grafana-token", chars("A-Za-z0-9_=+/"), 32, "glsa_", "glc_"),
		row("newrelic-key", alnum, 27, "NRAK-", "NRJS-", "NRII-"),
		row("postman-key", url64, 50, "PMAK-"),
		row("linear-key", alnum, 40, "lin_api_", "lin_oauth_"),
		row("notion-token", alnum, 40, "ntn_"),
		row("groq-key", alnum, 48, "gsk_"),
		row("replicate-token", alnum, 37, "r8_"),
		row("perplexity-key", alnum, 40, "pplx-"),
		row("xai-key", alnum, 60, "xai-"),
		row("doppler-token", alnum, 40, "dp.pt.", "dp.st.", "dp.ct.", "dp.sa."),
		row("figma-token", url64, 36, "figd_"),
		row("atlassian-token", chars("A-Za-z0-9_=-"), 60, "ATATT3", "ATCTT3"),
		row("sentry-token", chars("A-Za-z0-9_=+/"), 40, "sntrys_", "sntryu_"),
		row("buildkite-token", alnum, 40, "bkua_", "bkaj_", "bkct_"),
		row("circleci-token", word, 40, "CCIPAT_", "CCIPRJ_"),
		row("pulumi-token", chars("0-9a-f"), 40, "pul-"),
		row("planetscale-token", dotted, 32, "pscale_tkn_", "pscale_pw_", "pscale_oauth_"),
		row("tailscale-key", url64, 20, "tskey-"),
		row("supabase-key", word, 30, "sbp_", "sb_secret_"),
		row("fly-token", chars("A-Za-z0-9_+/=-"), 60, "fm2_", "fm1r_"),
		row("age-key", chars("A-Z0-9"), 58, "AGE-SECRET-KEY-1"),
	}
}

// structured are values of a fixed length or of several parts.
func structured() []Detector {
	var (
		alnum  = chars("A-Za-z0-9")
		word   = chars("A-Za-z0-9_")
		url64  = chars("A-Za-z0-9_-")
		hexLow = chars("0-9a-f")
		user   = chars("A-Za-z0-9._~%!$&'()*+,;=-")
		pass   = chars("A-Za-z0-9._~%!$&'()*+,;=:-")
	)
	var twilio []string
	for _, c := range "0123456789abcdef" {
		twilio = append(twilio, "SK"+string(c))
	}
	jwtPart := func(min, max int) step { return run(url64, min, max) }
	return []Detector{
		{Name: "aws-access-key", Anchors: []string{"AKIA", "ASIA", "ABIA", "ACCA"},
			match: shape(word, word, run(chars("A-Z0-9"), 20, 20))},
		{Name: "google-api-key", Anchors: []string{"AIza"},
			match: shape(word, url64, lit("AIza"), run(url64, 35, 35))},
		{Name: "openai-key", Anchors: []string{"sk-"}, after: alnum,
			match: shape(url64, url64, lit("sk-"), run(alnum, 32, 64))},
		{Name: "jobgate-token", Anchors: []string{"jg_"}, after: alnum,
			match: shape(word, word, lit("jg_"), run(alnum, 40, 64))},
		{Name: "twilio-key", Anchors: twilio, after: hexLow,
			match: shape(word, word, lit("SK"), run(hexLow, 32, 32))},
		{Name: "databricks-token", Anchors: []string{"dapi"},
			match: shape(word, word, lit("dapi"), run(hexLow, 32, 32))},
		{Name: "sendgrid-key", Anchors: []string{"SG."}, after: url64,
			match: shape(word, nil, lit("SG."), run(url64, 16, 32), lit("."), run(url64, 32, 64))},
		{Name: "jwt", Anchors: []string{"eyJ"}, after: url64,
			match: shape(url64, nil, lit("eyJ"), jwtPart(8, 4<<10), lit("."), jwtPart(8, 8<<10), lit("."), endless(url64, 0))},
		{Name: "slack-webhook", Anchors: []string{"hooks.slack.com/services/", `hooks.slack.com\/services\/`},
			match: shape(nil, nil, lit("hooks.slack.com"), run(chars(`\/`), 1, 2), lit("services"), run(chars(`\/`), 1, 2),
				run(chars(`A-Za-z0-9\/`), 30, 128).masked())},
		{Name: "url-password", Anchors: []string{"://"}, after: pass,
			match: shape(nil, nil, lit("://"), run(user, 0, 128), lit(":"), run(pass, 1, 256).masked(), lit("@"))},
		{Name: "url-password", Anchors: []string{`:\/\/`},
			match: shape(nil, nil, lit(`:\/\/`), run(user, 0, 128), lit(":"), run(pass, 1, 256).masked(), lit("@"))},
		{Name: "private-key", Anchors: []string{"-BEGIN "}, match: privateKey},
	}
}

// contextual are values that only the words before them tell.
func contextual() []Detector {
	var (
		hexAny = chars("0-9a-fA-F")
		std64  = chars("A-Za-z0-9+/=")
		token  = chars("A-Za-z0-9._~+/=-")
		alnum  = chars("A-Za-z0-9")
		gap    = chars(" \t\"'\\=:>")
	)
	row := func(name string, right *charset, value step, words ...string) Detector {
		match := func(t text) (find, verdict) { return find{}, absent }
		for _, w := range words {
			match = oneOf(shape(nil, right, lit(w), run(gap, 1, 12), value.masked()), match)
		}
		return Detector{Name: name, Anchors: words, match: match}
	}
	return []Detector{
		row("aws-secret-key", std64, run(chars("A-Za-z0-9+/"), 40, 40),
			"aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "SecretAccessKey", "secretAccessKey"),
		row("aws-session-token", nil, endless(std64, 100),
			"aws_session_token", "AWS_SESSION_TOKEN", "SessionToken", "sessionToken"),
		row("gcp-key-id", alnum, run(hexAny, 40, 40), "private_key_id"),
		row("datadog-key", alnum, run(hexAny, 32, 40),
			"DD_API_KEY", "DD_APP_KEY", "DD-API-KEY", "DD-APPLICATION-KEY", "Dd-Api-Key", "dd-api-key", "dd-application-key"),
		row("azure-key", nil, run(std64, 40, 128), "AccountKey", "SharedAccessKey"),
		{Name: "azure-sas", Anchors: []string{"sig="},
			match: shape(alnum, nil, lit("sig="), run(chars("A-Za-z0-9%+/="), 43, 80).masked())},
		{Name: "bearer-token", Anchors: []string{"Bearer ", "bearer ", "BEARER "},
			match: shape(alnum, nil, run(chars("BEARERbearer"), 6, 6), lit(" "), endless(token, 20).masked())},
		{Name: "basic-auth", Anchors: []string{"Basic ", "basic ", "BASIC "}, match: basicAuth},
	}
}
