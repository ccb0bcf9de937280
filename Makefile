PYTHON := .venv/bin/python

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(PYTHON):
	tools/environment

.PHONY: help build lib install-lib wheels test quick test-safe cover bench bench-more fuzz faults asan ubsan lint docs manual report-libraries

build: $(PYTHON)  ## build in place, with the test dependencies
	$(PYTHON) -m pip install -q --group test -e .

lib: build  ## liblbrcore for C, without Python, into build/library
	$(PYTHON) lbrcore/library/amalgamate.py build/library
	$(MAKE) -s -C lbrcore/library SOURCE=$(CURDIR)/build/library all sources

install-lib:  ## install what `make lib` built: PREFIX, DESTDIR
	$(MAKE) -s -C lbrcore/library SOURCE=$(CURDIR)/build/library install

wheels:  ## wheels and source archive, tried, into dist/ (Debian as root: of every Python it has)
	tools/wheels

.PHONY: walks
walks:  ## README's three walks in fresh Debians, timed (as root, with debootstrap)
	tools/walks

test:  ## all tests, as the README says
	./check

quick: build  ## the tests that need neither time nor other programs
	$(PYTHON) -m pytest -q -m "not slow and not peer"

test-safe: $(PYTHON)  ## the core's tests on a bounds-checked build
	$(PYTHON) -m pip install -q --group test
	LBRCORE_SAFE=1 $(PYTHON) setup.py -q build_ext --inplace --force
	$(PYTHON) -m pytest -q -m "not slow and not peer"
	$(PYTHON) setup.py -q build_ext --inplace --force

cover: $(PYTHON)  ## line coverage, of the .pyx too
	$(PYTHON) -m pip install -q --group test --group cover
	LBRCORE_TRACE=1 $(PYTHON) setup.py -q build_ext --inplace --force
	LBRCORE_TRACE=1 $(PYTHON) -m pytest -q -m "not slow and not peer" -n logical --dist loadfile \
		--cov --cov-report=term-missing:skip-covered
	$(PYTHON) setup.py -q build_ext --inplace --force

bench: build  ## the published suite into build/bench.md, .json, .svg; QUICK=1 for the short form
	$(PYTHON) -m pylbr bench $(if $(QUICK),,--full) -o build/bench

bench-more: build  ## benchmarks beyond the suite; PYLBR_BENCH=quick for the short form
	$(PYTHON) -m pytest bench --benchmark-enable --benchmark-columns=min,median,rounds -q

fuzz: build  ## ten minutes of mutants of every target
	$(PYTHON) -m tests.fuzz.soak --seconds 600 --keep fuzz-findings

faults: build  ## every failing call, and a thousand kills, of each command
	$(PYTHON) -m tests.faults
	$(PYTHON) -m tests.faults.kills

.PHONY: mutants tsan
mutants: build  ## mutants of the core, killed by the nearest tests or not
	$(PYTHON) -m tests.mutants --most 100 lbrcore/control.pyx lbrcore/lbr.pyx lbrcore/xsave.pyx

asan: build  ## quick tests on a copy built with AddressSanitizer
	tools/sanitized address

ubsan: build  ## quick tests on a copy built with UndefinedBehaviorSanitizer
	tools/sanitized undefined

tsan: build  ## the library in threads under ThreadSanitizer, a minute
	setarch -R $(PYTHON) -m tests.fuzz.library --sanitizer thread --threads 4 --seconds 60

lint: $(PYTHON)  ## ruff, cython-lint, codespell, types, stubs
	$(PYTHON) -m pip install -q --group lint --group test
	$(PYTHON) -m ruff check .
	PATH=.venv/bin:$$PATH cython-lint lbrcore pylbr
	.venv/bin/codespell lbrcore pylbr tests bench docs examples README.md CONTRIBUTING.md
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/test_stubs.py

docs: $(PYTHON)  ## HTML into docs/_build
	$(PYTHON) -m pip install -q --group docs -e .
	$(PYTHON) tools/contract_text.py docs/contract.txt
	$(PYTHON) -m sphinx -q -W -b html docs docs/_build

report-libraries:  ## bundle what the page of pylbr report --html draws with; needs npm
	python3 tools/report_libraries.py

manual: build  ## man pages and shell completions, made of the parsers, into build/
	$(PYTHON) -m pip install -q --group manual
	$(PYTHON) tools/manual.py build
