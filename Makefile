# make help lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build image dist setup check test soak bench demo clean

# A tag, or a revision of the source; "unknown" where git cannot tell.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X mailu-hook/internal/cli.release=$(VERSION)'
IMAGE ?= mailu-hook
IMAGE_ARCHS ?= amd64 arm64
MOST := 16000000
# What drives real peers is in RIGS; everything else is tested under the race detector.
RIGS := ./internal/e2e ./internal/rig/... ./internal/demo
UNIT = $$(go list ./... | grep -Ev '/internal/(e2e|rig|demo)(/|$$)')

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

build: ## build ./mailu-hook, static
	$(BUILD) -o mailu-hook .
	@size=$$(stat -c %s mailu-hook); if [ $$size -gt $(MOST) ]; then echo "mailu-hook has $$size bytes, more than $(MOST)" >&2; exit 1; fi

image: ## make the container images mailu-hook:amd64 and :arm64; that of this machine is latest
	@for arch in $(IMAGE_ARCHS); do dir=.cache/image/$$arch; mkdir -p $$dir; \
	GOARCH=$$arch $(BUILD) -tags image -o $$dir/mailu-hook .; \
	docker build --quiet --platform linux/$$arch --label org.opencontainers.image.version=$(VERSION) \
	  --tag $(IMAGE):$$arch --file examples/compose/Dockerfile $$dir; done
	docker tag $(IMAGE):$$(go env GOARCH) $(IMAGE):latest

dist: ## build dist/: binaries, packages, images, manual page, completions, licenses, SBOM, checksums
	@packaging/dist.sh $(VERSION)

setup: ## install what test and demo need, or say what is missing
	@internal/rig/setup.sh

check: setup ## gofmt, go vet, staticcheck, dead code
	@unformatted=$$(find . -name '*.go' -not -path './.cache/*' -exec gofmt -l {} +); \
	if [ -n "$$unformatted" ]; then printf 'gofmt would change:\n%s\n' "$$unformatted" >&2; exit 1; fi
	go vet -tags measure,soak ./...
	.cache/bin/staticcheck -tags measure,soak -checks all,-ST1000,-ST1003,-ST1020,-ST1021,-ST1022 ./...
	@for what in . '-tags measure,soak -test ./...'; do \
	dead=$$(.cache/bin/deadcode $$what); if [ -n "$$dead" ]; then printf '%s\n' "$$dead" >&2; exit 1; fi; done

# Two tests with peers run per processor, as they mostly wait, and nothing beside
# them: with many more, daemons that reload together take seconds to answer.
test: check build ## check, unit tests, end-to-end suite; a skipped test fails
	@export MAILU_HOOK_E2E=require MAILU_HOOK_BINARY=$(CURDIR)/mailu-hook; \
	{ status=0; go test -json -race -shuffle=on $(UNIT) || status=$$?; \
	  go test -json -count=1 -timeout=60m -p 1 -parallel=$$((2 * $$(nproc))) $(RIGS) && exit $$status; } | go run ./internal/rig/tally

soak: setup ## the long versions of the end-to-end tests, alone: docs/testing.md
	@internal/rig/setup.sh soak
	@export MAILU_HOOK_E2E=require MAILU_HOOK_SOAK=1; \
	go test -tags soak -json -count=1 -timeout=85m ./internal/e2e/... | go run ./internal/rig/tally

bench: build ## measure beside what people use, on an idle machine: BENCHMARKS.md
	@internal/rig/setup.sh bench
	@export MAILU_HOOK_E2E=require MAILU_HOOK_BINARY=$(CURDIR)/mailu-hook BENCH_FILE=$(CURDIR)/BENCHMARKS.md; \
	go test -tags measure ./internal/e2e -run TestMeasure -parallel 1 -count=1 -timeout=80m && cat BENCHMARKS.md

demo: setup build ## show a real renewal, and a failure being caught
	@go run ./internal/demo

clean: ## remove what was built, and what killed tests left in Docker
	-@docker ps -aq --filter label=mailu-hook.test=1 | xargs -r docker rm -fv
	-@docker volume ls -q --filter label=mailu-hook.test=1 | xargs -r docker volume rm -f
	-@docker network ls -q --filter label=mailu-hook.test=1 | xargs -r docker network rm
	rm -rf .cache dist mailu-hook
