# make demo   train, evaluate and predict on generated pictures        make test   the whole test suite
# make check  lint and types                                            each sets up what it needs in .venv
# make crash-test   kill trainings everywhere, 200 times at random (SEGNET_CRASH_TRIALS=…) and at every operation on a file
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check crash-test

demo: .venv/installed
	$(BIN)/python scripts/prepare_data.py sample
	$(BIN)/python scripts/train.py configs/sample.yaml --resume
	$(BIN)/python scripts/evaluate.py runs/sample
	$(BIN)/python scripts/predict.py runs/sample 'data/sample/JPEGImages/*[49].jpg' --out runs/sample/predictions --save mask,overlay --overwrite
	@echo "look at runs/sample/evaluation/val/report.html and runs/sample/predictions/*.overlay.jpg"

test: .venv/installed-dev
	$(BIN)/python -m pytest $(TESTS) $(if $(WORKERS),-n $(WORKERS) --dist loadfile)

crash-test: .venv/installed-dev
	SEGNET_CRASH_TRIALS=$${SEGNET_CRASH_TRIALS:-200} $(BIN)/python -m pytest tests/crash --timeout 7200

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@
