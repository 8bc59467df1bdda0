#!/usr/bin/env bash
# Plan and train both stages, as in the README's quickstart.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: train.sh [--help]

Plans and preprocesses the dataset, splits it into folds stratified by class, trains stage 1 (segmentation) and stage 2 (segmentation and class).
Stages whose checkpoint_final.pth exists are left out.

From the environment:
  nnUNet_raw, nnUNet_preprocessed, nnUNet_results   nnU-Net's folders (required)
  DATASET          dataset name                 default: Dataset001_3DCT
  CONFIGURATION    nnU-Net configuration        default: 3d_fullres
  FOLD             fold                         default: 0
  PLANS            plans identifier             default: nnUNetPlans
  PLANNER          planner                      default: ExperimentPlanner
  STAGE1_TRAINER   trainer of stage 1           default: nnUNetTrainer
  TRAINER          trainer of stage 2           default: nnUNetTrainer_CLSHeadSumFT
  DEVICE           cuda, cpu or mps             default: cuda
  NNUNETV2_MT_NUM_CLS, NNUNETV2_MT_LOSS_WEIGHT  default: 3 and 0.3; other NNUNETV2_MT_* variables pass through
  NNUNETV2_PRE_CHECKPOINT_PATH                  default: stage 1's checkpoint_best.pth
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then usage; exit 0; fi
if [[ $# -gt 0 ]]; then usage >&2; exit 2; fi
: "${nnUNet_raw:?set nnUNet_raw to the folder of raw datasets}"
: "${nnUNet_preprocessed:?set nnUNet_preprocessed}"
: "${nnUNet_results:?set nnUNet_results}"
DATASET=${DATASET:-Dataset001_3DCT}
CONFIGURATION=${CONFIGURATION:-3d_fullres}
FOLD=${FOLD:-0}
PLANS=${PLANS:-nnUNetPlans}
PLANNER=${PLANNER:-ExperimentPlanner}
STAGE1_TRAINER=${STAGE1_TRAINER:-nnUNetTrainer}
TRAINER=${TRAINER:-nnUNetTrainer_CLSHeadSumFT}
DEVICE=${DEVICE:-cuda}
# OpenMP threads that wait shall sleep soon, so that they leave the cores to others
[[ -n ${OMP_WAIT_POLICY:-} ]] || export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

id=${DATASET#Dataset}
id=$((10#${id%%_*}))
stage1="$nnUNet_results/$DATASET/${STAGE1_TRAINER}__${PLANS}__${CONFIGURATION}/fold_$FOLD"
stage2="$nnUNet_results/$DATASET/${TRAINER}__${PLANS}__${CONFIGURATION}/fold_$FOLD"

if [[ ! -f "$nnUNet_preprocessed/$DATASET/$PLANS.json" ]]; then
  nnUNetv2_plan_and_preprocess -d "$id" --verify_dataset_integrity -c "$CONFIGURATION" -pl "$PLANNER"
fi

if [[ ! -f "$nnUNet_preprocessed/$DATASET/splits_final.json" ]]; then
  nnUNet3DCT_splits -d "$id"
fi

if [[ ! -f "$stage1/checkpoint_final.pth" ]]; then
  nnUNetv2_train "$DATASET" "$CONFIGURATION" "$FOLD" -tr "$STAGE1_TRAINER" -p "$PLANS" -device "$DEVICE" --npz
fi

if [[ ! -f "$stage2/checkpoint_final.pth" ]]; then
  export NNUNETV2_MT_NUM_CLS=${NNUNETV2_MT_NUM_CLS:-3}
  export NNUNETV2_MT_LOSS_WEIGHT=${NNUNETV2_MT_LOSS_WEIGHT:-0.3}
  export NNUNETV2_PRE_CHECKPOINT_PATH=${NNUNETV2_PRE_CHECKPOINT_PATH:-$stage1/checkpoint_best.pth}
  nnUNetv2_train "$DATASET" "$CONFIGURATION" "$FOLD" -tr "$TRAINER" -p "$PLANS" -device "$DEVICE" --npz
fi
