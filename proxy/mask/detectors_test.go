package mask_test

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/jobgate/jobgate/proxy/mask"
)

// letters gives n characters that no credential has.
func letters(n int) string { return strings.Repeat("aB3dE5gH7j", n/10+1)[:n] }

func hexes(n int) string { return strings.Repeat("0a1b2c3d4e", n/10+1)[:n] }

// Examples: what stands between « and » is masked. A line without them is left alone.
var detectorExamples = map[string][]string{
	"anthropic-key":      {"key=«sk-ant-api03-" + letters(90) + "-_AA»;", "sk-ant-short", "task-ant-" + letters(40)},
	"openai-key":         {"«sk-proj-" + letters(40) + "»", "«sk-svcacct-" + letters(30) + "»", `"«sk-` + letters(48) + `»"`, "sk-" + letters(20), "risk-" + letters(48), "«sk-or-v1-" + hexes(64) + "»"},
	"github-token":       {"«ghp_" + letters(36) + "» x", `\n«ghs_` + letters(36) + `»\n`, "%20«gho_" + letters(36) + "»", "«github_pat_11" + letters(20) + "_" + letters(59) + "»", "ghp_" + letters(20), "xghp_" + letters(36)},
	"gitlab-token":       {"«glpat-" + letters(20) + "»", "«glcbt-64_" + letters(20) + "»", "glpat-x"},
	"slack-token":        {"«xoxb-123456789012-123456789012-" + letters(24) + "»", "«xapp-1-A0123-456-" + hexes(64) + "»", "xoxb-token-goes"},
	"stripe-key":         {"«sk_live_" + letters(24) + "»", "«rk_test_" + letters(24) + "»", "sk_live_demo"},
	"webhook-secret":     {"«whsec_" + letters(32) + "»", "whsec_test"},
	"npm-token":          {"_authToken=«npm_" + letters(36) + "»", "npm_config_registry=https"},
	"pypi-token":         {"«pypi-AgEIcHlwaS5vcmc" + letters(60) + "»", "pypi-AgEnt"},
	"google-oauth-token": {"«ya29." + letters(60) + "»", "«GOCSPX-" + letters(28) + "»", "ya29.x"},
	"huggingface-token":  {"«hf_" + letters(34) + "»", "hf_hub_download", "self_" + letters(40)},
	"digitalocean-token": {"«dop_v1_" + hexes(64) + "»", "dop_v1_" + hexes(10)},
	"vault-token":        {"«hvs." + letters(24) + "»", "hvs.go"},
	"docker-token":       {"«dckr_pat_" + letters(27) + "»", "dckr_pat_x"},
	"shopify-token":      {"«shpat_" + hexes(32) + "»", "shpat_"},
	"grafana-token":      {"«glsa_" + letters(32) + "_" + hexes(8) + "»", "glsa_x"},
	"newrelic-key":       {"«NRAK-" + letters(27) + "»", "NRAK-"},
	"postman-key":        {"«PMAK-" + hexes(24) + "-" + hexes(34) + "»", "PMAK-x"},
	"linear-key":         {"«lin_api_" + letters(40) + "»", "lin_api_x"},
	"notion-token":       {"«ntn_" + letters(46) + "»", "ntn_x"},
	"groq-key":           {"«gsk_" + letters(52) + "»", "gsk_x"},
	"replicate-token":    {"«r8_" + letters(37) + "»", "r8_x", "user8_" + letters(40)},
	"perplexity-key":     {"«pplx-" + letters(48) + "»", "pplx-70b-online"},
	"xai-key":            {"«xai-" + letters(80) + "»", "xai-grok"},
	"doppler-token":      {"«dp.pt." + letters(43) + "»", "dp.pt.x"},
	"figma-token":        {"«figd_" + letters(40) + "»", "figd_x"},
	"atlassian-token":    {"«ATATT3" + letters(180) + "=" + hexes(8) + "»", "ATATT3x"},
	"sentry-token":       {"«sntrys_" + letters(60) + "»", "sntrys_x"},
	"buildkite-token":    {"«bkua_" + hexes(40) + "»", "bkua_x"},
	"circleci-token":     {"«CCIPAT_" + letters(22) + "_" + hexes(40) + "»", "CCIPAT_x"},
	"pulumi-token":       {"«pul-" + hexes(40) + "»", "pul-x"},
	"planetscale-token":  {"«pscale_tkn_" + letters(43) + "»", "pscale_tkn_x"},
	"tailscale-key":      {"«tskey-auth-" + letters(12) + "-" + letters(32) + "»", "tskey-"},
	"supabase-key":       {"«sbp_" + hexes(40) + "»", "sbp_x"},
	"fly-token":          {"FlyV1 «fm2_" + letters(100) + "»", "fm2_x"},
	"age-key":            {"«AGE-SECRET-KEY-1" + strings.ToUpper(letters(58)) + "»", "AGE-SECRET-KEY-1..."},
	"aws-access-key":     {"«AKIAIOSFODNN7EXAMPLE»", `"«ASIAIOSFODNN7EXAMPLE»"`, "AKIAIOSFODNN7EXAMPLES", "xAKIAIOSFODNN7EXAMPLE", "ASIAN"},
	"google-api-key":     {"?key=«AIza" + letters(35) + "»&", "AIza" + letters(36), "AIza" + letters(10)},
	"jobgate-token":      {"«jg_" + letters(49) + "»", "jg_version"},
	"twilio-key":         {"«SK" + hexes(32) + "»", "SK" + hexes(33), "SKaters"},
	"databricks-token":   {"«dapi" + hexes(32) + "»", "dapi" + hexes(12), "dapi_root"},
	"sendgrid-key":       {"«SG." + letters(22) + "." + letters(43) + "»", "SG.U.1", "MSG.xyz"},
	"jwt":                {"«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + letters(43) + "»", "«eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»", "eyJhbGciOiJub25lIn0"},
	"slack-webhook":      {"https://hooks.slack.com/services/«T0000/B0000/" + letters(24) + "»", "https://hooks.slack.com/services/x"},
	"url-password":       {"postgres://user:«p%40ss:word»@db/x", `"amqp:\/\/u:«secret»@host"`, "redis://:«pw»@h", "http://localhost:8080/@x", "https://github.com/a:b@c", "see https://example.com: it@x"},
	"private-key": {
		"-----BEGIN RSA PRIVATE KEY-----«\n" + letters(64) + "\n" + letters(20) + "\n»-----END RSA PRIVATE KEY-----",
		`"-----BEGIN PRIVATE KEY-----«\n` + letters(64) + `\n»-----END PRIVATE KEY-----\n"`,
		"-----BEGIN PGP PRIVATE KEY BLOCK-----«\nVersion: X\n\n" + letters(64) + "\n»-----END",
		"-----BEGIN RSA PRIVATE KEY-----«\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + letters(64) + "»",
		"-----BEGIN PUBLIC KEY-----\n" + letters(64) + "\n-----END PUBLIC KEY-----",
		"a line of -----BEGIN PRIVATE KEY----- begins it and ends with another; no more to say here",
		"-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
		"|-----------|------|",
	},
	"aws-secret-key":    {`aws_secret_access_key = «` + letters(40) + `»`, `{\"SecretAccessKey\": \"«` + letters(40) + `»\"}`, "<SecretAccessKey>«" + letters(40) + "»</", "aws_secret_access_key = " + letters(41), "AWS_SECRET_ACCESS_KEY=${{ secrets.KEY }}"},
	"aws-session-token": {`"SessionToken": "«` + letters(300) + `==»"`, `"sessionToken": "x"`},
	"gcp-key-id":        {`"private_key_id": "«` + hexes(40) + `»",`, `"private_key_id": "x"`},
	"datadog-key":       {"DD-API-KEY: «" + hexes(32) + "»", "DD_APP_KEY=«" + hexes(40) + "»", "DD_API_KEY=$KEY"},
	"azure-key":         {"AccountName=x;AccountKey=«" + letters(86) + "==»;Endpoint", "SharedAccessKey=«" + letters(43) + "=»", "AccountKey=x"},
	"azure-sas":         {"?sv=2024&sig=«" + letters(43) + "%3D»&se=1", "sig=x", "design=" + letters(50)},
	"bearer-token":      {"Authorization: Bearer «" + letters(24) + "»", "authorization: bearer «a.b-c_d~e+f/" + letters(12) + "=»", "Bearer of good news", "forbearer " + letters(24)},
	"basic-auth":        {"Authorization: Basic «" + base64.StdEncoding.EncodeToString([]byte("user:pass")) + "»", "Basic authentication is", "Basic understanding"},
}

func TestDetectors(t *testing.T) {
	set := compile(t, mask.Config{Detectors: mask.Detectors()})
	for _, d := range mask.Detectors() {
		if len(detectorExamples[d.Name]) < 2 {
			t.Errorf("detector %s has no examples", d.Name)
		}
	}
	marked := regexp.MustCompile(`(?s)«.*?»`)
	unmark := strings.NewReplacer("«", "", "»", "")
	for name, examples := range detectorExamples {
		for _, example := range examples {
			src := unmark.Replace(example)
			want := marked.ReplaceAllString(example, "[masked:"+name+":h]")
			out, _ := set.Mask(nil, []byte(src))
			if got := regexp.MustCompile(`:[0-9a-f]{8}\]`).ReplaceAllString(string(out), ":h]"); got != want {
				t.Errorf("%s: Mask(%q)\n got %q\nwant %q", name, src, got, want)
			}
			for n := 1; n < 9; n++ {
				if got := stream(set, []byte(src), n); got != string(out) {
					t.Errorf("%s: %q by %d bytes\n got %q\nwant %q", name, src, n, got, out)
				}
			}
			if again, n := set.Mask(nil, out); n != 0 {
				t.Errorf("%s: masked again: %q", name, again)
			}
		}
	}
}
