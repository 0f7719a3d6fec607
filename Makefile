# The project's commands; `make help` lists them. They need Go, make and a C
# compiler (for the race detector), nothing else: each tool is a Go module of
# its own in tools/, pinned by its go.sum and built once into bin/.
#
# The recipes are plain sh and GNU make 3.81, so that they run as they are on
# Linux, macOS and Windows.

.DEFAULT_GOAL := help
.NOTPARALLEL:

EXE := $(shell go env GOEXE)

# The version that `ssmsession --version` prints.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo none)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Every system and processor that a release is built for.
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

PKG      ?= ./...
FUZZTIME ?= 30s

## ---- before every commit ----

.PHONY: check
check: fmt-check tidy-check deps-check cross lint test fuzz-briefly ## Everything a change must pass; CI runs this

.PHONY: fmt-check
fmt-check: ## Fail if gofmt -s would change a file
	@echo "== gofmt -s"
	@diff=$$(gofmt -s -d .) || exit 1; \
	if [ -n "$$diff" ]; then printf '%s\n' "$$diff" "not formatted: run make fmt" >&2; exit 1; fi

.PHONY: tidy-check
tidy-check: ## Fail if go mod tidy would change a go.mod or go.sum
	@for dir in . tools/*/; do \
		echo "== go mod tidy -diff in $$dir"; \
		(cd "$$dir" && go mod tidy -diff) || exit 1; \
	done

.PHONY: cross
cross: ## Build and vet for every supported system and processor
	@for platform in $(PLATFORMS); do \
		echo "== go build and go vet for $$platform"; \
		export CGO_ENABLED=0 GOOS="$${platform%/*}" GOARCH="$${platform#*/}"; \
		go build ./... || exit 1; \
		test "$$GOARCH" != amd64 || go vet ./... || exit 1; \
	done

.PHONY: deps
deps: ## List the modules that we use, pinned, and why; then those that they bring into the program
	@awk '/^\t/ && !/\/\/ indirect/ { why = $$0; sub(/^[^\/]*[^ ]* [^ ]* \/\/ /, "", why); printf "%-46s %-36s %s\n", $$1, $$2, why }' go.mod
	@echo
	@mkdir -p bin && go mod graph > bin/deps.graph
	@go list -deps -f '{{with .Module}}{{if .Indirect}}{{.Path}} {{.Version}}{{end}}{{end}}' ./cmd/ssmsession | sort -u | \
		while read -r path version; do \
			printf '%-46s %-36s of %s\n' "$$path" "$$version" \
				"$$(awk -v m="$$path@" 'index($$2, m) == 1 && $$1 ~ /@/ { sub(/@.*/, "", $$1); print $$1; exit }' bin/deps.graph)"; \
		done

# The reason stands where the version does, in go.mod.
.PHONY: deps-check
deps-check: ## Fail if a module that we use has no reason in go.mod
	@echo "== reasons in go.mod"
	@awk '/^\t/ && !/ \/\/ ./ { print $$1 " has no reason in go.mod"; bad = 1 } END { exit bad }' go.mod >&2

# Files for another system are read only when linting for it. Tests are linted
# for Linux, where all of them run: elsewhere some have helpers to spare.
.PHONY: lint
lint: bin/golangci-lint$(EXE) ## Lint the files of every supported system
	@for goos in linux darwin windows; do \
		echo "== golangci-lint for $$goos"; \
		test $$goos = linux && tests=true || tests=false; \
		CGO_ENABLED=0 GOOS=$$goos bin/golangci-lint$(EXE) run --tests=$$tests || exit 1; \
	done

.PHONY: test
test: ## Test with the race detector, in random order (PKG=./internal/...)
	@echo "== go test -race"
	@CGO_ENABLED=1 go test -race -shuffle=on -timeout 20m $(PKG)

## ---- to mend, build, look ----

.PHONY: fmt
fmt: ## Format every Go file
	gofmt -s -w .

