SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO          ?= go
# What makes the image: buildah, podman or docker, whichever is there.
BUILDER     ?= $(or $(notdir $(firstword $(shell command -v buildah podman docker))),buildah)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# FOR ends `make run` by itself and makes it judge (30s); 0s is until Ctrl-C.
FOR       ?= 0s
FUZZTIME  ?= 30s
BENCHTIME ?= 1s
BENCH     ?= .
COUNT     ?= 1
PKG       ?= ./...
KILLS     ?= 500
SEEDS     ?= 2000
LIVES     ?= 10000
PODS      ?= 110,1000,10000
BURST     ?= 110,250
ROUNDS    ?= 5
PRESSED   ?= 1000
FRESH     ?= 250
PRESSED_FOR ?= 5m

# Outside a usable git checkout the version is dev and nothing is stamped.
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILDVCS := $(shell git rev-parse --verify --quiet HEAD >/dev/null 2>&1 && echo auto || echo false)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=$(BUILDVCS) -ldflags "$(STRIP) -X main.version=$(VERSION)"

.PHONY: help
help: ## show this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-14s %s\n", $$1, $$2 }'

.PHONY: build
build: ## build bin/token-projector and bin/fake-apiserver
	$(BUILD) -o bin/token-projector ./cmd/token-projector
	$(BUILD) -o bin/fake-apiserver ./test/fake-apiserver

.PHONY: run
run: build ## watch tokens appear and rotate, until Ctrl-C; FOR=30s ends by itself and judges
	$(BUILD) -o bin/demo ./test/demo
	bin/demo --daemon bin/token-projector --fake-apiserver bin/fake-apiserver --for $(FOR)

.PHONY: test
test: ## all tests but those of conformance, e2e, crash, outages, churn, promises, prometheus, browser, docs and dependencies
	@# many tests wait, so more of them run than there are processors
	$(GO) test -race -shuffle=on -timeout 30m -p 4 -parallel 16 ./...

.PHONY: lint
lint: gofmt vet staticcheck ## gofmt, go vet, staticcheck

.PHONY: gofmt
gofmt:
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet ./...
	$(GO) vet -tags e2e,crash,outages,churn,promises,dependencies,prometheus,browser,docs ./test/e2e ./test/crash/... ./test/outages ./test/churn ./test/promises ./test/dependencies ./test/prometheus ./test/browser ./test/docs
	cd test/conformance && $(GO) vet -tags e2e,figures ./...

