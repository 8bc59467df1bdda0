"""What we rely on of nnU-Net's evaluation, planning and training.

Values are written down or computed here by plain NumPy, so that a red test says what has changed upstream.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from nnunet_3dct import upstream
from tests import toy
from tests.upstream.covered import covers
from tests.utils import write_volume


@covers("compute_metrics")
def test_overlap_is_counted_by_region_without_the_ignored_voxels(tmp_path: Path) -> None:
    reference, prediction = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    reference[0, :2], prediction[0, 1:3] = 1, 2
    reference[1] = 3  # ignored
    prediction[1] = 1
    files = [write_volume(tmp_path / f"{n}.nii.gz", v) for n, v in (("r", reference), ("p", prediction))]
    reader = upstream.determine_reader_writer_from_dataset_json({"file_ending": ".nii.gz"}, None, verbose=False)()
    found = upstream.compute_metrics(str(files[0]), str(files[1]), reader, [1, (1, 2)], 3)
    region = found["metrics"][(1, 2)]
    assert (region["TP"], region["FP"], region["FN"], region["TN"]) == (4, 4, 4, 4)
    assert (region["Dice"], region["n_pred"], region["n_ref"]) == (0.5, 8, 8)
    assert region["IoU"] == pytest.approx(1 / 3)
    assert found["metrics"][1]["Dice"] == 0
    assert found["reference_file"] == str(files[0]) and found["prediction_file"] == str(files[1])


@covers("compute_metrics")
def test_overlap_of_two_empty_masks_is_nan(tmp_path: Path) -> None:
    empty = write_volume(tmp_path / "empty.nii.gz", np.zeros((2, 2, 2), np.uint8))
    reader = upstream.determine_reader_writer_from_dataset_json({"file_ending": ".nii.gz"}, None, verbose=False)()
    metrics = upstream.compute_metrics(str(empty), str(empty), reader, [1], None)["metrics"][1]
    assert np.isnan(metrics["Dice"]) and np.isnan(metrics["IoU"])


@covers("ExperimentPlanner")
def test_planner_has_the_arguments_and_the_numbers_that_ours_change(nnunet: Path) -> None:
    parameters = list(inspect.signature(upstream.ExperimentPlanner.__init__).parameters)
    assert parameters[1:] == [
        "dataset_name_or_id",
        "gpu_memory_target_in_gb",
        "preprocessor_name",
        "plans_name",
        "overwrite_target_spacing",
        "suppress_transpose",
    ]
    planner = upstream.ExperimentPlanner(toy.DATASET, 1)
    assert (planner.UNet_base_num_features, planner.UNet_max_features_2d, planner.UNet_max_features_3d) == (
        32,
        512,
        320,
    )


@covers("LocalLogger")
def test_logger_keeps_one_value_an_epoch_under_keys_that_may_be_added() -> None:
    logger = upstream.LocalLogger()
    keys = {"mean_fg_dice", "ema_fg_dice", "train_losses", "val_losses", "lrs", "epoch_end_timestamps"}
    assert keys <= set(logger.my_fantastic_logging)
    logger.my_fantastic_logging["ours"] = []
    for epoch, value in enumerate((0.5, 1.0)):
        logger.log("ours", value, epoch)
    assert logger.get_value("ours", None) == [0.5, 1.0] and logger.get_value("ours", -1) == 1.0
    copy = upstream.LocalLogger()
    copy.load_checkpoint(logger.get_checkpoint())
    assert copy.get_value("ours", 1) == 1.0
    with pytest.raises(AssertionError):
        logger.log("nowhere", 1.0, 0)


@covers("MetaLogger")
def test_logger_of_the_trainer_hands_to_a_local_one_that_may_be_replaced(tmp_path: Path) -> None:
    logger = upstream.MetaLogger(str(tmp_path), False)
    assert isinstance(logger.local_logger, upstream.LocalLogger)
    logger.local_logger = upstream.LocalLogger()
    logger.local_logger.my_fantastic_logging["ours"] = []
    logger.log("ours", 0.5, 0)
    logger.log("ours", 1.0, 1)
    assert logger.get_value("ours", step=None) == [0.5, 1.0] == logger.local_logger.get_value("ours", None)


@covers("nnUNetTrainer")
def test_trainer_has_the_hooks_that_ours_override() -> None:
    trainer = upstream.nnUNetTrainer
    hooks = {
        "__init__": ["self", "plans", "configuration", "fold", "dataset_json", "device"],
        "initialize": ["self"],
        "configure_optimizers": ["self"],
        "configure_rotation_dummyDA_mirroring_and_inital_patch_size": ["self"],
        "set_deep_supervision_enabled": ["self", "enabled"],
        "do_split": ["self"],
        "get_dataloaders": ["self"],
        "on_train_start": ["self"],
        "on_train_end": ["self"],
        "on_train_epoch_start": ["self"],
        "train_step": ["self", "batch"],
        "on_train_epoch_end": ["self", "train_outputs"],
        "on_validation_epoch_start": ["self"],
        "validation_step": ["self", "batch"],
        "on_validation_epoch_end": ["self", "val_outputs"],
        "on_epoch_end": ["self"],
        "save_checkpoint": ["self", "filename"],
        "load_checkpoint": ["self", "filename_or_checkpoint"],
        "perform_actual_validation": ["self", "save_probabilities"],
    }
    assert {name: list(inspect.signature(getattr(trainer, name)).parameters) for name in hooks} == hooks
    assert isinstance(inspect.getattr_static(trainer, "build_network_architecture"), staticmethod)


@covers("nnUNetTrainer")
def test_batches_name_their_cases(nnunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = toy.get_trainer("nnUNetTrainer")
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    assert {"data", "target", "keys"} <= set(batch)
    assert len(batch["keys"]) == 2 and set(map(str, batch["keys"])) <= set(toy.TRAINING)
