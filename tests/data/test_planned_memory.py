"""Memory that plans ask for, against nnU-Net's own planner."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.data import planned_memory
from nnunet_3dct.data.checks.plans import Configuration
from nnunet_3dct.data.planned_memory import check_planned_memory, estimated_bytes
from nnunet_3dct.data.resources import GIB
from tests.data.checks.makers import write_ct_dataset, write_plans

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3, "features_per_stage": [8, 16, 32], "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2], "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}  # fmt: skip
PLANNED = {"patch_size": [16, 16, 16], "batch_size": 8, "spacing": [2.0, 0.8, 0.8], "architecture": ARCHITECTURE}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_ct_dataset(tmp_path / "raw" / "Dataset001_CT", training=3, validation=0, shape=(6, 12, 12))


def test_estimate_is_that_of_nnunets_planner() -> None:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    patch = (16, 16, 16)
    elements = ExperimentPlanner.static_estimate_VRAM_usage(
        patch,
        1,
        3,
        ARCHITECTURE["network_class_name"],
        ARCHITECTURE["arch_kwargs"],
        ARCHITECTURE["_kw_requires_import"],
    )
    configuration = Configuration("p", "3d_fullres", patch, 4, (1.0, 1.0, 1.0), (0, 1, 2), ARCHITECTURE)
    # a batch that fills the reference: the planner would choose it for exactly the reference's memory
    expected = elements / 560_000_000 * 8e9 * 4 / 2
    assert estimated_bytes(configuration, 1, 3) == pytest.approx(expected)
    twice = Configuration("p", "3d_fullres", patch, 8, (1.0, 1.0, 1.0), (0, 1, 2), ARCHITECTURE)
    assert estimated_bytes(twice, 1, 3) == pytest.approx(2 * expected)


def test_references_are_those_of_the_planner() -> None:
    import inspect

    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    source = inspect.getsource(ExperimentPlanner.__init__)
    for text in (
        "UNet_reference_val_3d = 560000000", "UNet_reference_val_2d = 85000000",
        "UNet_reference_val_corresp_GB = 8", "UNet_reference_val_corresp_bs_2d = 12",
        "UNet_reference_val_corresp_bs_3d = 2",
    ):  # fmt: skip
        assert text in source


def test_plan_that_the_device_cannot_hold_fails(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plans(tmp_path / "preprocessed", {"3d_fullres": PLANNED})
    monkeypatch.setattr(planned_memory, "_device_memory", lambda: ("H100", 80 * GIB))
    memory, disk = check_planned_memory(raw, tmp_path / "preprocessed")
    assert memory.ok and memory.message.endswith("8 patches of 16 x 16 x 16 voxels; H100 has 80.0 GiB")
    assert disk.ok and "for preprocessed cases" in disk.message
    monkeypatch.setattr(planned_memory, "_device_memory", lambda: ("a small card", 2**20))
    finding = check_planned_memory(raw, tmp_path / "preprocessed")[0]
    assert not finding.ok and "-gpu_memory_target" in finding.message


def test_full_disk_fails(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plans(tmp_path / "preprocessed", {"3d_fullres": PLANNED})
    monkeypatch.setattr(planned_memory, "free_bytes", lambda folder: 1000)
    finding = check_planned_memory(raw, tmp_path / "preprocessed")[-1]
    assert not finding.ok and "free some" in finding.message


def test_dataset_without_plans_says_how_to_make_some(raw: Path, tmp_path: Path) -> None:
    (finding,) = check_planned_memory(raw, tmp_path / "preprocessed")
    assert finding.ok and finding.warning and "nnUNetv2_plan_and_preprocess" in finding.message
