# make demo: from a fresh clone to the report of the `quick` experiment. `make help` lists the rest.
PYTHON ?= python3
CORES ?= all
WORKERS ?= auto
EXPERIMENT ?= quick
FLAVOUR ?= cuda
# Images with Python export a variable of this name, so that the environment does not set it.
PYTHON_VERSION := 3.12

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed.stamp
TOOLS := $(VENV)/tools.stamp
CHECKERS := .venv-check/installed.stamp
CLIENTS := .venv-clients/installed.stamp
LOCKED := $(addprefix envs/,install.py requirements.txt requirements-source.txt requirements-torch.txt torch-builds.txt)
SNAKEMAKE := $(BIN)/snakemake

# What a shell or a git hook exports changes neither what is installed nor what runs. Where byte code is forbidden,
# every job would compile all of torch again: two thirds of its time.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE PYTHONINSPECT
unexport PYTHONDEVMODE PYTHONIOENCODING PYTHONSAFEPATH PYTHONVERBOSE MPLBACKEND MATPLOTLIBRC SNAKEMAKE_PROFILE
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_PRE PIP_DRY_RUN PIP_CONSTRAINT PIP_REQUIREMENT
unexport PIP_EDITABLE PIP_PYTHON PIP_IGNORE_INSTALLED PIP_REQUIRE_VIRTUALENV PIP_NO_BINARY PIP_ONLY_BINARY
unexport GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_PREFIX
unexport BASH_ENV ENV CDPATH GREP_OPTIONS
export PYTHONUTF8 := 1
# Snakemake ends where it cannot keep its cache, as in a home folder that cannot be written.
ifeq ($(shell cache="$${XDG_CACHE_HOME:-$$HOME/.cache}"; mkdir -p "$$cache" 2> /dev/null && test -w "$$cache" && echo yes),)
export XDG_CACHE_HOME := $(CURDIR)/.snakemake/cache
endif

.PHONY: help demo install report results page test test-fast lint lint-python lint-workflow docs format generate \
	bench bench-clients bench-audit stability release-models gpu-check gpu-wheels notebooks container lock check-lock clean
.SECONDEXPANSION:
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: install ## run the `quick` experiment (or EXPERIMENT=name) and its report, print the overview
	@rm -f .snakemake/creditflow/times.txt
	@# By `env`, as a shell in between would keep a signal that ends make from Snakemake, which would then run on.
	env CREDITFLOW_PROGRESS=1 $(SNAKEMAKE) --cores $(CORES) --quiet host -- $(EXPERIMENT)
	@$(MAKE) --no-print-directory results/$(EXPERIMENT)/report.html
	@echo; for table in overview audit; do cat results/$(EXPERIMENT)/tables/$$table.md 2> /dev/null; done
	@echo "report: results/$(EXPERIMENT)/report.html"
	@cat .snakemake/creditflow/times.txt 2> /dev/null || true

report: results/$(EXPERIMENT)/report.html ## (re)make the HTML report of EXPERIMENT

