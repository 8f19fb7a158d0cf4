package api_test

import (
	"strings"
	"testing"

	"github.com/jobgate/jobgate/internal/api"
)

// TestDecodeMappingNull: a key that is null must not lift what it bounds.
func TestDecodeMappingNull(t *testing.T) {
	for text, wanted := range map[string]string{
		`{"name":"m","match":{"environment":null,"ref":["a",null]},"deny":{"ref":null}}`:            "",
		`{"name":"m","grants":[{"connection":"a","limits":null}]}`:                                  "grants[0].limits: it is null",
		`{"name":"m","forbid":null}`:                                                                "forbid: it is null",
		`{"name":"m","overrides":[{"match":{"repository_id":"7"},"mode":"enforce","grants":null}]}`: "overrides[0].grants: it is null",
		`{"name":"m","overrides":[{"match":{"repository_id":"7"},"mode":"enforce","deny":null}]}`:   "overrides[0].deny: it is null",
		`{"name":"m","paths":[{"path":["a"],"value":[null]}],"window":{"max":null}}`:                "window.max: it is null",
	} {
		_, err := api.DecodeMapping([]byte(text))
		if wanted == "" && err != nil || wanted != "" && (err == nil || !strings.HasPrefix(err.Error(), wanted)) {
			t.Errorf("%s: %v, wanted %q", text, err, wanted)
		}
	}
}
