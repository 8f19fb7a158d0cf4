package dialect_test

import (
	"fmt"

	"github.com/jobgate/jobgate/internal/access"
	"github.com/jobgate/jobgate/proxy/dialect"
)

// A denied tool use reaches the agent as a reason and as a tool that it has not; the agent goes on.
func ExampleFilter() {
	filter := dialect.NewFilter(dialect.FilterConfig{
		MayJudge: func(tool string) bool { return tool == "Bash" },
		Judge: func(use access.ToolUse) dialect.Verdict {
			return dialect.Verdict{OnDeny: access.Tell, Rule: "no-shell", Reason: "Jobgate: no shell here, not even for " + string(use.Input)}
		},
	})
	upstream := []string{
		"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"Bash\",\"input\":{}}}\n\n",
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"command\\\":\"}}\n\n",
		"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\\\"ls\\\"}\"}}\n\n",
		"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
	}
	for _, chunk := range upstream {
		out, err := filter.Write(nil, []byte(chunk))
		if err != nil {
			fmt.Println(err)
		}
		fmt.Print(string(out))
	}
	// Output:
	// event: content_block_start
	// data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
	//
	// event: content_block_delta
	// data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Jobgate: no shell here, not even for {\"command\":\"ls\"}"}}
	//
	// event: content_block_stop
	// data: {"type":"content_block_stop","index":0}
	//
	// event: content_block_start
	// data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"Bash__denied__no-shell","input":{}}}
	//
	// event: content_block_delta
	// data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}
	//
	// event: content_block_stop
	// data: {"type":"content_block_stop","index":1}
}
