# The two commands: `make sandbox` runs the main job, `make check` runs every test.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# The lock file is complete, so nothing is resolved: a resolver would ask for releases newer than the lock, which have no hash there.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes

# Some images set this variable. Then each of the hundreds of processes that the tests start would compile every module again (1 s each).
export PYTHONDONTWRITEBYTECODE =

.PHONY: help install sandbox tour emulator check lint test soak docs lock audit sbom clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## make .venv with the command `stoker` in it

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stoker needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ {on = 1} on && /^ *#/ {exit} on' requirements.lock > $(VENV)/uv.lock
	@if $(PIP) --only-binary :all: --requirement $(VENV)/uv.lock && $(UV) --requirement requirements.lock; then :; else \
	  echo "uv could not install the lock file here, so pip does it, which takes about a minute." >&2; \
	  $(PIP) --requirement requirements.lock; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

sandbox: install  ## run the bot against a whole platform on this machine, with a page to try it on
	$(BIN)/stoker sandbox $(ARGS)

check: lint test  ## everything that CI runs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/prose.py
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline --no-progress .github

test: install
	$(BIN)/pytest --cov --cov-report=term $(ARGS)

tour: install  ## take the pictures of docs/tour.md and of the README again, in Chromium
	$(BIN)/python docs/tour/tour.py
	$(BIN)/python docs/tour/film.py

emulator:  ## install a third-party Slack emulator for the test that uses one (needs npm)
	npm install --silent --no-save --no-audit --no-fund --prefix $(VENV)/emulate emulate@0.12.2 node@24

soak: install  ## the tests that kill the bot at every single write, which take minutes each
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

audit: install  ## ask the advisory database about every locked package (needs the network; fails where one cannot be asked about)
	$(BIN)/uv tool run --quiet pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

sbom: build/production  ## write build/sbom.json: what the image installs and what depends on what, as CycloneDX
	$(BIN)/uv tool run --quiet --from cyclonedx-bom cyclonedx-py environment --validate --pyproject pyproject.toml \
	  --output-file build/sbom.json build/production/bin/python

build/production: requirements.lock pyproject.toml | install  # the packages of the image, as the Dockerfile installs them
	rm -rf $@
	$(BIN)/uv venv --quiet --python $(BIN)/python $@
	$(BIN)/uv pip install --quiet --python $@ --require-hashes --no-build --compile-bytecode \
	  --constraint requirements.lock --requirements pyproject.toml --extra otel

clean:  ## remove what `make install` and the tests made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage build dist
