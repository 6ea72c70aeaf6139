# Every target does its own set-up: `make test` works on a fresh clone and is quick the second time.

PYTHON ?= python3
# CPython for Windows, of `make test-windows`: 3.11, 3.12 or 3.13.
PYTHON_WINDOWS ?= 3.11
# Workers that run the tests.
JOBS ?= 2
# How: plain, order (another one each time), dev (python -X dev) or hash (PYTHONHASHSEED).
WAY ?= plain
WAY_order := -p randomly
WAY_dev_ENV := PYTHONDEVMODE=1
WAY_hash_ENV := PYTHONHASHSEED=$(shell date +%j)
CHECK_WAY = $(if $(filter $(WAY),plain order dev hash),:,echo "there is no WAY=$(WAY): plain, order, dev or hash" >&2; exit 1)
# Who runs them, for test-as-user.
TEST_USER ?= daemon
# And the Wine that it runs under: 8 or 10, by default the one that this machine has. Not from the environment,
# where other programs look for the path of one.
WINE :=
# Options for the program that a target runs: `make bench ARGS=--quick`.
ARGS ?=
# Options for `make dist`, where it is a part of `make release-check`; and what `make newsfragment` compares with.
DIST_ARGS ?=
BASE ?= main
# Makes an environment by it. A shim of pyenv's, which may do nothing, stands for what pyenv has.
NEW_VENV = python=$$(tests/distribution/interpreter.sh $(PYTHON)) && echo "$$python -m venv --clear $(@D)" && \
	$$python -m venv --clear
# One for each interpreter: `make test PYTHON=python3.12` leaves the one of `python3` alone.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(subst /,_,$(PYTHON)))
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_LOCKED := $(BENCH_VENV)/.locked
BENCH_STAMP := $(BENCH_VENV)/.installed
FUZZ_VENV := .venv-fuzz
FUZZ_STAMP := $(FUZZ_VENV)/.installed
INTEROP := build/interop
GO_BUILD := go build -trimpath -buildvcs=false
# The peers in other languages that can be built here; the others are left out, and the run says so.
PEERS := $(if $(shell command -v go 2>/dev/null),interop-go) $(if $(shell command -v cargo 2>/dev/null),interop-rust)
PROTO_VENV := .venv-proto
PROTO_LOCKED := $(PROTO_VENV)/.locked
DIST_VENV := .venv-dist
DIST_LOCKED := $(DIST_VENV)/.locked
TYPES_VENV := .venv-types
TYPES_LOCKED := $(TYPES_VENV)/.locked
DOCS_VENV := .venv-docs
DOCS_LOCKED := $(DOCS_VENV)/.locked
OLDEST_VENV := .venv-oldest
OLDEST_STAMP := $(OLDEST_VENV)/.installed
# Many containers set it. Each of the many processes that the tests start would then compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
PIP := -m pip install --quiet --disable-pip-version-check
PROTO := trio_ipc/daemoneye/detection.proto

.PHONY: help venv test coverage loaded test-windows lint demo bench scale counted fuzz soak hardening-table hardening-table-windows interop interop-go interop-rust proto proto-check lock clean test-as-user mutants test-pythons test-oldest test-protobuf compatibility dist types changelog newsfragment release-check docs docs-serve docs-browser

