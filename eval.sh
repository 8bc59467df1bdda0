#!/usr/bin/env bash
# The three evaluations of a prediction folder, as in the README's quickstart.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: eval.sh [--help]

From the environment:
  nnUNet_raw, nnUNet_results   nnU-Net's folders (required)
  DATASET          dataset name                 default: Dataset001_3DCT
  CONFIGURATION    nnU-Net configuration        default: 3d_fullres
  FOLD             fold of the plans file       default: 0
  PLANS            plans identifier             default: nnUNetPlans
  TRAINER          trainer                      default: nnUNetTrainer_CLSHeadSumFT
  LABELS           reference segmentations      default: $nnUNet_raw/$DATASET/labelsVal
  PREDICTIONS      prediction folder            default: $nnUNet_results/segreTr_fast
  CLASSES          class labels                 default: $nnUNet_raw/$DATASET/classification.json
  CLASS_NAMES      names, separated by spaces   default: subtype0 subtype1 subtype2
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then usage; exit 0; fi
if [[ $# -gt 0 ]]; then usage >&2; exit 2; fi
: "${nnUNet_raw:?set nnUNet_raw to the folder of raw datasets}"
: "${nnUNet_results:?set nnUNet_results}"
DATASET=${DATASET:-Dataset001_3DCT}
PLANS=${PLANS:-nnUNetPlans}
TRAINER=${TRAINER:-nnUNetTrainer_CLSHeadSumFT}
CONFIGURATION=${CONFIGURATION:-3d_fullres}
LABELS=${LABELS:-$nnUNet_raw/$DATASET/labelsVal}
PREDICTIONS=${PREDICTIONS:-$nnUNet_results/segreTr_fast}
read -r -a names <<< "${CLASS_NAMES:-subtype0 subtype1 subtype2}"
here=$(dirname "${BASH_SOURCE[0]}")

nnUNetv2_evaluate_folder "$LABELS" "$PREDICTIONS" \
  -djfile "$nnUNet_raw/$DATASET/dataset.json" \
  -pfile "$nnUNet_results/$DATASET/${TRAINER}__${PLANS}__${CONFIGURATION}/fold_${FOLD:-0}/plans.json"

python "$here/nnunetv2/evaluation/evaluate_whole_pancreas.py" "$LABELS" "$PREDICTIONS" \
  -djfile "$nnUNet_raw/$DATASET/dataset.json"

python "$here/nnunetv2/evaluation/evaluate_classification.py" "$PREDICTIONS" \
  "${CLASSES:-$nnUNet_raw/$DATASET/classification.json}" \
  --class-names "${names[@]}"
