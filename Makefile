# SmartLink realtime. `make run` opens a chat that works; `make test` tries everything.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# With it set, every process would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev pages run test test-lowest test-fast test-pythons coverage test-api test-kill test-deploy test-alerts test-chart test-images test-green test-peers test-browsers test-resume soak check format reference bench lock wheel sbom audit clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## Install everything for running: virtual environment, locked dependencies, built pages
	@scripts/setup.sh run

setup-dev: ## Install everything for testing too: PostgreSQL, Redis, Chromium, test tools
	@scripts/setup.sh dev

pages: ## Rebuild the pages
	@scripts/pages.sh

run: setup ## Start everything on this machine, with demo data
	@exec $(BIN)/smartlink serve --demo

test: ## Run all tests, with real databases, sockets and a browser
	@PYTHON=$(PYTHON) scripts/test.sh

test-lowest: setup-dev ## Test each part with its lowest supported dependencies
	@scripts/lowest.sh

test-fast: ## Run the tests that start no processes: no database, Redis, browser or command
	@scripts/fast.sh $(BIN)/python

test-pythons: setup-dev ## Run the fast tests on each installed Python, 3.11 and newer
	@scripts/pythons.sh

# In percent, of lines and branches, without commands; 83 were measured.
COVERAGE_FLOOR ?= 80
coverage: setup-dev ## Report the coverage by the tests of protocol, server, library and portal
	@$(BIN)/pytest -q -n auto --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_FLOOR) \
	  tests/protocol tests/server tests/broadcasting tests/portal

test-kill: setup-dev ## Kill workers for minutes while events are recorded, and check that none is lost
	@$(BIN)/pytest -q -s -m kill tests/faults

test-deploy: ## Run the five services behind each proxy, with failures and a restored database
	@scripts/setup.sh proxies
	@$(BIN)/pytest -q -m deploy tests/deploy

test-alerts: ## Test the alert rules with Prometheus, on series and on real faults; installs it
	@scripts/setup.sh alerts
	@$(BIN)/pytest -q -m "deploy or not deploy" tests/deploy/test_alerts.py tests/deploy/test_fault_drill.py

test-chart: setup-dev ## Render the Helm chart and check it against Kubernetes' schemas; builds helm
	@scripts/setup.sh chart
	@$(BIN)/pytest -q -rs tests/deploy/test_chart.py

test-images: setup-dev ## Build the image without Docker and start the services of compose.yml from it, as root
	@scripts/images.sh build >/dev/null
	@$(BIN)/pytest -q -s -m images tests/deploy

test-green: setup-dev ## Test broadcasting from gunicorn's and Celery's green workers; installs both
	@$(BIN)/pytest -q -m green tests/broadcasting/test_green_threads.py

test-peers: ## Test with unmodified clients and publishers, including Go, Java and PHP
	@scripts/setup.sh peers
	@SMARTLINK_TEST_PEERS=1 $(BIN)/pytest -q tests/peers

test-api: setup-dev ## Send the API hundreds of valid and invalid requests per endpoint
	@SMARTLINK_SCHEMA_EXAMPLES=200 $(BIN)/pytest -q tests/portal/test_schemathesis.py

test-browsers: ## Test the portal in Firefox and WebKit; installs both
	@scripts/setup.sh browsers
	@$(BIN)/pytest -q -rP -m other_browsers tests/browsers

SOAK_SECONDS ?= 300
RESUME_ROUNDS ?= 20
test-resume: setup-dev ## Break what is between clients and their events, RESUME_ROUNDS times each, and count what they miss
	@SMARTLINK_RESUME_ROUNDS=$(RESUME_ROUNDS) $(BIN)/pytest -q -s --timeout 1800 tests/peers/test_resuming_through_faults.py \
	  tests/client/test_server_restarts.py

soak: setup-dev ## Connect and disconnect for minutes (SOAK_SECONDS), and report memory growth
	@SMARTLINK_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/pytest -q tests/server/test_churn.py

check: setup-dev ## Lint and type-check Python and pages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@cd frontend && npm run --silent check

format: ## Format the Python files and the pages
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .
	@cd frontend && npm run --silent format

reference: setup-dev ## Generate docs/reference and the pages' API types from the code
	@$(BIN)/python scripts/reference.py
	@$(BIN)/python scripts/api_reference.py

bench: setup-dev ## Measure the server on this machine, against a minimal C program
	@$(BIN)/python benchmarks/run.py

lock: ## Pin the dependencies, after a change of pyproject.toml
	@scripts/lock.sh

wheel: setup-dev ## Build wheel and sdist, including the pages
	@$(BIN)/python -m hatchling build

sbom: setup ## Write dist/sbom-python.json and dist/sbom-pages.json, in CycloneDX
	@scripts/supply.sh sbom

audit: setup ## Ask the registries for known vulnerabilities of what is locked
	@scripts/supply.sh audit

clean: ## Remove build results (data in var/ stays)
	rm -rf $(VENV) .pythons .stamps dist frontend/node_modules clients/js/dist src/smartlink/portal/static \
		src/smartlink/server/observe/static