help:
	@echo "make venv    the environment of development, in $(VENV); every other target makes what it needs"
	@echo "make demo    a collector and an agent, on this machine's own processes"
	@echo "make test    the test suite; WAY=order, dev or hash runs it in another way"
	@echo "make coverage  the same suite, and how much of the code it runs; at least 95 %"
	@echo "make loaded  the same suite ten times, with a process on each core that does nothing but count"
	@echo "make test-as-user    the same suite as the user daemon; as root"
	@echo "make mutants ARGS=\"--module trio_ipc.wire --sample 20\"    change the code, and see whether a test fails"
	@echo "make test-windows    the same suite in CPython for Windows, under Wine; PYTHON_WINDOWS=3.12 in another one, WINE=10 under another"
	@echo "make test-pythons   the test suite with every supported Python that is on this machine"
	@echo "make test-oldest    a part of it with the lowest version of every dependency"
	@echo "make test-protobuf  a part of it with the oldest protobuf and the newest of each major"
	@echo "make dist    build wheel and sdist, check them, use them in empty environments; ARGS=--help says more"
	@echo "make compatibility   run what docs/compatibility.md is made of, and write it"
	@echo "make types   whether every public name has a type, by pyright; needs npm"
	@echo "make changelog  make a section of newsfragments/; ARGS=--draft only shows it"
	@echo "make newsfragment  whether what was changed since BASE has a newsfragment"
	@echo "make release-check  whether this tree may become a release"
	@echo "make lint    ruff, mypy --strict, the terms of docs/terms.md, and whether the generated code is current"
	@echo "make bench   the benchmark suite; ARGS=--quick takes less than a minute, ARGS=--help says more"
	@echo "make scale   how costs grow, beside bare Trio; ARGS=--quick takes less than a minute, ARGS=--help says more"
	@echo "make counted  system calls and instructions, against recorded bounds"
	@echo "make fuzz    fuzz framing and server, a minute each; ARGS=\"--seconds 600 server\" as long as you like"
	@echo "make soak    the example programs under chaos, for a minute; ARGS=\"--seconds 3600\" as long as you like"
	@echo "make hardening-table  run what docs/hardening.md is made of, and write its table; as root"
	@echo "make interop  peers in Rust, Go and Python's standard library, each server with each client"
	@echo "make hardening-table-windows  the same of what runs on Windows alone, under Wine"
	@echo "make docs    the site, into build/docs; make docs-serve shows it, make docs-browser reads it with Chromium"
	@echo "make proto   regenerate the protobuf code"
	@echo "make lock    resolve requirements/*.in into requirements/*.txt again"
	@echo "make clean   remove every environment, and all that was built"

venv: $(STAMP)

# One environment from the lock, made again when the lock changes.
$(LOCKED): requirements/dev.txt
	@$(NEW_VENV) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMP): $(LOCKED) pyproject.toml setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Tests that need the machine alone wait for the others (tests/workers.py). Another way shows what one way hides.
# Coverage is measured by a target of its own, since the same tests take 1.4 times as long with it.
test: $(STAMP)
	@$(CHECK_WAY)
	$(WAY_$(WAY)_ENV) $(BIN)/python -m pytest -n $(JOBS) $(WAY_$(WAY)) $(ARGS)

# COVERAGE_FILE: what is counted in a process of a test is else written where that process runs, and lost.
coverage: $(STAMP)
	@$(CHECK_WAY)
	rm -f .coverage .coverage.*
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage $(WAY_$(WAY)_ENV) \
		$(BIN)/python -m coverage run -m pytest -n $(JOBS) $(WAY_$(WAY)) $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# In a copy, which belongs to that user. Needs root.
test-as-user: $(STAMP)
	@tests/as_another_user.sh $(TEST_USER) $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

loaded: $(STAMP)
	@$(BIN)/python -m tests.loaded --jobs $(JOBS) $(ARGS)

mutants: $(STAMP)
	@$(BIN)/python -m tests.mutants $(ARGS)

# The whole suite in each, or what ARGS say, and no coverage: a branch for one Python would not be met in another.
test-pythons: $(STAMP)
	@for python in $$($(BIN)/python -m tests.distribution.pythons); do \
		echo "== $$($$python --version)" && $(MAKE) --no-print-directory venv PYTHON=$$python && \
		.venv-$$(echo $$python | tr / _)/bin/python -m pytest -q -n $(JOBS) $(ARGS) || exit 1; \
	done

# With versions that nobody would choose any more, all at once; in an environment of its own.
$(OLDEST_STAMP): requirements/oldest.txt pyproject.toml setup.py
	@$(NEW_VENV) $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python $(PIP) --require-hashes -r requirements/oldest.txt
	$(OLDEST_VENV)/bin/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

test-oldest: $(OLDEST_STAMP)
	$(OLDEST_VENV)/bin/python -m pytest -q $$($(OLDEST_VENV)/bin/python -m tests.distribution.subset)

test-protobuf: $(STAMP)
	@$(BIN)/python -m tests.distribution.matrix \
		--python $$($(BIN)/python -c "import sys; print('%d.%d' % sys.version_info[:2])") $(ARGS)

compatibility: $(STAMP)
	@$(BIN)/python -m tests.distribution.matrix --record
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --all-extras --format pylock.toml \
		pyproject.toml -o build/pylock.toml
	@$(BIN)/python -m tests.distribution.wheels build/pylock.toml
	@$(BIN)/python -m tests.distribution.page

$(DIST_LOCKED): requirements/dist.txt
	@$(NEW_VENV) $(DIST_VENV)
	$(DIST_VENV)/bin/python $(PIP) --require-hashes -r requirements/dist.txt
	@touch $@