results/%/report.html: $$(wildcard results/$$*/tables/*.html results/$$*/figures/*.svg) | $(INSTALLED)
	$(SNAKEMAKE) --quiet all --report $@ -- $*

results: $(INSTALLED) ## write tables, figures and provenance of EXPERIMENT to docs/results (OPTIONS for src/export.py)
	$(BIN)/python src/export.py --experiment $(EXPERIMENT) $(OPTIONS)

page: $(INSTALLED) ## write docs/results/README.md, and README's numbers, from docs/results/claims.yaml and exported tables
	$(BIN)/python src/write_page.py --readme README.md

install: $(INSTALLED) ## make .venv from the lock, verified by hash

$(INSTALLED): $(LOCKED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: creditflow needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python envs/install.py --no-compile
	@touch $@

$(TOOLS): envs/requirements-dev.txt $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
		--only-binary=:all: -r envs/requirements-dev.txt
	@touch $@

test: $(TOOLS) ## the whole test suite, a process per core (WORKERS)
	$(BIN)/pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-fast: $(TOOLS) ## the tests that take seconds
	$(BIN)/pytest -m "not slow"

# env-modules takes the place of the container, for which even a dry-run wants Apptainer.
DRYRUN = $(SNAKEMAKE) --sdm env-modules -n --workflow-profile profiles
EXPERIMENTS = $(notdir $(basename $(wildcard config/experiments/*.yaml)))

lint: lint-workflow lint-python docs ## format, types, rooms, workflow lint, dry-runs, docs (-j2 runs parts at once)

lint-python: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/mypy

# Half of the experiments for each Snakemake, as a start takes as long as a small plan. Tests and the demo have the
# `default` profile. For an experiment of full size its small counterpart is planned: `sal_fashion` for `sal`,
# `pepita_fashion` for `pepita_search`. Tests load all of them.
SMALL = $(foreach name,$(EXPERIMENTS),$(if $(findstring _fashion,$(name)),$(name)))
LISTED = $(filter-out pepita_search $(subst _fashion,,$(SMALL)),$(EXPERIMENTS))
lint-workflow: $(TOOLS)
	$(BIN)/snakefmt --check .
	$(SNAKEMAKE) --lint
	$(DRYRUN)/gpu -- $(wordlist 1,9,$(LISTED)) > /dev/null & gpu=$$!; \
		$(DRYRUN)/slurm -- $(wordlist 10,99,$(LISTED)) > /dev/null; slurm=$$?; wait $$gpu && exit $$slurm

docs: $(TOOLS) ## the documentation as a site, without any warning: build/docs/index.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html -c docs -d build/doctrees . build/docs

format: $(TOOLS) ## format Python and Snakemake files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt .

generate: $(INSTALLED) ## write the schema and the documentation of all settings from their models
	PYTHONPATH=src $(BIN)/python -m creditflow.workflow.generated

bench: $(INSTALLED) ## all benchmarks, side by side: results/bench, docs/measurements.md (OPTIONS for benchmarks/run_all.py)
	$(BIN)/python benchmarks/run_all.py --page docs/measurements.md $(OPTIONS)

stability: $(INSTALLED) ## do verdicts survive other seeds and images? (OPTIONS for benchmarks/stability.py)
	$(BIN)/python benchmarks/stability.py $(OPTIONS)

release-models: $(INSTALLED) ## trained networks with model cards, in one archive in dist/ (OPTIONS for src/release.py)
	$(BIN)/python src/release.py $(OPTIONS)

PACKAGES := 'import sysconfig; print(sysconfig.get_path("purelib"))'
# An environment that sees the packages of .venv and adds the libraries that are looked at.
$(CLIENTS): benchmarks/requirements-clients.txt $(INSTALLED)
	$(BIN)/python -m venv --clear --without-pip .venv-clients
	$(BIN)/python -c $(PACKAGES) > "$$(.venv-clients/bin/python -c $(PACKAGES))/workflow.pth"
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--require-hashes -r $<
	@touch $@

bench-clients: $(CLIENTS) ## what is said of other libraries' models: docs/clients.md (OPTIONS for benchmarks/clients.py)
	.venv-clients/bin/python benchmarks/clients.py $(OPTIONS)

bench-audit: $(CLIENTS) ## pyautoattack beside our audit: docs/clients.md (OPTIONS for benchmarks/audit.py)
	.venv-clients/bin/python benchmarks/audit.py --page docs/clients.md $(OPTIONS)

# With PYTHON=python3 it runs where nothing was installed by `make install`.
IS_GIVEN = $(filter-out file default undefined,$(firstword $(origin PYTHON)))
gpu-check: $(if $(IS_GIVEN),,$(INSTALLED)) ## check and time the library on an NVIDIA GPU (OPTIONS for benchmarks/gpu.py)
	$(if $(IS_GIVEN),$(PYTHON),$(BIN)/python) benchmarks/gpu.py $(OPTIONS)

gpu-wheels: $(INSTALLED) ## collect the wheels that gpu-check needs without network, for PYTHON_VERSION
	$(BIN)/python benchmarks/gpu_wheels.py --python-version $(PYTHON_VERSION) $(OPTIONS)

notebooks: $(TOOLS) ## write the notebooks of examples/ from the scripts, with what they print and draw
	for notebook in examples/*.ipynb; do \
		$(BIN)/jupytext --quiet --to ipynb "$${notebook%.ipynb}.py" && \
		PYTHONPATH="$(CURDIR)/src" $(BIN)/jupyter-execute --inplace "$$notebook" || exit 1; \
	done

container: $(INSTALLED) ## build the image for --use-apptainer (FLAVOUR=cpu for one without CUDA; OPTIONS for build.py)
	$(BIN)/python containers/build.py --flavour $(FLAVOUR) $(OPTIONS)

$(CHECKERS): envs/check.txt
	$(PYTHON) -m venv .venv-check
	.venv-check/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
		-r envs/check.txt
	@touch $@

lock: $(TOOLS) $(CHECKERS) ## resolve pyproject.toml anew into envs/ (OPTIONS=--keep: keep versions, look up hashes)
	$(BIN)/python envs/lock.py --uv .venv-check/bin/uv $(OPTIONS)

check-lock: $(CHECKERS) ## look up known vulnerabilities of all that is locked (with pip-audit, over the network)
	@.venv-check/bin/python envs/audit.py .venv-check/bin/pip-audit

clean: ## remove the results of EXPERIMENT; data and other experiments stay
	@echo '$(EXPERIMENT)' | grep -qxE '[A-Za-z0-9_-]+' && test '$(EXPERIMENT)' != data || \
		{ echo "error: EXPERIMENT='$(EXPERIMENT)' is not the name of an experiment" >&2; exit 2; }
	rm -rf results/$(EXPERIMENT)
