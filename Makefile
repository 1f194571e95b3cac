# The two main commands: `make sandbox` runs the bot on this machine, `make check` runs every test.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# pip does not resolve dependencies (--no-deps), because it would select newer releases, which have no hash in the lock file.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes

# Some images set this variable. Each of the hundreds of processes that the tests start would then compile every module again (1 s each).
export PYTHONDONTWRITEBYTECODE =

.PHONY: help install sandbox tour emulator check lint test coverage soak docs lock audit sbom clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## create .venv with the command `stoker`

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stoker needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ {on = 1} on && /^ *#/ {exit} on' requirements.lock > $(VENV)/uv.lock
	@if $(PIP) --only-binary :all: --requirement $(VENV)/uv.lock && $(UV) --requirement requirements.lock; then :; else \
	  echo "uv could not install the lock file, so pip installs it. This takes about a minute." >&2; \
	  $(PIP) --requirement requirements.lock; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

sandbox: install  ## run the bot against a simulated platform on this machine, with a page like Slack
	$(BIN)/stoker sandbox $(ARGS)

# The tests wait for platforms in real time, and mypy uses one processor: together they take less time than one after the other.
check:  ## run every check and every test, as CI does
	@$(MAKE) --no-print-directory --jobs 2 lint test

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/prose.py
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline --no-progress .github

# A test that fails among eight busy processes, and passes alone, depends on the other tests or on the machine's speed.
test: $(VENV)/.compiled
	$(BIN)/pytest $(ARGS) \
	  || { echo "The failed tests run again, alone:" && $(BIN)/pytest -n 0 --last-failed --last-failed-no-failures none --maxfail 1 $(ARGS); }

$(VENV)/.compiled: $(VENV)/.installed  # by one process; otherwise, each of the eight processes of the tests would compile every module
	@-$(BIN)/pytest --collect-only --quiet -n 0 > /dev/null
	@touch $@

coverage: $(VENV)/.compiled  ## measure the coverage, and fail if it is below the minimum
	$(BIN)/pytest --cov --cov-report=term $(ARGS)

tour: install  ## take the pictures of docs/tour.md and of the README again, in Chromium
	$(BIN)/python docs/tour/tour.py
	$(BIN)/python docs/tour/film.py

emulator:  ## install a third-party Slack emulator for the test that uses one (needs npm)
	npm install --silent --no-save --no-audit --no-fund --prefix $(VENV)/emulate emulate@0.12.2 node@24

soak: install  ## run the tests that kill the bot at every single write (several minutes each)
	$(BIN)/pytest -m soak $(ARGS)

docs: install  ## write the generated parts of docs/ and of the chart
	$(BIN)/python -c "from bot.cli.settings import reference; print(reference(), end=str())" > docs/configuration.md
	$(BIN)/python -c "from bot.cli.settings import into_chart; into_chart('helm/stoker/values.schema.json')"
	$(BIN)/python -c "from bot.cli.manifest import document; document('docs/install.md')"
	$(BIN)/python -c "from bot.cli.findings import document; document('docs/contract.md')"
	$(BIN)/python -c "from bot.domain.notifications import document; document('docs/slack.md')"
	$(BIN)/python -c "from bot.cli.errors import reference; print(reference(), end=str())" > docs/errors.md
	$(BIN)/python -c "from bot.cli.boots import reference; print(reference(), end=str())" > docs/boots.md
	$(BIN)/python -c "from bot.clients.rights import chart; print(chart(), end=str())" > helm/stoker/files/rights.yaml

lock:  ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.11 \
	  --custom-compile-command "make lock" --extra dev --extra otel --output-file requirements.lock pyproject.toml

audit: install  ## check every locked package against the advisory database (needs the network; fails if a package cannot be checked)
	$(BIN)/uv tool run --quiet pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

sbom: build/production  ## write build/sbom.json: the image's packages and their dependencies, as CycloneDX
	$(BIN)/uv tool run --quiet --from cyclonedx-bom cyclonedx-py environment --validate --pyproject pyproject.toml \
	  --output-file build/sbom.json build/production/bin/python

build/production: requirements.lock pyproject.toml | install  # the packages of the image, as the Dockerfile installs them
	rm -rf $@
	$(BIN)/uv venv --quiet --python $(BIN)/python $@
	$(BIN)/uv pip install --quiet --python $@ --require-hashes --no-build --compile-bytecode \
	  --constraint requirements.lock --requirements pyproject.toml --extra otel

clean:  ## remove everything that `make install` and the tests created
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage build dist
