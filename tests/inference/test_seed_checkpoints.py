"""Published stage-2 checkpoints: six stages of 32 to 320 features, the head's keys without a description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn import functional

from nnunet_3dct.cli import predict
from tests import toy
from tests.formats.test_checkpoint_parts import seed_head_state

FEATURES = [32, 64, 128, 256, 320, 320]
PLANS = "nnUNetPlans"


@pytest.fixture(scope="module")
def plans(toy_root: Path) -> dict[str, Any]:
    """The seed's network with patches that hold a whole toy volume."""
    made = json.loads((toy_root / "preprocessed" / toy.DATASET / f"{toy.PLANS}.json").read_text())
    full = made["configurations"]["3d_fullres"]
    toy.shrink_network(full, FEATURES)
    full["patch_size"] = [16, 32, 32]
    kwargs = full["architecture"]["arch_kwargs"]
    kwargs["strides"] = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    kwargs["n_conv_per_stage"], kwargs["n_conv_per_stage_decoder"] = [2] * 6, [2] * 5
    made["plans_name"] = PLANS
    return made


@pytest.fixture(scope="module")
def unet(plans: dict[str, Any]) -> torch.nn.Module:
    """Stock network of these plans with random weights."""
    manager = PlansManager(plans)
    torch.manual_seed(0)
    return nnUNetTrainer.build_network_architecture(
        manager, manager.get_configuration("3d_fullres"), 1, 3, enable_deep_supervision=False
    ).eval()


@pytest.fixture(scope="module")
def published(unet: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the seed's trainer wrote it, NumPy scalars and all."""
    path = tmp_path_factory.mktemp("seed") / "checkpoint_best.pth"
    torch.save(
        {
            "network_weights": unet.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "params": []}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.5)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cuda")},
            "trainer_name": toy.FINE_TUNING,
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "cls_head_state": seed_head_state(),
            "mt_num_classes": 3,
            "mt_loss_weight": 0.3,
        },
        path,
    )
    return path


def test_prediction_gives_what_network_and_head_compute_apart(
    published: Path,
    unet: torch.nn.Module,
    plans: dict[str, Any],
    toy_root: Path,
    nnunet: Path,
    images: Path,
    tmp_path: Path,
) -> None:
    model = toy.trained_folder(nnunet, toy.FINE_TUNING, PLANS)
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans))
    dataset = toy_root / "preprocessed" / toy.DATASET / "dataset.json"
    (model / "dataset.json").write_text(dataset.read_text())
    (model / "fold_0" / "checkpoint_best.pth").symlink_to(published)
    flags = f"-d {toy.DATASET} -c 3d_fullres -tr {toy.FINE_TUNING} -p {PLANS} -f 0 -chk checkpoint_best.pth"
    predict.main(
        [
            "-i",
            str(images),
            "-o",
            str(tmp_path),
            *flags.split(),
            "-device",
            "cpu",
            "--backend",
            "torch",
            "--disable_tta",
        ]
    )

    # the reference: nnU-Net's preprocessing, its network with hooks, the published head by hand
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    data, *_ = configuration.preprocessor_class().run_case(
        [str(images / "new_000_0000.nii.gz")], None, manager, configuration, str(dataset)
    )
    x = functional.pad(torch.from_numpy(np.asarray(data)), (4, 4, 4, 4))[None]  # 24 to 32 voxels
    features: list[torch.Tensor] = []
    hooks = [unet.encoder.stages[-1].register_forward_hook(lambda m, i, o: features.append(o))]
    hooks += [stage.register_forward_hook(lambda m, i, o: features.append(o)) for stage in unet.decoder.stages]
    with torch.no_grad():
        logits = unet(x)
    for hook in hooks:
        hook.remove()
    state = seed_head_state()
    votes = []
    for i, feature in enumerate(features):
        hidden = functional.adaptive_max_pool3d(feature, 4).flatten(1)
        hidden = functional.linear(hidden, state[f"mlp_layers.{i}.0.weight"], state[f"mlp_layers.{i}.0.bias"]).relu()
        votes.append(functional.linear(hidden, state[f"mlp_layers.{i}.2.weight"], state[f"mlp_layers.{i}.2.bias"]))
    expected = functional.linear(torch.cat(votes, 1), state["final_fc.weight"], state["final_fc.bias"]).softmax(1)[0]

    report = json.loads((tmp_path / "new_000_classification.json").read_text())
    assert report["probs"] == pytest.approx(expected.tolist(), abs=1e-4)
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "new_000.nii.gz")))
    labels = logits.argmax(1)[0, :, 4:-4, 4:-4].numpy()
    assert len(np.unique(labels)) == 3
    assert (found != labels).mean() < 1e-3  # nnU-Net keeps logits as fp16: near-ties of random weights may turn


def test_fine_tuning_starts_from_network_and_head(
    published: Path, plans: dict[str, Any], toy_root: Path, nnunet: Path, tmp_path: Path, monkeypatch
) -> None:
    changed = toy.with_changed_files(toy_root / "preprocessed", tmp_path / "preprocessed", **{PLANS: plans})
    monkeypatch.setenv("nnUNet_preprocessed", str(changed))
    monkeypatch.setenv("NNUNETV2_PRE_CHECKPOINT_PATH", str(published))
    trainer = toy.get_trainer(toy.FINE_TUNING, plans=PLANS)
    trainer.on_train_start()
    expected = torch.load(published, weights_only=False)
    network = trainer.multitask_network
    for found, wanted in (
        (network.unet_state_dict(), expected["network_weights"]),
        (network.cls_head.state_dict(), expected["cls_head_state"]),
    ):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[k], wanted[k]) for k in wanted)
    assert (
        network.cls_head.options["standardize"] is False
    )  # the published head works on raw features; ours would not be it
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    result = trainer.train_step(next(trainer.dataloader_train))
    assert np.isfinite(result["loss"])
