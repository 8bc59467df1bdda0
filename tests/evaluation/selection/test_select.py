"""Trained models compared out of fold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from nnunet_3dct.errors import CheckpointError, EvaluationError, SettingsError
from nnunet_3dct.evaluation.selection.select import select_model
from nnunet_3dct.formats.checkpoint import write_checkpoint
from nnunet_3dct.formats.selection import Selection, SelectionCandidate
from tests.evaluation import trained_folds as made
from tests.evaluation.selection import model_folders as several
from tests.evaluation.selection.model_folders import CHANCE, GOOD, STOCK
from tests.utils import write_volume

PAIR = f"{GOOD} + {STOCK}"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return several.write_models(tmp_path, monkeypatch)


def select(**arguments: object) -> Selection:
    return select_model(**{"dataset": "42", "resamples": 200, **arguments})  # type: ignore[arg-type]


def row(selection: Selection, name: str) -> SelectionCandidate:
    (found,) = [candidate for candidate in selection["candidates"] if candidate["name"] == name]
    return found


def test_all_models_of_a_dataset_are_compared_singly_and_in_pairs(models):
    selection = select()
    assert [m["name"] for m in selection["models"]] == [GOOD, CHANCE, STOCK]
    expected = [GOOD, CHANCE, STOCK, f"{GOOD} + {CHANCE}", PAIR, f"{CHANCE} + {STOCK}"]
    assert [candidate["name"] for candidate in selection["candidates"]] == expected
    assert selection["n_cases"] == 60 and selection["cases"] == several.CASES
    assert selection["reference"] == STOCK
    assert selection["warnings"] == [] and selection["models_left_out"] == {}


def test_scores_are_those_of_scikit_learn_on_single_and_averaged_probabilities(models):
    selection = select()
    rows = {name: several.probabilities(name) for name in (GOOD, CHANCE, STOCK)}
    rows[PAIR] = (rows[GOOD] + rows[STOCK]) / 2
    for name, expected in rows.items():
        found = row(selection, name)
        predicted = expected.argmax(axis=1)
        assert found["f1_macro"]["value"] == pytest.approx(sk.f1_score(several.TRUTH, predicted, average="macro"))
        balanced = sk.balanced_accuracy_score(several.TRUTH, predicted)
        assert found["balanced_accuracy"]["value"] == pytest.approx(balanced)
        auc = sk.roc_auc_score(several.TRUTH, expected, multi_class="ovr")
        assert found["auc_macro"]["value"] == pytest.approx(auc)
        low, high = found["f1_macro"]["interval"]
        assert low < found["f1_macro"]["value"] < high


def test_better_model_is_selected_and_the_one_at_chance_shown_to_be_worse(models):
    selection = select()
    assert selection["best"]["name"] == selection["selected"]["name"] == GOOD
    assert row(selection, GOOD)["to_best"] is None and row(selection, STOCK)["to_reference"] is None
    worse = row(selection, CHANCE)
    assert not worse["not_worse"] and worse["to_best"]["interval"][1] < 0
    gap = worse["f1_macro"]["value"] - row(selection, GOOD)["f1_macro"]["value"]
    assert worse["to_best"]["difference"] == pytest.approx(gap)
    assert CHANCE not in selection["indistinguishable"] and PAIR in selection["indistinguishable"]
    corrected, raw = (selection["best"][key]["value"] for key in ("corrected", "raw"))
    assert 0.8 < corrected < raw and selection["best"]["optimism"] == pytest.approx(raw - corrected)
    assert sum(candidate["best_share"] for candidate in selection["candidates"]) == pytest.approx(1)


def test_dice_of_single_models_is_the_mean_over_cases_and_labels(models):
    for case in several.CASES[:7]:
        write_volume(several.validation(models / CHANCE, case) / f"{case}.nii.gz", np.zeros((6, 12, 12), np.uint8))
    selection = select(num_processes=2)
    moved = {c: np.roll(made.volume(c), int(c[-2:]) % 3, axis=2) for c in several.CASES}
    assert row(selection, GOOD)["dice"]["value"] == pytest.approx(several.foreground_dice(moved))
    emptied = {c: v * (n >= 7) for n, (c, v) in enumerate(moved.items())}
    assert row(selection, CHANCE)["dice"]["value"] == pytest.approx(several.foreground_dice(emptied))
    assert row(selection, CHANCE)["dice_sufficient"] is False


def test_dice_of_a_pair_without_probabilities_is_not_computed_and_the_command_for_them_is_named(models):
    several.write_probabilities(models / GOOD)
    selection = select(trainers=["nnUNetTrainer_CLSHeadLesion", "nnUNetTrainer_CLSHeadSumFT"])
    pair = row(selection, PAIR)
    assert pair["dice"] == {"value": None, "interval": None} and pair["dice_sufficient"] is None
    assert f"{STOCK} has no segmentation probabilities (.npz) of 60 of 60 cases" in pair["dice_missing"]
    command = (
        "nnUNetv2_train Dataset042_Folds 3d_fullres FOLD -tr nnUNetTrainer_CLSHeadSumFT -p nnUNetPlans --val --npz"
    )
    assert command in pair["dice_missing"]


def test_dice_of_a_pair_is_that_of_the_averaged_probabilities(models):
    for name in (GOOD, STOCK):
        several.write_probabilities(models / name)
    done = []
    selection = select(
        trainers=["nnUNetTrainer_CLSHeadLesion", "nnUNetTrainer_CLSHeadSumFT"],
        progress=lambda n, total: done.append((n, total)),
    )
    averaged = {
        case: sum(several.voxel_probabilities(name, case) for name in (GOOD, STOCK)).argmax(axis=0)
        for case in several.CASES
    }
    pair, single = row(selection, PAIR), row(selection, GOOD)
    assert pair["dice"]["value"] == pytest.approx(several.foreground_dice(averaged))
    assert pair["dice"]["value"] > single["dice"]["value"] + 0.005
    assert selection["selected"]["name"] == PAIR  # as good by class, better by Dice
    assert done[-1] == (180, 180)


def test_damaged_probabilities_leave_the_dice_of_the_pair_out(models):
    for name in (GOOD, STOCK):
        several.write_probabilities(models / name)
    (several.validation(models / STOCK, "case_103") / "case_103.npz").write_bytes(b"PK")
    pair = row(select(), PAIR)
    assert pair["dice"]["value"] is None and "case case_103" in pair["dice_missing"]


def test_named_models_come_in_the_order_of_the_trainers_and_pairs_can_be_left_out(models):
    selection = select(trainers=["nnUNetTrainer_CLSHeadSumFT", "nnUNetTrainer_CLSHeadLesion"], ensembling=False)
    assert [candidate["name"] for candidate in selection["candidates"]] == [STOCK, GOOD]


def test_models_given_as_folders_need_no_dataset(models):
    selection = select(dataset=None, models=[models / STOCK, models / GOOD])
    assert [m["name"] for m in selection["models"]] == [STOCK, GOOD]
    assert [m["folds"] for m in selection["models"]] == [[0, 1, 2], [0, 1, 2]]


def test_the_same_numbers_come_from_the_same_seed_and_others_from_another(models):
    first, again, other = (select(ensembling=False, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["best"]["corrected"] != other["best"]["corrected"]


def test_patients_are_drawn_where_the_labels_name_them(models, tmp_path):
    base = tmp_path / "preprocessed" / made.DATASET
    lines = [f"{case},{made.truth_of(case)},{case[:6]}{int(case[-2:]) % 6}" for case in several.CASES]
    (base / "classification.csv").write_text("\n".join(["Names,Subtype,Patient", *lines]) + "\n")
    selection = select()
    assert selection["n_patients"] == 18 and selection["bootstrap"]["method"].startswith("patients drawn")
    (base / "classification.csv").unlink()
    assert select()["n_patients"] is None


def test_cases_of_unknown_class_count_for_the_dice_alone(models, tmp_path):
    labels = {case: made.truth_of(case) for case in several.CASES} | {"case_000": -1, "case_001": -1}
    (tmp_path / "preprocessed" / made.DATASET / "classification.json").write_text(json.dumps(labels))
    selection = select(ensembling=False)
    assert (selection["n_cases"], selection["n_class_cases"]) == (60, 58)
    expected = sk.f1_score(several.TRUTH[2:], several.probabilities(GOOD)[2:].argmax(axis=1), average="macro")
    assert row(selection, GOOD)["f1_macro"]["value"] == pytest.approx(expected)
    moved = {c: np.roll(made.volume(c), int(c[-2:]) % 3, axis=2) for c in several.CASES}
    assert row(selection, GOOD)["dice"]["value"] == pytest.approx(several.foreground_dice(moved))


# ---------------------------------------------------------------------------------------------- what is missing


def test_model_with_one_fold_reduces_all_to_its_cases_and_is_named(models):
    for fold in (1, 2):
        shutil.rmtree(models / CHANCE / f"fold_{fold}")
    selection = select(ensembling=False)
    assert selection["cases"] == made.cases_of(0)
    assert selection["cases_not_shared"]["case_100"] == [CHANCE] and len(selection["cases_not_shared"]) == 40
    (warning,) = [line for line in selection["warnings"] if "cases are compared" in line]
    assert "20 of 60 cases" in warning and f"{CHANCE} (it has fold 0)" in warning
    expected = sk.f1_score(several.TRUTH[:20], several.probabilities(GOOD)[:20].argmax(axis=1), average="macro")
    assert row(selection, GOOD)["f1_macro"]["value"] == pytest.approx(expected)


def test_models_without_a_shared_case_are_refused_with_their_folds(models):
    shutil.rmtree(models / CHANCE)
    for name, folds in ((GOOD, (1, 2)), (STOCK, (0,))):
        for fold in folds:
            shutil.rmtree(models / name / f"fold_{fold}")
    with pytest.raises(EvaluationError, match=rf"found none: {GOOD} \(folds 0\), {STOCK} \(folds 1, 2\)"):
        select()


def test_fold_that_a_named_model_lacks_is_an_error_and_another_model_without_it_is_left_out(models):
    shutil.rmtree(models / CHANCE / "fold_2")
    selection = select(folds=[0, 2], ensembling=False)
    assert [m["name"] for m in selection["models"]] == [GOOD, STOCK] and selection["n_cases"] == 40
    assert "expected the validation of fold 2" in selection["models_left_out"][CHANCE]
    assert selection["failed_models"] == [CHANCE]
    with pytest.raises(EvaluationError, match="expected the validation of fold 2"):
        select(folds=[0, 2], trainers=["nnUNetTrainer_CLSHeadMA", "nnUNetTrainer_CLSHeadLesion"])


def test_model_without_classes_is_left_out_and_an_error_when_named(models):
    stage1 = models / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (stage1 / "fold_0" / "validation").mkdir(parents=True)
    selection = select(ensembling=False)
    assert "a model without a class head" in selection["models_left_out"][stage1.name]
    assert selection["failed_models"] == []
    with pytest.raises(EvaluationError, match="Trainer nnUNetTrainer: expected class predictions"):
        select(trainers=["nnUNetTrainer"])


def test_no_model_at_all_says_what_to_do(models):
    for name in (GOOD, CHANCE, STOCK):
        shutil.rmtree(models / name)
    with pytest.raises(CheckpointError, match=r"expected a model of these trainers.*found none"):
        select()
    (models / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0").mkdir(parents=True)
    with pytest.raises(EvaluationError, match=r"expected a trained model with class predictions.*Train stage 2"):
        select()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trainers": ["nnUNetTrainer_Nowhere"]}, "model of the trainer nnUNetTrainer_Nowhere, found"),
        ({"plans": ["nnUNetPlansLost"]}, "model of the plans nnUNetPlansLost, found nnUNetPlans"),
        ({"configurations": ["2d"]}, "model of the configuration 2d, found 3d_fullres"),
    ],
)
def test_model_that_does_not_exist_is_named_with_those_that_do(models, wrong, message):
    with pytest.raises(CheckpointError, match=message):
        select(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": None}, "dataset or models: expected one of them or both"),
        ({"metric": "accuracy"}, "metric: expected one of f1_macro, balanced_accuracy, auc_macro, found accuracy"),
        ({"resamples": 99}, "resamples: expected at least 100"),
        ({"seed": -1}, "seed"),
        ({"num_processes": 0}, "num_processes: expected at least 1"),
        ({"reference": "nnUNetTrainer_Lost"}, "reference: .* found nnUNetTrainer_Lost, which 0 of them have"),
    ],
)
def test_settings_out_of_range_are_refused(models, wrong, message):
    with pytest.raises(SettingsError, match=message):
        select(**wrong)


def test_reference_is_found_by_trainer_and_by_name(models):
    for reference in ("nnUNetTrainer_CLSHeadMA", CHANCE):
        assert select(reference=reference, ensembling=False)["reference"] == CHANCE
    shutil.rmtree(models / STOCK)
    assert select(ensembling=False)["reference"] == GOOD


def test_model_without_probabilities_has_no_auc_is_in_no_pair_and_is_named(models):
    path = several.validation(models / CHANCE, "case_103") / "case_103_classification.json"
    path.write_text(json.dumps({"pred": 1, "num_classes": 3, "produced_by": {"head_weights": {"1": "weights-of-1"}}}))
    selection = select()
    assert [candidate["name"] for candidate in selection["candidates"]] == [GOOD, CHANCE, STOCK, PAIR]
    assert row(selection, CHANCE)["auc_macro"]["value"] is None
    assert row(selection, CHANCE)["f1_macro"]["value"] is not None
    assert any(f"{CHANCE}: no class probabilities of case_103" in line for line in selection["warnings"])
    with pytest.raises(EvaluationError, match=f"metric auc_macro: .*{CHANCE}"):
        select(metric="auc_macro")


def test_damaged_class_file_leaves_a_model_out_unless_it_was_named(models):
    path = several.validation(models / CHANCE, "case_103") / "case_103_classification.json"
    path.write_text("{")
    selection = select(ensembling=False)
    assert "case_103" in selection["models_left_out"][CHANCE] and selection["failed_models"] == [CHANCE]
    with pytest.raises(EvaluationError, match="case_103"):
        select(models=[models / CHANCE])


def test_missing_segmentation_is_named(models):
    (several.validation(models / GOOD, "case_103") / "case_103.nii.gz").unlink()
    with pytest.raises(EvaluationError, match="a class but no segmentation of case_103"):
        select()


def test_models_of_other_classes_or_labels_are_refused(models):
    for case in several.CASES:
        made.write_class_file(models / CHANCE, int(case[-3]), case, np.array([0.4, 0.3, 0.2, 0.1]))
        path = several.validation(models / CHANCE, case) / f"{case}_classification.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "num_classes": 4}))
    description = json.loads((models / CHANCE / "dataset.json").read_text())
    (models / CHANCE / "dataset.json").write_text(json.dumps({**description, "class_names": ["a", "b", "c", "d"]}))
    with pytest.raises(EvaluationError, match=f"expected the same classes in all models, found 3 in {GOOD} and 4 in"):
        select()
    shutil.rmtree(models / CHANCE)
    (models / STOCK / "dataset.json").write_text(json.dumps({**description, "labels": {"background": 0, "all": 1}}))
    with pytest.raises(EvaluationError, match=r"expected the same labels in dataset\.json of all models"):
        select()


def other_dataset(models: Path, tmp_path: Path) -> Path:
    """The better model again, in a second dataset of the same cases."""
    for name in ("preprocessed", "results"):
        shutil.copytree(tmp_path / name / made.DATASET, tmp_path / name / "Dataset043_Again")
    return tmp_path / "results" / "Dataset043_Again" / GOOD


def test_models_of_the_same_name_in_two_datasets_are_told_apart(models, tmp_path):
    other = other_dataset(models, tmp_path)
    selection = select(dataset=None, models=[models / GOOD, other])
    assert [m["name"] for m in selection["models"]] == [f"{made.DATASET}/{GOOD}", f"Dataset043_Again/{GOOD}"]
    assert selection["best"]["optimism"] == pytest.approx(0, abs=1e-9)


def test_other_splits_and_other_class_labels_are_refused_with_the_case(models, tmp_path):
    other = other_dataset(models, tmp_path)
    base = tmp_path / "preprocessed" / "Dataset043_Again"
    labels = json.loads((base / "classification.json").read_text())
    (base / "classification.json").write_text(json.dumps({**labels, "case_103": 2}))
    with pytest.raises(EvaluationError, match="same class labels for all models, found class 0 of case case_103"):
        select(dataset=None, models=[models / GOOD, other])
    (base / "classification.json").write_text(json.dumps(labels))
    splits = json.loads((base / "splits_final.json").read_text())
    (base / "splits_final.json").write_text(json.dumps([splits[1], splits[0], splits[2]]))
    (other / "fold_0").rename(other / "fold_9")
    (other / "fold_1").rename(other / "fold_0")
    (other / "fold_9").rename(other / "fold_1")
    with pytest.raises(
        EvaluationError, match=r"expected the same splits for all models.*case_000 is validated in fold 0"
    ):
        select(dataset=None, models=[models / GOOD, other])


def test_folder_that_is_no_model_is_refused(models, tmp_path):
    with pytest.raises(EvaluationError, match="expected a folder, found none"):
        select(models=[tmp_path / "results" / "a__b__c"])
    with pytest.raises(CheckpointError, match="expected the name <trainer>__<plans>__<configuration>"):
        select(models=[tmp_path])


def test_network_that_has_seen_validation_cases_is_pointed_out(models):
    checkpoint = {"network_weights": {}, "mt_started_from": {"path": "stage_1/fold_0/checkpoint_best.pth", "fold": 0}}
    write_checkpoint(checkpoint, models / GOOD / "fold_1" / "checkpoint_final.pth")
    (warning,) = select(ensembling=False)["warnings"]
    assert warning.startswith(f"{GOOD}: fold 1 started from stage_1/fold_0")


def test_rare_class_is_warned_of(models, tmp_path):
    labels = {case: min(made.truth_of(case), 1) for case in several.CASES} | {"case_002": 2}
    (tmp_path / "preprocessed" / made.DATASET / "classification.json").write_text(json.dumps(labels))
    assert any("fewer than 5 compared cases of class 2 (1)" in line for line in select()["warnings"])
