# The book and its tests. `make help` lists what there is.
PYTHON ?= python3
PORT ?= 8000
JOBS ?= 2
PY := .venv/bin/python
READY := .venv/zsar-installed
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 900

# One thread a process: two processes with two threads each on two cores slow torch down many times.
export OMP_NUM_THREADS ?= 1
# An environment that forbids bytecode makes every process compile every library again.
unexport PYTHONDONTWRITEBYTECODE MPLBACKEND
# Progress bars would stand among the outputs of a notebook.
export TQDM_DISABLE := 1

.PHONY: help install book pdf test links numbers reproduce refresh serve clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 10
	@echo "variables: LONG=1 (long counts), GPU=1 (notebooks on the accelerator), PORT=8000, JOBS=2, PYTHON=python3"

$(READY): pyproject.toml tools/make_env.py
	@$(PYTHON) tools/make_env.py

install: $(READY)  ## install into .venv, nothing more

book: $(READY)  ## run every chapter and build _build/html
	@$(PY) tools/build_book.py

pdf: $(READY)  ## print the built book into _build/zsar.pdf (needs Chromium; `make book` first)
	@$(PY) tools/make_pdf.py

links: $(READY)  ## check the addresses that pages, README and the other documents link to (needs a network)
	@$(PY) tools/check_links.py

ifdef GPU
test: $(READY)
	@$(PY) tools/gpu_record.py $(NBVAL)
else
test: $(READY)  ## run all tests (LONG=1: long counts; GPU=1: the notebooks on the accelerator here, with a record)
	$(if $(LONG),ZSAR_LONG=1) $(PY) -m pytest book tests -q -n $(JOBS) --dist loadscope --durations 8 $(NBVAL)
endif

reproduce: $(READY)  ## the whole table on the drawn world, into _build/reproduction (JOBS=2 processes), resumable
	@$(PY) -m torch.distributed.run --standalone --nproc-per-node $(JOBS) -m zsar reproduce --profile drawn \
	    --out _build/reproduction

refresh: $(READY)  ## run the chapters and store the outputs in the committed notebooks
	@$(PY) tools/build_book.py --refresh

numbers: $(READY)  ## write the measured numbers of the prose anew, from the stored results
	@$(PY) tools/measured

serve: $(READY)  ## serve the built book on this machine (PORT=8000)
	@$(PY) tools/serve.py $(PORT)

clean:  ## remove everything built (.venv stays)
	rm -rf _build dist .pytest_cache .ruff_cache
