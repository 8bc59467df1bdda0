#!/usr/bin/env bash
# Trainers with a class head beside the fitted head, on all folds, each from the stage 1 of its fold.
#   benchmarks/trained_heads.sh WORK DATASET ITERATIONS SEED NAME=TRAINER[,VARIABLE=VALUE...] ...
# WORK is that of fitted_head.sh, which comes first. Trained folds are kept. NAME distinguishes runs of one trainer:
#   trained_heads.sh work Dataset021_LIDCTexture 400 0 Joint=nnUNetTrainer_CLSHeadLesion,NNUNETV2_MT_GRADIENT=0.5
set -euo pipefail
work=$1 dataset=$2 iterations=$3 seed=$4
shift 4
plans=nnUNetPlansTiny suffix=__nnUNetPlansTiny__3d_fullres
export nnUNet_raw=$work/raw nnUNet_preprocessed=$work/preprocessed
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=2 GOMP_SPINCOUNT=1000
stage_1=$work/results_$seed/$dataset/nnUNetTrainer_Stage1$suffix
compared=$work/heads_$seed/$dataset
mkdir -p "$compared"

for entry in "$@"; do
  name=${entry%%=*} rest=${entry#*=}
  trainer=${rest%%,*} variables=$(tr ',' '\n' <<<"${rest#"$trainer"}")
  for fold in 0 1 2 3 4; do
    run=$work/heads_$seed/runs/$name
    [ -f "$compared/$name$suffix/fold_$fold/validation/summary.json" ] && continue
    started=$(date +%s)
    env $variables nnUNet_results="$run" NNUNETV2_PRE_CHECKPOINT_PATH="$stage_1/fold_$fold/checkpoint_final.pth" \
      NNUNETV2_MT_EPOCHS=$((iterations / 100)) NNUNETV2_MT_ITERS_PER_EPOCH=100 NNUNETV2_MT_VAL_ITERS=1 \
      NNUNETV2_MT_CLS_VAL_EVERY=1000 NNUNETV2_MT_INTENSITY_AUG=off NNUNETV2_MT_SEED="$seed" \
      nnUNetv2_train "$dataset" 3d_fullres $fold -tr "$trainer" -p $plans -device cpu
    echo "$dataset,$seed,$name,$fold,$(($(date +%s) - started))" >>"$work/seconds.csv"
    mkdir -p "$compared/$name$suffix"
    cp -n "$run/$dataset/$trainer$suffix/"*.json "$compared/$name$suffix/"
    mv "$run/$dataset/$trainer$suffix/fold_$fold" "$compared/$name$suffix/"
  done
done
