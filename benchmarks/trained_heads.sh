#!/usr/bin/env bash
# Trainers with a class head beside the fitted head, on all folds, each from the stage 1 of its fold.
#   benchmarks/trained_heads.sh WORK DATASET ITERATIONS SEED NAME=TRAINER[,VARIABLE=VALUE...] ...
# WORK is that of fitted_head.sh, which comes first. Folds that are done are kept. NAME tells runs of one trainer apart:
#   trained_heads.sh work Dataset021_LIDCTexture 400 0 Joint=nnUNetTrainer_CLSHeadLesion,NNUNETV2_MT_GRADIENT=0.5
# The validation cases are predicted by nnUNet3DCT_predict, whose labels are those of nnU-Net's own final validation and
# which takes a fraction of its time on a CPU. The fitted head of fitted_head.sh stands beside them as Fitted.
set -euo pipefail
work=$1 dataset=$2 iterations=$3 seed=$4
shift 4
plans=nnUNetPlansTiny suffix=__nnUNetPlansTiny__3d_fullres
export nnUNet_raw=$work/raw nnUNet_preprocessed=$work/preprocessed
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=2 GOMP_SPINCOUNT=1000
stage_1=$work/results_$seed/$dataset/nnUNetTrainer_Stage1$suffix
compared=$work/heads_$seed/$dataset
mkdir -p "$compared"
[ -d "$compared/Fitted$suffix" ] || cp -r "${stage_1/Stage1/CLSHeadLesion}" "$compared/Fitted$suffix"

train() { # trainer, fold; without the final validation
  python - "$dataset" "$2" "$1" "$plans" <<'P'
import sys
import torch
from nnunetv2.run.run_training import get_trainer_from_args
dataset, fold, trainer, plans = sys.argv[1:]
get_trainer_from_args(dataset, "3d_fullres", int(fold), trainer, plans, device=torch.device("cpu")).run_training()
P
}

predict() { # model folder, fold, name
  local out=$1/fold_$2/validation images=$1/fold_$2/images labels=$1/fold_$2/labels
  rm -rf "$images" "$labels" && mkdir -p "$images" "$labels"
  python - "$nnUNet_preprocessed/$dataset/splits_final.json" "$2" <<'P' | while read -r case; do
import json, sys
print("\n".join(json.load(open(sys.argv[1]))[int(sys.argv[2])]["val"]))
P
    ln -sf "$(readlink -f "$nnUNet_raw/$dataset/imagesTr/${case}_0000.nii.gz")" "$images/${case}_0000.nii.gz"
    ln -sf "$(readlink -f "$nnUNet_raw/$dataset/labelsTr/$case.nii.gz")" "$labels/$case.nii.gz"
  done
  nnUNet_results=$work/heads_$seed nnUNet3DCT_predict -i "$images" -o "$out" -d "$dataset" -tr "$3" -p $plans \
    -c 3d_fullres -f "$2" -device cpu --disable_progress_bar
  nnUNetv2_evaluate_folder "$labels" "$out" -djfile "$1/dataset.json" -pfile "$1/plans.json" -np 2
  rm -r "$images" "$labels"
}

for entry in Fitted=nnUNetTrainer_CLSHeadLesion "$@"; do
  name=${entry%%=*} rest=${entry#*=}
  trainer=${rest%%,*} variables=$(tr ',' '\n' <<<"${rest#"$trainer"}")
  for fold in 0 1 2 3 4; do
    model=$compared/$name$suffix run=$work/heads_$seed/runs/$name/$fold
    [ -f "$model/fold_$fold/validation/summary.json" ] && continue
    if [ ! -f "$model/fold_$fold/checkpoint_final.pth" ]; then
      started=$(date +%s)
      ( for variable in $variables; do export "$variable"; done
        export nnUNet_results=$run NNUNETV2_PRE_CHECKPOINT_PATH=$stage_1/fold_$fold/checkpoint_final.pth
        export NNUNETV2_MT_EPOCHS=$((iterations / 100)) NNUNETV2_MT_ITERS_PER_EPOCH=100 NNUNETV2_MT_VAL_ITERS=1
        export NNUNETV2_MT_CLS_VAL_EVERY=1000 NNUNETV2_MT_INTENSITY_AUG=off NNUNETV2_MT_SEED=$seed
        train "$trainer" $fold )
      echo "$dataset,$seed,$name,$fold,$(($(date +%s) - started))" >>"$work/seconds.csv"
      mkdir -p "$model"
      cp -n "$run/$dataset/$trainer$suffix/"*.json "$model/"
      rm -rf "$model/fold_$fold" && mv "$run/$dataset/$trainer$suffix/fold_$fold" "$model/"
    fi
    predict "$model" $fold "$name"
  done
done

nnUNet_results=$work/heads_$seed nnUNet3DCT_select -d "$dataset" --disable_ensembling --reference Fitted \
  -o "$work/trained_heads_${dataset#*_}_$seed.json"
