# make demo and make test need Python 3.10 to 3.13 and nothing else; each makes its own virtual environment.
PYTHON ?= python3
DEMO_VENV := .venv/demo
TEST_VENV := .venv/test
OLDEST_VENV := .venv/oldest
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# OpenMP threads that spin long starve the other processes of a machine with few cores; benchmarks/waiting.py
export GOMP_SPINCOUNT ?= 1000

.PHONY: help demo figures test test-all test-oldest check format hippocampus heads heads-hippocampus heads-lidc train-step predict predict-quick resampling clean

help:
	@echo "make demo      the whole workflow on a phantom, some twelve minutes on two CPU cores"
	@echo "make test      tests; under 20 minutes on two CPU cores (a browser, dcmtk and dicom3tools are used if they are there)"
	@echo "make test-all  the tests and the long end-to-end runs"
	@echo "make test-oldest   core tests with the lowest versions that pyproject.toml allows; Python 3.10 or 3.11"
	@echo "make figures   draws figures/ from the network and from the cases of the demo"
	@echo "make check     ruff, mypy (strict on the public modules) and the import contracts"
	@echo "make hippocampus HIPPOCAMPUS=/path/to/Dataset004_Hippocampus   the workflow on real MRI"
	@echo "make heads, make heads-hippocampus HIPPOCAMPUS=...   all heads and the probe compared"
	@echo "make heads-lidc LIDC=...   the fitted head and trained ones on real lung nodules"
	@echo "make train-step   cost of a training step beside stock nnU-Net's"
	@echo "make predict, make predict-quick, make resampling   speed of the predictor beside stock nnU-Net's"
	@echo "make format    ruff format"
	@echo "make clean     removes the virtual environments and the demo"

$(DEMO_VENV)/.installed: pyproject.toml $(shell find nnunetv2 -name '*.py')
	$(PYTHON) -m venv $(DEMO_VENV)
	@echo "Installing nnU-Net, PyTorch and this project (some minutes, 6 GB)"
	$(DEMO_VENV)/bin/pip install --progress-bar on -e .
	touch $@

$(TEST_VENV)/.installed: pyproject.toml $(shell find nnunetv2 -name '*.py')
	$(PYTHON) -m venv $(TEST_VENV)
	@echo "Installing nnU-Net, PyTorch, this project and its test tools (some minutes, 6 GB)"
	$(TEST_VENV)/bin/pip install --progress-bar on -e '.[dev]'
	touch $@

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/nnUNet3DCT_demo -o demo

test: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m pytest -m "not slow"

test-all: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m pytest

# exactly the lower bounds of pyproject.toml; pip cannot resolve that way, uv can
$(OLDEST_VENV)/.installed: pyproject.toml $(shell find nnunetv2 -name '*.py')
	$(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/pip install uv
	@echo "Installing the lowest versions of everything (some minutes, 6 GB)"
	$(OLDEST_VENV)/bin/uv pip install --python $(OLDEST_VENV)/bin/python --resolution lowest-direct -e '.[dev]'
	touch $@

test-oldest: $(OLDEST_VENV)/.installed
	$(OLDEST_VENV)/bin/python -m pytest -m "not slow" tests/upstream tests/formats tests/networks \
		tests/evaluation tests/inference/test_predict.py tests/inference/test_backends.py tests/training/test_end_to_end.py

# all figures; the cases are those of the demo, which has to be there
figures: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python -m figures.draw_rooms
	$(DEMO_VENV)/bin/python -m figures.draw_model
	$(DEMO_VENV)/bin/python -m figures.draw_cases demo

# real MRI, about an hour on two CPU cores; HIPPOCAMPUS=folder of the raw dataset
hippocampus: $(DEMO_VENV)/.installed
	PATH="$(CURDIR)/$(DEMO_VENV)/bin:$$PATH" benchmarks/hippocampus.sh runs/hippocampus

# one training step of every trainer beside stock nnU-Net's; some ten minutes on two CPU cores
train-step: $(DEMO_VENV)/.installed
	mkdir -p runs
	$(DEMO_VENV)/bin/python benchmarks/train_step.py -o runs/train_step.json $(TRAIN_STEP_FLAGS)

# stock and our predictor in turns on the same cases; hours on two CPU cores with all 36 cases,
# some 50 minutes with PREDICT_FLAGS="--cases 8", minutes with predict-quick
predict: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python benchmarks/predict.py --work runs/predict -o runs/predict.json $(PREDICT_FLAGS)

predict-quick: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python benchmarks/predict.py --work runs/predict_quick -o runs/predict_quick.json --quick

resampling: $(DEMO_VENV)/.installed
	mkdir -p runs
	$(DEMO_VENV)/bin/python benchmarks/resampling.py -o runs/resampling.json

# every head and the probe on the hard phantom, some two hours on two CPU cores; goes on where it was stopped
heads: $(DEMO_VENV)/.installed
	mkdir -p runs
	$(DEMO_VENV)/bin/python benchmarks/heads.py --work runs/heads_phantom -o runs/heads_phantom.json \
		--target_labels lesion --patch 24 48 64 --stage_1 2500

# the same on real MRI, from the stage 1 of make hippocampus; HIPPOCAMPUS=folder of the raw dataset
heads-hippocampus: $(DEMO_VENV)/.installed
	mkdir -p runs
	$(DEMO_VENV)/bin/python benchmarks/heads.py --work runs/heads_hippocampus -o runs/heads_hippocampus.json \
		--hippocampus $(HIPPOCAMPUS) --folds 5 --intensity_aug on --scratch 5300 \
		--start runs/hippocampus/results/Dataset004_Hippocampus/nnUNetTrainer_Stage1__nnUNetPlansTiny__3d_fullres \
		--splits runs/hippocampus/preprocessed/Dataset004_Hippocampus/splits_final.json

# the fitted head and trained ones on real lesions, some five hours on two CPU cores; LIDC=folder of Dataset021_LIDCTexture
# and Dataset022_LIDCNodules
heads-lidc: $(DEMO_VENV)/.installed
	PATH="$(CURDIR)/$(DEMO_VENV)/bin:$$PATH" benchmarks/fitted_head.sh $(LIDC) $(CURDIR)/runs/lidc
	PATH="$(CURDIR)/$(DEMO_VENV)/bin:$$PATH" benchmarks/trained_heads.sh $(CURDIR)/runs/lidc Dataset021_LIDCTexture 400 0 \
		Grid=nnUNetTrainer_CLSHeadSumFT Case=nnUNetTrainer_CLSHeadLesion \
		Joint=nnUNetTrainer_CLSHeadLesion,NNUNETV2_MT_GRADIENT=0.5

check: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy
	$(TEST_VENV)/bin/lint-imports

format: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/ruff format .
	$(TEST_VENV)/bin/ruff check --fix .

clean:
	rm -rf .venv demo build dist
