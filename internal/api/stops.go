package api

import "time"

// StopRequest is the body of a PUT that stops something. It may be left out.
type StopRequest struct {
	Reason string `json:"reason,omitempty"` // one line; jobs read it
}

// StopView is what an operator has stopped.
type StopView struct {
	Kind     string    `json:"kind"`           // connection, mapping or all
	Name     string    `json:"name,omitempty"` // "" for all
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Sessions int       `json:"open_sessions"` // that it holds back
}

// StopChange is what a stop or its lifting did.
type StopChange struct {
	// Stop is what is in force, or was lifted; absent where there was nothing to lift.
	Stop    *StopView  `json:"stop,omitempty"`
	Changed bool       `json:"changed"`   // false: it was so before
	Cut     int        `json:"calls_cut"` // calls that were under way
	InForce []StopView `json:"in_force"`  // everything that is stopped now
}

// DecodeStop reads the body of a stop; an unknown property is an error, an empty body is none.
func DecodeStop(raw []byte) (StopRequest, error) {
	var r StopRequest
	if len(raw) == 0 {
		return r, nil
	}
	err := decodeStrict(raw, &r)
	return r, err
}
