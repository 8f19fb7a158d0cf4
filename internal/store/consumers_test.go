package store_test

import (
	"github.com/jobgate/jobgate/approvals"
	"github.com/jobgate/jobgate/federation"
	"github.com/jobgate/jobgate/internal/store"
)

// The consumers' interfaces, which the store has without knowing them.
var (
	_ federation.MappingStore  = (*store.DB)(nil)
	_ federation.SessionStore  = (*store.DB)(nil)
	_ federation.ExchangeStore = (*store.DB)(nil)
	_ federation.ExchangeTrail = (*store.DB)(nil)
	_ approvals.Docket         = (*store.DB)(nil)
)
