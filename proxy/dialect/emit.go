package dialect

import (
	"strconv"

	"github.com/jobgate/jobgate/internal/access"
)

// What a filter writes by itself is framed as the provider frames it.

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }

func appendStart(dst []byte, index int) []byte {
	dst = append(dst, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":"...)
	dst = appendInt(dst, index)
	return append(dst, ",\"content_block\":"...)
}

func appendDelta(dst []byte, index int, kind, field string, text []byte) []byte {
	dst = append(dst, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":"...)
	dst = appendInt(dst, index)
	dst = append(dst, ",\"delta\":{\"type\":\""...)
	dst = append(append(append(append(dst, kind...), "\",\""...), field...), "\":\""...)
	dst = appendEscaped(dst, text)
	return append(dst, "\"}}\n\n"...)
}

func appendStop(dst []byte, index int) []byte {
	dst = append(dst, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":"...)
	dst = appendInt(dst, index)
	return append(dst, "}\n\n"...)
}

func appendTextBlock(dst []byte, index int, text string) []byte {
	dst = append(appendStart(dst, index), "{\"type\":\"text\",\"text\":\"\"}}\n\n"...)
	dst = appendDelta(dst, index, "text_delta", "text", validText(text))
	return appendStop(dst, index)
}

// appendDeniedUse appends a tool use that no tool answers, under the id of the denied one and without its input.
func appendDeniedUse(dst []byte, index int, use access.ToolUse, rule string) []byte {
	dst = appendDeniedBlock(appendStart(dst, index), use, rule)
	dst = append(dst, "}\n\n"...)
	dst = appendDelta(dst, index, "input_json_delta", "partial_json", []byte("{}"))
	return appendStop(dst, index)
}

func appendDeniedBlock(dst []byte, use access.ToolUse, rule string) []byte {
	dst = append(dst, `{"type":"tool_use","id":`...)
	dst = appendString(dst, use.ID)
	dst = append(dst, `,"name":`...)
	dst = appendString(dst, deniedName(use.Name, rule))
	return append(dst, `,"input":{}}`...)
}
