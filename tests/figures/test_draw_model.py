"""The figure of the architecture says what the network is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from figures import draw_model
from figures.model_outline import ModelOutline, outline_model
from nnunet_3dct.errors import NNUNet3DCTError, SettingsError
from nnunet_3dct.networks import heads
from nnunet_3dct.networks.heads import ClassificationHead, build_head, head_names
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet, feature_spec
from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadSumFT
from tests import toy
from tests.figures.drawn import outside, touching, words

PHANTOM = Path(draw_model.HERE) / "phantom"
FEATURES = (6, 10, 14, 18)
# configuration, residual encoder
PLANS = [("3d_fullres", False), ("3d_fullres", True), ("2d", False)]
every_head = pytest.mark.parametrize("head", head_names())
every_plan = pytest.mark.parametrize(("configuration", "residual"), PLANS)


def tiny_plans(configuration: str = "3d_fullres", residual: bool = False) -> dict[str, Any]:
    """The phantom's plans with a network of four narrow stages."""
    plans = json.loads((PHANTOM / "plans.json").read_text())
    toy.shrink_network(plans["configurations"][configuration], FEATURES)
    if residual:
        toy.make_residual(plans["configurations"][configuration])
    return plans


def outlined(head: str, configuration: str = "3d_fullres", residual: bool = False) -> ModelOutline:
    dataset = json.loads((PHANTOM / "dataset.json").read_text())
    return outline_model(tiny_plans(configuration, residual), configuration, dataset, head, 5)


def built(head: str, configuration: str, residual: bool) -> nn.Module:
    """The same network, made without the code of the figure."""
    planned = tiny_plans(configuration, residual)["configurations"][configuration]["architecture"]
    unet = get_network_from_plans(
        planned["network_class_name"], planned["arch_kwargs"], planned["_kw_requires_import"], 1, 3, True
    )
    options = nnUNetTrainer_CLSHeadSumFT.head_options if head == "grid" else {}
    return MultiTaskUNet(unet, build_head(head, feature_spec(unet), 5, **options))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@every_head
@every_plan
def test_figure_holds_the_numbers_of_the_built_network(
    head: str, configuration: str, residual: bool, tmp_path: Path
) -> None:
    network = built(head, configuration, residual)
    plans, file = tmp_path / "plans.json", tmp_path / "figure.svg"
    plans.write_text(json.dumps(tiny_plans(configuration, residual)))
    (tmp_path / "dataset.json").write_text((PHANTOM / "dataset.json").read_text())
    draw_model.main(["--plans", str(plans), "-c", configuration, "--head", head, "--classes", "5", "-o", str(file)])
    text = words(file)
    of_head = count(network.cls_head)
    assert f"{count(network):,} parameters: U-Net {count(network) - of_head:,}, head {of_head:,}" in text
    channels = [f"{n} channels" for n in (*FEATURES, *FEATURES[-2::-1])]
    assert sorted(t for t in text if t.endswith(" channels")) == sorted(channels)
    dim = 2 if configuration == "2d" else 3
    assert {"×".join([str(16 // 2**n)] * dim) for n in range(4)} <= set(text)
    assert f"3 × {'×'.join(['16'] * dim)}" in text and "5 logits" in text
    unet = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    assert f"{unet} + {type(network.cls_head).__name__}" in text


@every_head
@every_plan
def test_parts_of_the_figure_add_up_to_all_parameters(head: str, configuration: str, residual: bool) -> None:
    model = outlined(head, configuration, residual)
    unet = sum(stage.parameters for stage in (*model.encoder, *model.decoder)) + model.segmentation_parameters
    layers = [layer for lane in model.head.lanes for layer in lane.layers] + list(model.head.trunk)
    own = 0
    for _, sizes in model.head.own:
        numbers = 1
        for size in sizes:
            numbers *= size
        own += numbers
    assert unet == model.unet_parameters
    assert sum(layer.parameters for layer in layers) + own == model.head.parameters
    assert unet + model.head.parameters == model.parameters == count(built(head, configuration, residual))


@every_head
@every_plan
def test_no_text_lies_on_another_or_over_the_edge(head: str, configuration: str, residual: bool) -> None:
    figure = draw_model.draw(outlined(head, configuration, residual))
    try:
        assert (touching(figure), outside(figure)) == ([], [])
    finally:
        plt.close(figure)


@every_head
def test_no_text_lies_on_another_in_the_figure_of_a_full_plan(head: str) -> None:
    plans, dataset = (json.loads((PHANTOM / name).read_text()) for name in ("plans.json", "dataset.json"))
    figure = draw_model.draw(outline_model(plans, "3d_fullres", dataset, head, 3))
    try:
        assert (touching(figure), outside(figure)) == ([], [])
    finally:
        plt.close(figure)


@pytest.mark.parametrize(
    ("head", "read", "gradient"),
    [
        ("grid", ["encoder 3", "decoder 0", "decoder 1", "decoder 2"], True),
        ("simple", ["encoder 3"], True),
        ("detached", ["encoder 3"], False),
        ("lesion", [f"encoder {n}" for n in range(4)] + [f"decoder {n}" for n in range(3)] + ["logits"], False),
        ("memory_attention", ["encoder 1", "encoder 2", "decoder 0", "decoder 1"], True),
    ],
)
def test_features_that_a_head_reads_are_found_and_whether_gradient_flows_back(
    head: str, read: list[str], gradient: bool
) -> None:
    outline = outlined(head).head
    found = [name for lane in outline.lanes for name in lane.features]
    assert found == read
    assert [name in outline.trained for name in found] == [gradient] * len(read)


def test_layers_of_one_scale_are_told_from_layers_of_all() -> None:
    grid, attention = outlined("grid").head, outlined("memory_attention").head
    assert [[layer.name for layer in lane.layers] for lane in grid.lanes] == [
        ["RunningStandardize", "Linear, ReLU", "Linear"]
    ] * 4
    assert [(layer.inputs, layer.output) for layer in grid.trunk] == [((20,), (5,))]
    assert [[layer.name for layer in lane.layers] for lane in attention.lanes] == [["RunningStandardize", "Linear"]] * 4
    assert (attention.trunk[0].name, attention.trunk[0].repeats) == ("TransformerEncoderLayer", 4)


def test_twice_the_same_bytes_and_another_head_another_figure(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.svg", "b.svg", "other.svg", "a.png", "b.png")]
    for file in files:
        model = outlined("lesion" if file.stem == "other" else "grid")
        draw_model.save(draw_model.draw(model), file, *draw_model.describe(model))
    first, second, other, picture, again = (file.read_bytes() for file in files)
    assert first == second != other
    assert picture == again
    assert b"<title>PlainConvUNet with GridHead</title>" in first and b"<desc>" in first


def test_committed_figure_is_that_of_the_present_network(tmp_path: Path) -> None:
    fresh = tmp_path / "model.svg"
    draw_model.main(["-o", str(fresh)])
    assert words(draw_model.HERE / "model_3dct.svg") == words(fresh), "run python -m figures.draw_model"


def test_unknown_configuration_is_named() -> None:
    with pytest.raises(SettingsError, match="3d_fullres, found '3d_lowres'"):
        outline_model(tiny_plans(), "3d_lowres", {}, "grid", 3)


def test_head_with_a_forward_of_its_own_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = type("Whole", (ClassificationHead,), {"name": "whole"})
    monkeypatch.setitem(heads._REGISTRY, "whole", whole)
    with pytest.raises(NNUNet3DCTError, match="'whole': expected summarize and classify"):
        outlined("whole")
