package api

import "time"

// PlanRequest is the body of POST /v1/mappings/plan: what would be in force, and how far back to look.
type PlanRequest struct {
	// Mappings are put over those of their names, or beside them.
	Mappings []Mapping `json:"mappings"`
	// WholeFile says that Mappings are all that files would name: others of files are gone.
	WholeFile bool `json:"whole_file,omitempty"`
	// Without are names of mappings that would be deleted.
	Without []string `json:"without,omitempty"`
	// Days is how far back exchanges are looked at: 1 to 14, 0 is 7.
	Days int `json:"days,omitempty"`
}

// Plan is what other mappings would have made of the exchanges of the last days. What jobs wrote was chosen by others: escape it.
type Plan struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Jobs  int       `json:"jobs"` // that were judged again
	// Truncated says that there were more exchanges than are looked at: only the newest were, from Since on.
	Truncated bool `json:"truncated,omitempty"`
	// Changes are the mappings that differ from those in force.
	Changes []PlanChange `json:"changes"`
	// Served and Refused count the jobs for which nothing changes; Other those that were refused for something that no mapping decides, such
	// as a token that was used or a job that was over.
	Served  int `json:"served"`
	Refused int `json:"refused"`
	Other   int `json:"other"`

	Lose      PlanGroups `json:"lose"`      // served then, refused by the plan
	Gain      PlanGroups `json:"gain"`      // refused then, served by the plan
	Elsewhere PlanGroups `json:"elsewhere"` // served by another mapping than then
}

// PlanChange is a mapping that the plan changes.
type PlanChange struct {
	Name   string `json:"name"`
	Change string `json:"change"` // new, changed or deleted
}

// PlanGroups are jobs that have the same repository, and for which the same changes; the most frequent first.
type PlanGroups struct {
	Jobs  int         `json:"jobs"`
	Items []PlanGroup `json:"items"`
	More  int         `json:"more,omitempty"` // jobs of groups that are left out
}

// PlanGroup is one of them.
type PlanGroup struct {
	Issuer     string `json:"issuer"`
	Repository string `json:"repository"` // or the job's subject, where the provider names no repository
	Jobs       int    `json:"jobs"`
	Then       string `json:"then,omitempty"` // the mapping that served
	ThenReason string `json:"then_reason,omitempty"`
	Plan       string `json:"plan,omitempty"` // the mapping that would serve
	Reason     string `json:"reason,omitempty"`
	// Failed are the conditions that the latest of the jobs would fail, of the mapping that is nearest.
	Failed []MappingCondition `json:"failed,omitempty"`
	// Exchange, Job and Last are of the latest of them.
	Exchange string    `json:"exchange"`
	Job      any       `json:"job"`
	Last     time.Time `json:"last"`
}

// DecodePlan reads a request strictly: an unknown key is an error.
func DecodePlan(data []byte) (PlanRequest, error) {
	var r PlanRequest
	err := decodeStrict(data, &r)
	return r, err
}
