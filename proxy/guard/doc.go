// Package guard judges calls and tool uses by the grant that a session holds. It is pure: it looks at what it is
// given and returns a decision.
//
// The parts of a grant speak in this order, and the first refusal is the answer: the allow list, the features that run
// at the provider, the models, the rules. All rules are evaluated; deny beats approve beats nothing, and nothing means
// that it passes. A condition that fails to evaluate counts as a match. What only observes never refuses: it is
// returned beside the decision.
package guard
