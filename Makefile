# One virtual environment; the first target that needs it makes it.
PYTHON ?= python3
PY := .venv/bin/python
# GPU=1 installs CUDA's libraries, too: for an NVIDIA GPU, on Linux or in WSL2.
REQUIREMENTS := requirements$(if $(GPU),-gpu).txt
READY := .venv/ready$(if $(GPU),-gpu)

# Passed on when given, e.g. make pix2pix EPOCHS=50 DATASET=my/folder OUT=runs/mine
TRAIN_FLAGS := $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(BATCH_SIZE),--batch-size $(BATCH_SIZE)) \
  $(if $(PRECISION),--precision $(PRECISION)) $(if $(SEED),--seed $(SEED))
DATA_FLAGS := $(if $(DATASET),--dataset "$(DATASET)") $(if $(SIZE),--size $(SIZE))
WIDTH_FLAGS := $(if $(FILTERS),--filters $(FILTERS))

.PHONY: help train gan cgan data models pix2pix results demo download export \
  exercise web test slow torture bench lint clean

help:
	@echo "make train     everything in order: gan, cgan, data, models, pix2pix, results"
	@echo "make gan       stage 1  a GAN draws digits"
	@echo "make cgan      stage 2  a conditional GAN draws the digit it is asked for"
	@echo "make data      stage 3  look at the paired data"
	@echo "make models    stage 4  a look inside the networks"
	@echo "make pix2pix   stage 5  train and test Pix2Pix"
	@echo "make demo      stage 6  draw on a page, and see it coloured: RUN=runs/mine"
	@echo "make download  stage 7  fetch a dataset of the paper: make download DATASET=facades"
	@echo "make export    stage 8  take the network elsewhere, as SavedModel and TFLite: RUN=runs/mine"
	@echo "make results   stage 9  one page of results: RUN=runs/mine, or RUN=\"runs/l1 runs/cgan\""
	@echo "make exercise  check your answers in exercises/: make exercise N=4"
	@echo "make test      run the tests"
	@echo "make slow      run the tests that take longer: whole trainings, processes, kills, a web browser"
	@echo "make torture   stop trainings 60 times and see that nothing is lost (10 minutes)"
	@echo "make bench     time a training step; compare with PyTorch: TORCH=a Python that has it"
	@echo "make web       fetch the browser runtime in web/ again, with npm"
	@echo "make lint      run the linter"
	@echo "make clean     remove the virtual environment and caches; runs/ stays"
	@echo
	@echo "Variables: EPOCHS, DATASET, SIZE, FILTERS, BATCH_SIZE, PRECISION, SEED,"
	@echo "and OUT for pix2pix, e.g. make pix2pix EPOCHS=50 SIZE=256x512 FILTERS=32 OUT=runs/wide"
	@echo "GPU=1, e.g. make train GPU=1: with the libraries for an NVIDIA GPU (Linux, WSL2)"

train:
	@$(MAKE) --no-print-directory gan
	@$(MAKE) --no-print-directory cgan
	@$(MAKE) --no-print-directory data
	@$(MAKE) --no-print-directory models
	@$(MAKE) --no-print-directory pix2pix
	@$(MAKE) --no-print-directory results $(if $(OUT),RUN="$(OUT)")

gan: $(READY)
	$(PY) 01_gan_mnist.py $(TRAIN_FLAGS)

cgan: $(READY)
	$(PY) 02_cgan_mnist.py $(TRAIN_FLAGS)

data: $(READY)
	$(PY) 03_pix2pix_data.py $(DATA_FLAGS) $(if $(SEED),--seed $(SEED))

download: $(READY)
	$(PY) 07_get_pairs.py --download "$(or $(DATASET),$(error say which: make download DATASET=facades))"

models: $(READY)
	$(PY) 04_pix2pix_models.py $(WIDTH_FLAGS)

pix2pix: $(READY)
	$(PY) 05_pix2pix_train.py $(TRAIN_FLAGS) $(DATA_FLAGS) $(WIDTH_FLAGS) $(if $(OUT),--out "$(OUT)")

# Opens the page of a run or, if there is no run, the page in docs/.
demo: $(READY)
	@if [ -n "$(RUN)" ] || [ -d runs/05_pix2pix ]; then $(PY) 06_sketch_pad.py $(if $(RUN),--run $(RUN)); \
	  else echo "docs/pad.html: open it in any browser"; $(PY) -m webbrowser "file://$(CURDIR)/docs/pad.html"; fi

results: $(READY)
	$(PY) 09_results.py $(RUN)

export: $(READY)
	$(PY) 08_export.py $(if $(RUN),--run "$(RUN)")

exercise: $(READY)
	@$(PY) tests/exercises/grade.py "$(or $(N),$(error say which: make exercise N=4))" $(if $(FILE),"$(FILE)")

# Two processes, since a test uses little more than one core; a file's tests stay together.
test: $(READY)
	$(PY) -m pytest -m "not slow" -n 2 --dist loadfile

slow: $(READY)
	$(PY) -m pytest -m slow -n 2 --dist loadfile

torture: $(READY)
	STOPS=20 $(PY) -m pytest -m slow tests/robustness/test_torture.py

bench: $(READY)
	$(PY) benchmarks/step.py $(if $(TORCH),--torch "$(TORCH)")

# Fetches web/'s browser runtime as published. This needs npm; writing the page does not.
LITERT := 2.5.3
CORE := litertjs-core-$(LITERT).tgz
UTILS := litertjs-wasm-utils-$(LITERT).tgz
web:
	cd web && npm pack --silent @litertjs/core@$(LITERT) @litertjs/wasm-utils@$(LITERT)
	cd web && { tar -xzOf $(UTILS) package/dist/index.js | sed '/^export {/,$$d'; \
	  tar -xzOf $(CORE) package/dist/index.js | sed '/^import {/d; /^export {/,$$d'; } > litert.js
	cd web && tar -xzf $(CORE) --strip-components=2 package/wasm/litert_wasm_compat_internal.js \
	  package/wasm/litert_wasm_compat_internal.wasm
	cd web && rm $(CORE) $(UTILS) && sha256sum -c SHA256SUMS

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

$(READY): requirements.txt $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	  echo "make: TensorFlow 2.21 needs Python 3.10 to 3.13: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $(READY)

clean:
	rm -rf .venv .pytest_cache .ruff_cache __pycache__ tests/__pycache__ tests/*/__pycache__
