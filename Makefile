# `make help` lists the targets. Everything runs in .venv, which is made when it is missing
# or older than the dependencies in setup.cfg.

PYTHON ?= python3
PYTHON_NEW ?= python3.13
VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell sed -n 's/__version__ = "\(.*\)"/\1/p' estat/__init__.py)
IMAGE ?= estat-ingest:$(VERSION)
# docker, podman or buildah
CONTAINER ?= docker
# the registry in IMAGE, where that is one of ECR
ECR = $(shell echo '$(IMAGE)' | sed -nE 's,^([0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?)/.+,\1,p')
PORT ?= 8080
# most tests wait for a server most of the time; whoever is done takes tests over from another
PARALLEL ?= --numprocesses=2 --dist=worksteal
PYTEST := $(BIN)/python -m pytest $(PARALLEL)
# a person sees pip's own progress
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(shell test -t 2 || echo --quiet)

.DEFAULT_GOAL := help
.PHONY: help run-local test test-all test-compiled test-senders needs lint size check release-check soak fuzz \
 bench docs build dist wheel push pins audit-dependencies audit-template clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "1 of 2: make a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2 of 2: install the server and what it needs; this takes some 20 seconds"
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(PIP_INSTALL) --editable '.[test,test-all,check]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[bench]'
	@touch $@

run-local: $(VENV)/.installed ## start the server on 127.0.0.1:8080, objects in ./data
	@HTTP_ADDR=127.0.0.1:$(PORT) RAW_BUCKET=$${RAW_BUCKET:-file:./data} DLQ_DIR=$${DLQ_DIR:-./data/dlq} \
	 FLUSH_INTERVAL=$${FLUSH_INTERVAL:-5s} \
	 exec $(BIN)/gunicorn -c conf/gunicorn.conf.py estat.wsgi:app

test: $(VENV)/.installed-test ## run the tests that need Python only, in a few minutes
	$(PYTEST) --tier=quick
	TEST_WORKER=stock $(PYTEST) --tier=quick

test-all: needs $(VENV)/.installed-dev ## run all tests, some also with gunicorn's own worker
	$(PYTEST)
	TEST_WORKER=stock $(PYTEST)

build/senders/node_modules: tests/senders/npm/package.json tests/senders/npm/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)
	cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

test-senders: $(VENV)/.installed-dev build/senders/node_modules ## send with the SDKs of docs/senders.md (needs npm)
	$(PYTEST) tests/senders

test-compiled: build/pyproject-build/bin/pyproject-build ## run all tests on the compiled build of the sdist
	rm -rf build/compiled
	mkdir -p build/compiled
	$< --sdist --outdir build/sdist
	tar -xzf build/sdist/estat_ingest-$(VERSION).tar.gz -C build/compiled --strip-components=1
	$(PYTHON) -m venv build/compiled/$(VENV)
	cd build/compiled && ESTAT_COMPILE=1 $(BIN)/python -m pip install --quiet --editable '.[test,test-all,check]'
	cd build/compiled && touch $(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-dev
	INTERPRETED=$(CURDIR) $(MAKE_COMMAND) -C build/compiled test-all

needs: # say what this machine lacks for all tests
	@missing=$$(tests/needs); test -z "$$missing" || echo "Some tests will be skipped; for them: apt-get install" $$missing
	@test "$$(id -u)" = 0 || echo "Some tests will be skipped; they need root, for mounts and the image."

lint: $(VENV)/.installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint conf/ecs/estat.yaml
	$(BIN)/hadolint Dockerfile

size: ## count the lines of code
	@$(PYTHON) .ci/size.py

check: lint test test-compiled ## what CI runs

release-check: lint audit-template test test-compiled ## check, audit-template, and test with PYTHON_NEW=…
	$(MAKE) test PYTHON=$(PYTHON_NEW) VENV=.venv-new

soak: $(VENV)/.installed-dev ## kill it at random for an hour; DURATION=10m, SEED=…
	$(BIN)/python -m tests.fault.soak $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.installed-dev build/fast ## compare both workers, ours compiled; EXAMPLES=, SEED=
	COMPILED=$(CURDIR)/build/fast FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) FUZZ_SEED=$(SEED) \
	 $(BIN)/python -m pytest --capture=no --hypothesis-show-statistics \
	 tests/system/test_same_when_mutated.py