.PHONY: tidy
tidy: ## Tidy the go.mod of the program and of each tool
	@for dir in . tools/*/; do (cd "$$dir" && go mod tidy) || exit 1; done

.PHONY: docs
docs: ## Write docs/cli, one page a command, from the program's own help
	go test ./cmd/ssmsession -run TestCommandPages -update

.PHONY: build
build: ## Build the static program bin/ssmsession
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ssmsession$(EXE) ./cmd/ssmsession

.PHONY: clean
clean: ## Remove what these commands made
	rm -rf bin dist

## ---- longer ----

.PHONY: soak
soak: ## Test the heavy properties at full size, for hours (PKG=./internal/...)
	SOAK=1 CGO_ENABLED=1 go test -race -shuffle=on -count=1 -timeout 4h $(PKG)

# By number and not by time: on a busy machine a target may not come to run in a
# second, and go test then calls that a failure.
.PHONY: fuzz-briefly
fuzz-briefly: ## Fuzz every fuzz target with a hundred inputs
	@$(MAKE) --no-print-directory fuzz FUZZTIME=100x

# go test fuzzes one target at a time, and links the package again for each; linked
# once it takes a third of the time. The cache is where go test keeps its own.
.PHONY: fuzz
fuzz: ## Fuzz every fuzz target in turn (FUZZTIME=30s each, PKG=./internal/...)
	@mkdir -p bin
	@cache=$$(go env GOCACHE) || exit 1; \
	go list -f '{{.ImportPath}} {{.Dir}}' $(PKG) > bin/fuzz.packages || exit 1; \
	while read -r package dir; do \
		grep -qs '^func Fuzz' "$$dir"/*_test.go || continue; \
		go test -c -fuzz . -o "$(CURDIR)/bin/fuzz.test$(EXE)" "$$package" || exit 1; \
		targets=$$(cd "$$dir" && "$(CURDIR)/bin/fuzz.test$(EXE)" -test.list '^Fuzz') || exit 1; \
		for target in $$targets; do \
			echo "== $$target in $$package"; \
			(cd "$$dir" && "$(CURDIR)/bin/fuzz.test$(EXE)" -test.run '^$$' -test.fuzz "^$$target\$$" \
				-test.fuzztime $(FUZZTIME) -test.fuzzcachedir "$$cache/fuzz/$$package") </dev/null || exit 1; \
		done; \
	done < bin/fuzz.packages

.PHONY: bench
bench: ## Run every benchmark (SOAK=1 adds 1 GB where 100 MB are moved)
	@grep -rl --include='*_test.go' '^func Benchmark' cmd internal | xargs -n 1 dirname | sort -u | sed 's|^|./|' \
		| xargs go test -run '^$$' -bench . -benchmem

# Not in check: it asks the vulnerability database, which changes under us.
.PHONY: vuln
vuln: bin/govulncheck$(EXE) ## Look up known vulnerabilities in what we call (needs the network)
	bin/govulncheck$(EXE) ./...

## ---- release ----

.PHONY: release-check
release-check: bin/goreleaser$(EXE) ## Check .goreleaser.yaml
	bin/goreleaser$(EXE) check

.PHONY: completions
completions: ## Write the shell completions, for the packages, into bin/completions
	@rm -rf bin/completions && mkdir -p bin/completions
	@go run ./cmd/ssmsession completion bash > bin/completions/ssmsession.bash
	@go run ./cmd/ssmsession completion zsh > bin/completions/_ssmsession
	@go run ./cmd/ssmsession completion fish > bin/completions/ssmsession.fish
	@go run ./cmd/ssmsession completion powershell > bin/completions/ssmsession.ps1

.PHONY: snapshot
snapshot: bin/goreleaser$(EXE) bin/cyclonedx-gomod$(EXE) ## Make all that a release would publish, into dist/
	bin/goreleaser$(EXE) release --snapshot --clean

# Each tool is built once, and again when its pins change. The variables of a
# cross build must not reach it: it runs here.
bin/%$(EXE): tools/%/go.mod tools/%/go.sum
	@echo "== building $*"
	@mkdir -p bin
	@cd tools/$* && GOOS= GOARCH= CGO_ENABLED=0 go build -ldflags "-s -w" -o ../../bin/ tool

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' \
		'/^## ----/ { gsub(/^## -+ | -+$$/, ""); print "\n" $$0 ":" } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
