#!/usr/bin/env bash
# Five folds of stage 1 on real lesions, then fitted_head.py and unusual.py: some two hours on two CPU cores.
#   benchmarks/fitted_head.sh DATA WORK [SEED]
# DATA holds Dataset021_LIDCTexture and Dataset022_LIDCNodules (LIDC-IDRI, CC BY 3.0) with cases.csv; WORK gets everything.
set -euo pipefail
data=$1 work=$2 seed=${3:-0}
here=$(cd "$(dirname "$0")" && pwd)
export nnUNet_raw=$work/raw nnUNet_preprocessed=$work/preprocessed nnUNet_results=$work/results_$seed
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=2 GOMP_SPINCOUNT=1000
plans=nnUNetPlansTiny
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"

prepare() { # dataset, patch size or "", batch size
  [ -f "$nnUNet_preprocessed/$1/splits_final.json" ] && return
  cp -r "$data/$1" "$nnUNet_raw/"
  python - "$nnUNet_raw/$1" <<'P'
import csv, json, sys
from pathlib import Path
folder = Path(sys.argv[1])
rows = {row["case"]: row["patient"] for row in csv.DictReader((folder / "cases.csv").open())}
labels = json.loads((folder / "classification.json").read_text())
lines = ["Names,Subtype,Patient", *(f"{case},{label},{rows[case]}" for case, label in labels.items())]
(folder / "classification.csv").write_text("\n".join(lines) + "\n")
P
  nnUNetv2_plan_and_preprocess -d "$1" -c 3d_fullres -pl TinyUNetPlanner -gpu_memory_target 1 -np 2 -npfp 2
  python - "$nnUNet_preprocessed/$1/$plans.json" "$2" "$3" <<'P'
import json, sys
from pathlib import Path
path, patch, batch = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
plans = json.loads(path.read_text())
configuration = plans["configurations"]["3d_fullres"]
configuration["batch_size"] = batch
if patch:
    configuration["patch_size"] = [int(size) for size in patch.split()]
path.write_text(json.dumps(plans))
P
  nnUNet3DCT_splits -d "$1" -k 5
}

stage_1() { # dataset, epochs of 100 iterations
  for fold in 0 1 2 3 4; do
    [ -f "$nnUNet_results/$1/nnUNetTrainer_Stage1__${plans}__3d_fullres/fold_$fold/checkpoint_final.pth" ] && continue
    NNUNETV2_MT_EPOCHS=$2 NNUNETV2_MT_ITERS_PER_EPOCH=100 NNUNETV2_MT_VAL_ITERS=1 NNUNETV2_MT_LR=0.02 \
      NNUNETV2_MT_INTENSITY_AUG=off NNUNETV2_MT_SEED=$seed \
      nnUNetv2_train "$1" 3d_fullres $fold -tr nnUNetTrainer_Stage1 -p $plans -device cpu
  done
}

compare() { # dataset, name of the result
  python "$here/fitted_head.py" --model "$nnUNet_results/$1/nnUNetTrainer_Stage1__${plans}__3d_fullres" \
    --fitted "$nnUNet_results/$1/nnUNetTrainer_CLSHeadLesion__${plans}__3d_fullres" -o "$work/$2_$seed.json"
}

prepare Dataset021_LIDCTexture "48 48 48" 2
prepare Dataset022_LIDCNodules "" 6
stage_1 Dataset021_LIDCTexture 14
stage_1 Dataset022_LIDCNodules 8
compare Dataset021_LIDCTexture fitted_head_021_texture
compare Dataset022_LIDCNodules fitted_head_022_malignancy2
python "$here/unusual.py" --model "$nnUNet_results/Dataset021_LIDCTexture/nnUNetTrainer_Stage1__${plans}__3d_fullres" \
  --others "$nnUNet_preprocessed/Dataset022_LIDCNodules/${plans}_3d_fullres" --folds 0 1 2 3 4 --most 10 \
  -o "$work/unusual_021_$seed.json"
