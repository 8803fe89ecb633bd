# Everything a newcomer needs: `make demo` and `make test`. Needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench lock

help:            ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed  ## .venv with everything in it

$(VENV)/.installed: requirements.lock pyproject.toml scripts/install.sh
	@sh scripts/install.sh $(PYTHON) $(VENV)
	@touch $@

demo: install    ## a sample village living a day: alarms rise, are told, answered
	@exec $(BIN)/shouwang demo

test: install    ## every test that needs no browser and no system package
	@exec $(BIN)/pytest -m "not mosquitto and not office" -n 3 --dist loadgroup

check: install   ## format, lint, types, imports, schema, unit tests: fast
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m scripts.check_schema
	@$(BIN)/pytest -m unit -n 2

format: install  ## let ruff write
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: install   ## the figures of docs/benchmarks.md
	@exec $(BIN)/python -m bench

lock:            ## rewrite requirements.lock (needs network)
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --custom-compile-command "make lock" --extra aliyun --group dev pyproject.toml -o requirements.lock
