# The same recipes for a developer and for CI. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first is filled by scripts/setup.sh when the system's Node is too old; tests use tc from sbin.
export PATH := $(CURDIR)/.cache/node/bin:$(PATH):/usr/sbin:/sbin

# The version is in the path: a new one is another tool, not a stale one.
DENY_VERSION := 0.20.2
DENY_ROOT := .cache/tools/cargo-deny-$(DENY_VERSION)
DENY := $(DENY_ROOT)/bin/cargo-deny
IMAGE ?= railbird:dev

# What the pages are built from.
WEB_SOURCES := $(shell find web -type f -not -path 'web/dist/*' -not -path 'web/node_modules/*' 2>/dev/null)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

.PHONY: run
run: setup web ## build and start a gateway with a synthetic dealer table already live
	cargo run --release --locked -- demo $(ARGS)

.PHONY: test
test: setup-test web tests/browser/node_modules/.package-lock.json ## all tests: Rust, pages, browsers; ends with "N passed, M failed"
	scripts/test.py

.PHONY: lint
lint: setup web $(DENY) ## format, clippy, dependency rules, types of the pages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p railbird --no-default-features --locked -- -D warnings
	# Not `advisories`: its database is a git repository, and this needs only the crate registry.
	$(DENY) --log-level error check bans licenses sources
	cd web && npm run --silent check

.PHONY: bench
bench: setup-test web ## measure, as root: engine, limit and reference; writes docs/benchmarks.md
	scripts/bench.py $(ARGS)

.PHONY: web
web: web/dist/index.html ## build the pages that go into the binary

# npm writes this file last, so it is the stamp of a complete installation.
%/node_modules/.package-lock.json: %/package-lock.json | setup
	cd $* && npm ci --silent --no-audit --no-fund </dev/null

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run --silent build
	@touch $@

.PHONY: image
image: ## build the container image
	docker build --tag $(IMAGE) .

.PHONY: setup setup-test
setup: ## install what building needs and is missing
	@scripts/setup.sh
setup-test: ## install what testing needs and is missing
	@scripts/setup.sh test

$(DENY):
	@echo "missing: cargo-deny $(DENY_VERSION); installing into $(DENY_ROOT)"
	# Unoptimised: it builds in a fraction of the time and runs for a second.
	cargo install --quiet --debug --locked cargo-deny --version $(DENY_VERSION) --root $(DENY_ROOT)