# The tests of the sdist run in the environment of development.
dist: $(STAMP) $(DIST_LOCKED)
	@$(DIST_VENV)/bin/python -m tests.distribution --development $(BIN)/python $(ARGS)

$(DOCS_LOCKED): requirements/docs.txt
	@$(NEW_VENV) $(DOCS_VENV)
	$(DOCS_VENV)/bin/python $(PIP) --require-hashes -r requirements/docs.txt
	@touch $@

# From nothing each time: a page that was removed is else still there. Warnings are errors.
docs: $(DOCS_LOCKED)
	rm -rf build/docs build/doctrees
	$(DOCS_VENV)/bin/python docs/diagrams/draw.py --check
	$(DOCS_VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going --jobs auto -d build/doctrees docs build/docs
	$(DOCS_VENV)/bin/python -m tests.site build/docs

docs-serve: docs
	$(DOCS_VENV)/bin/python -m http.server --bind 127.0.0.1 --directory build/docs

# Needs Debian's chromium, or ARGS="--browser PATH".
docs-browser: docs
	@$(DOCS_VENV)/bin/python -m tests.site.browser build/docs $(ARGS)

lint: $(STAMP) proto-check
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_terms.py
	$(BIN)/codespell trio_ipc pytest_trio_ipc examples tests docs newsfragments *.md
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy --platform win32 trio_ipc pytest_trio_ipc examples tests/testing tests/windows \
		tests/transports/*pipe*.py tests/legacy

# By its hash, from npm's own lock. What Python's index has of pyright fetches it when it runs.
$(TYPES_LOCKED): requirements/types/package.json requirements/types/package-lock.json
	@command -v npm >/dev/null || { echo "make types: npm is not installed" >&2; exit 1; }
	mkdir -p $(TYPES_VENV) && cp requirements/types/*.json $(TYPES_VENV)
	cd $(TYPES_VENV) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

types: $(STAMP) $(TYPES_LOCKED)
	@$(BIN)/python -m tests.distribution.known_types node $(TYPES_VENV)/node_modules/pyright/index.js

changelog: $(DIST_LOCKED)
	@$(DIST_VENV)/bin/python -m towncrier build \
		--version $$($(DIST_VENV)/bin/python -m tests.distribution.release --version) $(ARGS)

# Whether what was changed since a branch has a newsfragment.
newsfragment: $(DIST_LOCKED)
	@$(DIST_VENV)/bin/python -m towncrier check --compare-with $(BASE)

release-check: $(STAMP) $(DIST_LOCKED)
	@$(DIST_VENV)/bin/python -m tests.distribution.release $(ARGS)
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory dist ARGS="$(DIST_ARGS)"

demo: $(STAMP)
	@$(BIN)/python -m examples.demo

# An environment of its own: other contenders, and what draws the chart.
$(BENCH_LOCKED): requirements/bench.txt
	@$(NEW_VENV) $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/bench.txt
	@touch $@

$(BENCH_STAMP): $(BENCH_LOCKED) pyproject.toml setup.py
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	@touch $@

bench: $(BENCH_STAMP)
	@$(if $(strip $(PEERS)),$(MAKE) --no-print-directory $(PEERS) || echo "that peer is left out" >&2)
	@$(BENCH_VENV)/bin/python -m tests.benchmarks $(ARGS)

scale: $(BENCH_STAMP)
	@$(BENCH_VENV)/bin/python -m tests.benchmarks.scaling $(ARGS)

# Times can't have bounds, counts can. Needs strace and valgrind.
counted: $(STAMP)
	@$(BIN)/python -m tests.benchmarks.counted $(ARGS)

# An environment of its own: there are wheels of the fuzzer for few systems.
$(FUZZ_STAMP): requirements/fuzz.txt pyproject.toml
	@$(NEW_VENV) $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/fuzz.txt
	$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	@touch $@

fuzz: $(FUZZ_STAMP)
	@$(FUZZ_VENV)/bin/python -m tests.hardening.fuzz $(ARGS)

soak: $(STAMP)
	@$(BIN)/python -m tests.hardening.soak $(ARGS)

# Every test that says what it attacked, wherever it stands; some need another user.
hardening-table: $(STAMP)
	$(BIN)/python -m pytest -q $$($(BIN)/python -m tests.hardening.table --modules)
	$(BIN)/python -m tests.hardening.table

interop: $(STAMP) $(PEERS)
	@$(BIN)/python -m tests.interop $(ARGS)

# Messages are generated from our own .proto, by the protoc that `make proto` has.
$(INTEROP)/detection.binpb: $(PROTO) $(PROTO_LOCKED)
	@mkdir -p $(INTEROP)
	@$(PROTO_VENV)/bin/protoc -I. --include_imports --descriptor_set_out=$@ $(PROTO)

interop-rust: $(INTEROP)/detection.binpb
	@cargo build --quiet --locked --release --manifest-path tests/interop/rust/Cargo.toml --target-dir $(INTEROP)/rust

interop-go: $(PROTO_LOCKED)
	@cd tests/interop/go && $(GO_BUILD) -o ../../../$(INTEROP)/go/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	@$(PROTO_VENV)/bin/protoc -I. --plugin=protoc-gen-go=$(INTEROP)/go/protoc-gen-go \
		--go_out=tests/interop/go --go_opt=module=peer --go_opt=M$(PROTO)=peer/detection $(PROTO)
	@cd tests/interop/go && $(GO_BUILD) -o ../../../$(INTEROP)/go/peer .

# With PYTHON_WINDOWS and WINE as `make test-windows`.
hardening-table-windows: $(STAMP)
	$(MAKE) test-windows ARGS="-q $$($(BIN)/python -m tests.hardening.table --windows --modules)"
	$(BIN)/python -m tests.hardening.table --windows

# An environment of its own: protoc of the oldest protobuf that is allowed, and not of the newest.
$(PROTO_LOCKED): requirements/proto.txt
	@$(NEW_VENV) $(PROTO_VENV)
	$(PROTO_VENV)/bin/python $(PIP) --require-hashes -r requirements/proto.txt
	@touch $@

# protoc leaves the types of a mapping's keys and values out, and types that are known in part only are no use to pyright.
WHOLE_TYPES := sed 's/_Mapping\]/_Mapping[str, object]]/g'

proto: $(PROTO_LOCKED)
	@mkdir -p build
	$(PROTO_VENV)/bin/protoc -I. --python_out=. --pyi_out=. $(PROTO)
	$(WHOLE_TYPES) trio_ipc/daemoneye/detection_pb2.pyi > build/detection.pyi
	mv build/detection.pyi trio_ipc/daemoneye/detection_pb2.pyi

# The committed code is compared with a fresh generation, so that a .proto edit can't land alone.
proto-check: $(PROTO_LOCKED)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTO_VENV)/bin/protoc -I. --python_out="$$fresh" --pyi_out="$$fresh" $(PROTO) && \
	$(WHOLE_TYPES) "$$fresh/trio_ipc/daemoneye/detection_pb2.pyi" > "$$fresh/typed" && \
	mv "$$fresh/typed" "$$fresh/trio_ipc/daemoneye/detection_pb2.pyi" && \
	for file in trio_ipc/daemoneye/detection_pb2.py trio_ipc/daemoneye/detection_pb2.pyi; do \
		diff -u "$$file" "$$fresh/$$file" || { echo "$$file is stale: run 'make proto' and commit it" >&2; exit 1; }; \
	done

# uv resolves for all platforms and Pythons at once; it is only needed here.
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	for name in dev bench fuzz proto dist docs; do \
		$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
			--no-emit-index-url --no-emit-find-links --no-emit-package trio-ipc --no-annotate \
			requirements/$$name.in -o requirements/$$name.txt || exit 1; \
	done
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate --resolution lowest-direct --all-extras \
		pyproject.toml requirements/oldest.in -o requirements/oldest.txt
	mkdir -p build requirements/protobuf && rm -f requirements/protobuf/*.txt
	for wanted in ==5.26.1 "<6" "<7" "<8"; do \
		echo "protobuf$$wanted" | $(BIN)/python -m uv pip compile --quiet --universal --generate-hashes \
			--python-version 3.11 --no-emit-index-url --no-annotate - -o build/protobuf.txt && \
		mv build/protobuf.txt requirements/protobuf/$$(sed -n 's/^protobuf==\([0-9.]*\).*/\1/p' build/protobuf.txt).txt \
		|| exit 1; \
	done

clean:
	rm -rf .venv .venv-* build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Wine, CPython for Windows and the wheels live in a cache outside the tree. ARGS go to pytest.
test-windows: $(STAMP)
	$(BIN)/python -m tests.windows.environment --python $(PYTHON_WINDOWS) $(if $(WINE),--wine $(WINE)) $(ARGS)