.PHONY: staticcheck
staticcheck:
	$(GO) run $(STATICCHECK) -tags e2e,crash,outages,churn,promises,dependencies,prometheus,browser,docs ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s, or 3000x runs) each
	@# before Go 1.27 a duration may end in "context deadline exceeded" though nothing was found (go.dev/issue/75804); a number of runs may not
	@targets=$$($(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ { name[n++] = $$1 } /^ok / { while (n) print $$2, name[--n] }'); \
	if [ -z "$$targets" ]; then echo "no fuzz target found"; exit 1; fi; \
	while read -r package target; do \
		echo "$$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	done <<<"$$targets"

# In one run, so that ratios hold: the kubelet's AtomicWriter and the real API server of the nested module are in it.
.PHONY: bench
bench: ## every benchmark, COUNT (1) times BENCHTIME (1s) each, for benchstat; BENCH is a pattern
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -count $(COUNT) ./...
	cd test/conformance && $(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -count $(COUNT) -timeout 40m . ./kubelet

.PHONY: bench-compare
bench-compare: COUNT = 6
bench-compare: ## benchmarks of BASE=revision and of the work tree, alternately, COUNT (6) times, compared; PKG (./...), BENCH
	@GO='$(GO)' BASE='$(BASE)' PKG='$(PKG)' BENCH='$(BENCH)' BENCHTIME='$(BENCHTIME)' COUNT='$(COUNT)' BENCHSTAT='$(BENCHSTAT)' .ci/bench-compare

.PHONY: conformance
conformance: ## against a real kube-apiserver and etcd, and the kubelet's own code
	cd test/conformance && $(GO) test -count=1 -timeout 40m ./...

.PHONY: cases
cases: ## the cases of test/cases on the fake and on the real server, and the table of them in test/fakeapi/README.md
	cd test/conformance && $(GO) test -count=1 -timeout 20m -run '^TestCases$$' . -update

.PHONY: e2e
e2e: ## what needs root: disks, owners; and nodes with a real kubelet, which is built the first time; needs Debian's prometheus
	@# side by side: one waits for a token to expire, twelve minutes
	$(MAKE) -j 2 --output-sync e2e-machine e2e-watched

.PHONY: e2e-machine
e2e-machine:
	$(GO) test -tags e2e -race -count=1 -timeout 30m ./test/e2e
	cd test/conformance && $(GO) test -tags e2e -count=1 -timeout 40m -v -run '^TestBesideKubelet' .

.PHONY: e2e-watched
e2e-watched:
	cd test/conformance && $(GO) test -tags e2e -count=1 -timeout 40m -v -run '^TestWatchedKubelet' .

.PHONY: crash
crash: ## a publisher killed at each system call, the daemon killed KILLS (500) times; needs root and strace
	$(GO) test -tags crash -count=1 -timeout 30m -v ./test/crash -kills $(KILLS)

.PHONY: outages
outages: ## measure outages of three minutes, of each kind, with 110 pods: a table, in five minutes
	$(GO) test -tags outages -count=1 -timeout 20m -v ./test/outages

.PHONY: load
load: load-node load-burst load-pressed ## what nodes of many pods cost: tables and plots, in a quarter of an hour

.PHONY: load-node
load-node: FOR = 90s
load-node: build-load ## nodes of PODS (110,1000,10000) pods, each watched for FOR (90s), with the fake server; plots in bin/load-plots
	bin/load node --pods $(PODS) --for $(FOR) --out bin/load-plots

.PHONY: load-burst
load-burst: build-load ## ROUNDS (5) bursts of BURST (110,250) pods on a real API server, and the floor
	cd test/conformance && $(GO) run ./cmd/beside load $(CURDIR)/bin/load burst --pods $(BURST) --rounds $(ROUNDS) \
		--daemon $(CURDIR)/bin/token-projector --kubeconfig ADMIN --node-kubeconfig NODE

.PHONY: load-pressed
load-pressed: build-load ## PRESSED (1000) pods on a server of 50 TokenRequests per second, in PRESSED_FOR (5m), and FRESH (250) more
	bin/load pressed --pods $(PRESSED) --fresh $(FRESH) --for $(PRESSED_FOR)

.PHONY: build-load
build-load: build
	$(GO) build -o bin/load ./test/load

.PHONY: churn
churn: FOR = 1h
churn: ## LIVES (10000) pods come and go in an hour (FOR=1h), and nothing of the daemon may grow; needs root
	$(GO) test -tags churn -count=1 -timeout 24h -v -run '^TestChurn$$' ./test/churn -for $(FOR) -lives $(LIVES)

.PHONY: prometheus
prometheus: ## alerts by promtool, and a real Prometheus that scrapes and answers the dashboard; needs Debian's prometheus
	$(GO) test -tags prometheus -count=1 -timeout 30m ./test/prometheus

.PHONY: browser
browser: ## the status page in Chromium, with screenshots of both themes in bin/screenshots; needs Debian's chromium
	mkdir -p bin/screenshots
	$(GO) test -tags browser -count=1 -timeout 30m -v ./test/browser -screenshots $(CURDIR)/bin/screenshots

.PHONY: docs
docs: ## what the documents say to type, typed, in namespaces of their own; needs curl, openssl and Debian's apache2-utils
	$(GO) test -tags docs -count=1 -timeout 30m ./test/docs

.PHONY: promises
promises: ## each promise broken on purpose, a line at a time: a test must notice; minutes
	$(GO) test -tags promises -count=1 -timeout 40m -v ./test/promises

.PHONY: soak
soak: ## SEEDS (2000) random histories, and 110 pods, of thirty days each in virtual time, on all processors
	$(GO) test -count=1 -timeout 24h -v -run '^Test(Soak|ThirtyDays)$$' ./projector -seeds $(SEEDS) -pods 110

# The image's time is its commit's, so that building it again makes the same image.
IMAGE             ?= token-projector:$(VERSION)
IMAGE_ROOT        ?= bin/image
IMAGE_ARCH         = $(or $(GOARCH),$(shell $(GO) env GOARCH))
REVISION          := $(shell git rev-parse --verify --quiet HEAD || echo unknown)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
IMAGE_TIME         = $(if $(filter docker,$(BUILDER)),--build-arg SOURCE_DATE_EPOCH=,--timestamp )$(SOURCE_DATE_EPOCH)

.PHONY: image
image: image-root ## the container image, by BUILDER (buildah, podman, docker); GOARCH=arm64 for another processor
	$(BUILDER) build $(IMAGE_TIME) --platform linux/$(IMAGE_ARCH) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		-t $(IMAGE) -f Dockerfile $(IMAGE_ROOT)

.PHONY: image-root
image-root: STRIP = -s -w
image-root:
	rm -rf $(IMAGE_ROOT)
	GOOS=linux $(BUILD) -o $(IMAGE_ROOT)/token-projector ./cmd/token-projector
	env -u GOOS -u GOARCH SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(GO) run ./deploy/image $(IMAGE_ROOT)

.PHONY: dependencies
dependencies: ## modules are what go.sum says, licenses and size allowed, docs/dependencies.md true; UPDATE=-update writes it
	$(GO) mod verify
	cd test/conformance && $(GO) mod verify
	$(GO) test -tags dependencies -count=1 ./test/dependencies $(UPDATE)

.PHONY: tidy-check
tidy-check: ## go.mod and go.sum of both modules are as `go mod tidy` leaves them
	$(GO) mod tidy -diff
	cd test/conformance && $(GO) mod tidy -diff

.PHONY: clean
clean: ## remove what was built here
	rm -rf bin
