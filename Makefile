# Targets of this repository; `make help` lists them. What CI runs is .ci/run, which calls these.

GO ?= go
NPM ?= npm
# The version that `jobgate version` shows.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# Tools, at exact versions. They are built once into .cache/bin.
ACT_VERSION := v0.2.89
STATICCHECK_VERSION := v0.8.2
ACTIONLINT_VERSION := v1.7.12

# Inputs of claude-code-action that are newer than actionlint's list of them.
newer_inputs := -ignore 'input "anthropic_(federation_rule_id|organization_id|oidc_audience)" is not defined'

# Extra arguments of `go test`, and the form of node's test report.
TESTFLAGS ?=
NODE_REPORTER ?= spec
# What `make bench` runs, and how long each fuzz target does.
BENCH ?= .
FUZZTIME ?= 1m

clients := internal/testkit/clients
gitlab := internal/testkit/gitlab
# Files that npm ci leaves behind in each.
fetched := $(clients)/node_modules/.package-lock.json $(gitlab)/node_modules/.package-lock.json
bin := $(CURDIR)/.cache/bin
act := .cache/act-$(ACT_VERSION)
staticcheck := .cache/staticcheck-$(STATICCHECK_VERSION)
actionlint := .cache/actionlint-$(ACTIONLINT_VERSION)

.DEFAULT_GOAL := build
.PHONY: help build demo test test-go test-actions tools lint bench fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/jobgate and bin/jobgate-job, each one static file
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/jobgate ./cmd/jobgate-job

demo: build ## the whole story on this machine, no accounts needed
	@bin/jobgate demo

test: test-go test-actions ## all tests; gets the real clients and CI runtimes that they run

test-go: need-programs $(fetched) $(act) ## the Go tests, with the race detector
	CGO_ENABLED=1 $(GO) test -race $(TESTFLAGS) ./...

test-actions: need-node ## the tests of the GitHub step
	node --test --test-reporter=$(NODE_REPORTER) actions/connect/test/*.test.js

tools: $(fetched) $(act) $(staticcheck) $(actionlint) ## fetch what tests and lint need
	$(GO) mod download

lint: $(staticcheck) $(actionlint) ## gofmt, go vet, staticcheck, actionlint
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
		test -z "$$bad" || { echo "gofmt would change these files; run gofmt -w on them:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(bin)/staticcheck ./...
	sh -n ci-templates/*.sh
	$(bin)/actionlint -shellcheck= -pyflakes= $(newer_inputs) $(clients)/act/*.yml docs/workflows/*.yml

bench: ## the benchmarks; BENCH=Proxy runs some of them
	$(GO) test -p 1 -run '^$$' -bench '$(BENCH)' -benchmem $(TESTFLAGS) ./...

fuzz: ## every fuzz target for a minute; FUZZTIME=10s for less
	FUZZTIME=$(FUZZTIME) GO=$(GO) .ci/fuzz

clean: ## remove what was built and fetched
	rm -rf bin .cache $(clients)/node_modules $(gitlab)/node_modules

# What must be on the machine already.
.PHONY: need-programs need-node
need-programs: need-node
	@command -v "$$($(GO) env CC)" >/dev/null || { echo "the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2; exit 1; }
	@for program in git curl rsync; do \
		command -v $$program >/dev/null || { echo "the tests of the CI runtimes need $$program: apt-get install $$program" >&2; exit 1; }; done

need-node:
	@command -v node >/dev/null && command -v $(NPM) >/dev/null || { echo "the tests need Node.js 20 or later with npm: apt-get install nodejs npm" >&2; exit 1; }

%/node_modules/.package-lock.json: %/package-lock.json | need-node
	$(NPM) ci --prefix $*
	@touch $@

# A tool's mark carries its version, so that a new version is built.
$(act):
	$(call tool,act,github.com/nektos/act@$(ACT_VERSION))

$(staticcheck):
	$(call tool,staticcheck,honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION))

$(actionlint):
	$(call tool,actionlint,github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION))

define tool
	@mkdir -p .cache/bin
	GOBIN=$(bin) $(GO) install $(2)
	@rm -f .cache/$(1)-v* && touch $@
endef