build/fast: $(shell find estat -name '*.py') setup.py setup.cfg
	rm -rf $@
	ESTAT_COMPILE=1 $(PYTHON) -m pip install --quiet --no-deps --target $@ .

bench: $(VENV)/.installed-dev $(VENV)/.installed-bench build/fast ## measure; MEASURE="latency start", CHARTS=dir (wrk)
	$(BIN)/python -m bench $(if $(CHARTS),--charts $(CHARTS)) $(MEASURE)

docs: $(VENV)/.installed ## write the generated references
	$(BIN)/python -m estat.config.reference

build: ## build the container image; CONTAINER=, IMAGE=
	$(CONTAINER) build $(if $(filter docker,$(notdir $(CONTAINER))),,--format docker) \
	 --build-arg VERSION=$(VERSION) \
	 --build-arg REVISION=$(or $(shell git rev-parse HEAD 2>/dev/null),unknown) \
	 $(if $(BUILD_IMAGE),--build-arg BUILD_IMAGE=$(BUILD_IMAGE)) \
	 $(if $(RUNTIME_IMAGE),--build-arg RUNTIME_IMAGE=$(RUNTIME_IMAGE)) \
	 $(BUILD_FLAGS) --tag $(IMAGE) .

dist: build/pyproject-build/bin/pyproject-build ## build the sdist and a wheel for any Python into dist
	$<

wheel: build/pyproject-build/bin/pyproject-build ## the same, but a compiled wheel (needs a C compiler)
	ESTAT_COMPILE=1 $<

push: ## push the image to ECR (docs/image.md)
	@test -n "$(ECR)" || { echo "IMAGE=$(IMAGE) is not a name in ECR; it must be" \
	 "<account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag>" >&2; exit 2; }
	aws ecr get-login-password --region $(word 4,$(subst ., ,$(ECR))) \
	 | $(CONTAINER) login --username AWS --password-stdin $(ECR)
	$(CONTAINER) push $(IMAGE)

pins: $(VENV)/.installed ## pin the newest packages that setup.cfg allows
	$(BIN)/python .ci/pins.py

# in environments of their own: what some need contradicts setup.cfg
build/pyproject-build/bin/pyproject-build: REQUIREMENT = build>=1.3,<2
build/pip-audit/bin/pip-audit: REQUIREMENT = pip-audit>=2.10,<3
build/checkov/bin/checkov: REQUIREMENT = checkov>=3.3.30,<4
build/pyproject-build/bin/pyproject-build build/pip-audit/bin/pip-audit build/checkov/bin/checkov:
	$(PYTHON) -m venv build/$(@F)
	build/$(@F)/bin/python -m pip install --quiet '$(REQUIREMENT)'

audit-dependencies: build/pip-audit/bin/pip-audit ## look for known faults of the image's packages
	$< --strict --disable-pip --require-hashes --requirement conf/image/requirements.txt

# checkov does not evaluate !If, on which 19, 23, 91 and 97 depend. The others are excepted, as in
# docs/deploy.md: 26 is SNS.1, 260 is ELB.18; 158 wants a KMS key for logs, which AWS's own encrypts.
audit-template: build/checkov/bin/checkov ## hold conf/ecs against checkov's rules
	$< --file conf/ecs/estat.yaml --framework cloudformation --skip-download --compact --quiet \
	 --skip-check CKV_AWS_19,CKV_AWS_23,CKV_AWS_91,CKV_AWS_97,CKV_AWS_26,CKV_AWS_158,CKV_AWS_260

clean: ## remove what the other targets made, but not ./data
	rm -rf $(VENV) .venv-new build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
