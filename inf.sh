#!/usr/bin/env bash
# Predict segmentation and class of a folder of images, as in the README's quickstart.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: inf.sh [--help]

From the environment:
  nnUNet_raw, nnUNet_preprocessed, nnUNet_results   nnU-Net's folders (required)
  DATASET          dataset name                 default: Dataset001_3DCT
  CONFIGURATION    nnU-Net configuration        default: 3d_fullres
  FOLD             folds, separated by spaces   default: 0
  PLANS            plans identifier             default: nnUNetPlans
  TRAINER          trainer                      default: nnUNetTrainer_CLSHeadSumFT
  CHECKPOINT       checkpoint                   default: checkpoint_latest.pth
  DEVICE           auto, cuda, cpu or mps       default: auto
  INPUT            images                       default: $nnUNet_raw/$DATASET/imagesVal
  OUTPUT           segmentations and classes    default: $nnUNet_results/segreTr_fast
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then usage; exit 0; fi
if [[ $# -gt 0 ]]; then usage >&2; exit 2; fi
: "${nnUNet_raw:?set nnUNet_raw to the folder of raw datasets}"
: "${nnUNet_preprocessed:?set nnUNet_preprocessed}"
: "${nnUNet_results:?set nnUNet_results}"
DATASET=${DATASET:-Dataset001_3DCT}
OUTPUT=${OUTPUT:-$nnUNet_results/segreTr_fast}
read -r -a folds <<< "${FOLD:-0}"

python "$(dirname "${BASH_SOURCE[0]}")/nnunetv2/inference/predict_classification_fast_CLSHeadSum.py" \
  -i "${INPUT:-$nnUNet_raw/$DATASET/imagesVal}" \
  -o "$OUTPUT" \
  -co "$OUTPUT" \
  -d "$DATASET" \
  -c "${CONFIGURATION:-3d_fullres}" \
  -tr "${TRAINER:-nnUNetTrainer_CLSHeadSumFT}" \
  -p "${PLANS:-nnUNetPlans}" \
  -f "${folds[@]}" \
  -chk "${CHECKPOINT:-checkpoint_latest.pth}" \
  -device "${DEVICE:-auto}" \
  --save_probabilities
