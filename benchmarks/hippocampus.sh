#!/usr/bin/env bash
# The whole workflow on real MRI, and stock nnU-Net's training on the same budget.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: HIPPOCAMPUS=/path/to/Dataset004_Hippocampus benchmarks/hippocampus.sh OUTPUT_FOLDER

Plans, trains stage 1, then stage 2 once with each head, and stock nnU-Net with as many iterations as both stages
together; validates fold 0, predicts it and writes OUTPUT_FOLDER/results.json. HIPPOCAMPUS is the dataset in nnU-Net's raw layout with a
classification.json. Nothing is written there.
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then usage; exit 0; fi
if [[ $# -ne 1 || -z ${HIPPOCAMPUS:-} ]]; then usage >&2; exit 2; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$out"/{raw,preprocessed,results,stock}
cp -r --no-preserve=mode "$HIPPOCAMPUS" "$out/raw/Dataset004_Hippocampus"
export nnUNet_raw="$out/raw" nnUNet_preprocessed="$out/preprocessed" nnUNet_results="$out/results"
export nnUNet_def_n_proc=2 nnUNet_n_proc_DA=1 GOMP_SPINCOUNT=30000
export NNUNETV2_MT_ITERS_PER_EPOCH=100 NNUNETV2_MT_VAL_ITERS=5
plans=nnUNetPlansTiny
train=(nnUNetv2_train Dataset004_Hippocampus 3d_fullres 0 -p "$plans" -device cpu)
SECONDS=0

nnUNet3DCT_check -d 4
nnUNetv2_plan_and_preprocess -d 4 -c 3d_fullres -pl TinyUNetPlanner -gpu_memory_target 0.5 -np 2 -npfp 2 \
  --verify_dataset_integrity
echo "plan $SECONDS" > "$out/seconds"; SECONDS=0

# nnU-Net's own rate of 0.01 leaves so short a training half-way
NNUNETV2_MT_EPOCHS=8 NNUNETV2_MT_LR=0.05 "${train[@]}" -tr nnUNetTrainer_Stage1
echo "stage_1 $SECONDS" >> "$out/seconds"; SECONDS=0

for trainer in nnUNetTrainer_CLSHeadSumFT nnUNetTrainer_CLSHeadLesion; do
  NNUNETV2_MT_EPOCHS=6 NNUNETV2_MT_NUM_CLS=3 NNUNETV2_MT_LOSS_WEIGHT=0.3 \
    NNUNETV2_PRE_CHECKPOINT_PATH="$nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer_Stage1__${plans}__3d_fullres/fold_0/checkpoint_best.pth" \
    "${train[@]}" -tr "$trainer"
  echo "$trainer $SECONDS" >> "$out/seconds"; SECONDS=0
done

nnUNet_results="$out/stock" NNUNETV2_MT_EPOCHS=14 NNUNETV2_MT_LR=0.05 "${train[@]}" -tr nnUNetTrainer_Stage1
echo "stock $SECONDS" >> "$out/seconds"; SECONDS=0

mkdir -p "$out/imagesVal"
python - "$out" <<'PY'
import json, shutil, sys
from pathlib import Path

out = Path(sys.argv[1])
for case in json.loads((out / "preprocessed/Dataset004_Hippocampus/splits_final.json").read_text())[0]["val"]:
    shutil.copy(out / f"raw/Dataset004_Hippocampus/imagesTr/{case}_0000.nii.gz", out / "imagesVal")
PY
labels="$nnUNet_raw/Dataset004_Hippocampus/labelsTr"
json="$nnUNet_raw/Dataset004_Hippocampus/dataset.json"
for trainer in nnUNetTrainer_CLSHeadSumFT nnUNetTrainer_CLSHeadLesion; do
  predictions="$out/predictions_$trainer"
  SECONDS=0
  nnUNet3DCT_predict -i "$out/imagesVal" -o "$predictions" -d 4 -c 3d_fullres -p "$plans" -f 0 -device cpu \
    -tr "$trainer" -chk checkpoint_final.pth --disable_progress_bar
  echo "predict_$trainer $SECONDS" >> "$out/seconds"
  nnUNetv2_evaluate_folder "$labels" "$predictions" --chill -np 2 -djfile "$json" -pfile "$predictions/plans.json"
  nnUNet3DCT_evaluate_whole_organ "$labels" "$predictions" --chill -np 2 -djfile "$json"
  nnUNet3DCT_evaluate_classification "$predictions" "$nnUNet_raw/Dataset004_Hippocampus/classification.json" \
    --class-names small medium large
done
python "$here/hippocampus_table.py" "$out"
