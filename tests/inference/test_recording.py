"""What recorders note belongs to a case, whatever nnU-Net's fallback does in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_3dct.inference.aggregation import passes_per_window
from nnunet_3dct.inference.recording import PooledFeatures, Recorder, RecordingNetwork, recording_predictor
from nnunet_3dct.inference.windows import window_layout
from nnunet_3dct.networks.target import TargetLabels
from nnunetv2.inference import predict_from_raw_data as upstream
from tests.inference.test_backends import network

CPU = torch.device("cpu")
PATCH = (8, 8, 16)
LABELS = SimpleNamespace(
    has_regions=False,
    all_labels=[0, 1, 2],
    label_dict={"background": 0, "organ": 1, "lesion": 2},
    num_segmentation_heads=3,
)
PLANS: Any = SimpleNamespace(get_label_manager=lambda dataset_json: LABELS)
CONFIGURATION: Any = SimpleNamespace(patch_size=PATCH)
TARGET = TargetLabels(LABELS, ["lesion"])
IMAGE = torch.randn(1, 10, 14, 20, generator=torch.Generator().manual_seed(1))
WINDOWS = 2 * 3 * 2


def of_ours(recorder: Recorder, mirror: bool) -> nnUNetPredictor:
    predictor = recording_predictor(recorder, PLANS, CONFIGURATION, {}, CPU)
    predictor.use_mirroring, predictor.allowed_mirroring_axes = mirror, (0, 1, 2) if mirror else None
    return predictor


def of_nnunet(recorder: Recorder, mirror: bool) -> nnUNetPredictor:
    """As nnU-Net's final validation makes it; whoever loads the case knows how many windows it has."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=CPU, allow_tqdm=False)
    predictor.manual_initialization(recorder, PLANS, CONFIGURATION, None, {}, "", (0, 1, 2) if mirror else None)
    recorder.start_case(len(window_layout(IMAGE.shape[1:], PATCH)))
    return predictor


def after_pass(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error after so many passes over the case, outside the network."""
    flips, flip = [], torch.flip

    def flipped(*args: Any) -> torch.Tensor:
        flips.append(None)
        if len(flips) == number:
            raise torch.OutOfMemoryError("no room")
        return flip(*args)

    monkeypatch.setattr(torch, "flip", flipped)


def after_window(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the sum over windows."""
    seen, predict = [], nnUNetPredictor._internal_maybe_mirror_and_predict

    def watched(self: nnUNetPredictor, x: torch.Tensor) -> torch.Tensor:
        logits = predict(self, x)
        seen.append(None)
        if len(seen) == number:
            raise torch.OutOfMemoryError("no room")
        return logits

    monkeypatch.setattr(nnUNetPredictor, "_internal_maybe_mirror_and_predict", watched)


def at_the_end(_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the division of the sums."""
    calls, divide = [], torch.div

    def divided(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 1:
            raise RuntimeError("CUDA error: out of memory")
        return divide(*args, **kwargs)

    monkeypatch.setattr(upstream.torch, "div", divided)


PLACES = [
    pytest.param(after_window, 1, id="first window"),
    pytest.param(after_window, 5, id="a window between"),
    pytest.param(after_window, WINDOWS, id="last window"),
    pytest.param(at_the_end, 0, id="end"),
]


@pytest.mark.parametrize("made", [of_ours, of_nnunet])
@pytest.mark.parametrize("averages_mirrors", [True, False])
@pytest.mark.parametrize(("fails", "where"), [*PLACES, pytest.param(after_pass, 5, id="between mirrored passes")])
def test_class_of_a_case_that_started_again_is_that_of_its_last_attempt(
    fails: Any, where: int, averages_mirrors: bool, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    net.cls_head.averages_mirrors = averages_mirrors
    recorder = RecordingNetwork(net, TARGET, passes_per_window((0, 1, 2)))
    predictor = made(recorder, True)
    predictor.perform_everything_on_device = True  # as on CUDA: else there is no second attempt
    expected_logits = predictor.predict_sliding_window_return_logits(IMAGE)
    expected = recorder.result()
    assert (expected.windows, expected.passes_per_window) == (WINDOWS, 8)
    predictor = made(recorder, True)
    predictor.perform_everything_on_device = True
    fails(where, monkeypatch)
    assert torch.equal(predictor.predict_sliding_window_return_logits(IMAGE), expected_logits)
    assert recorder.result() == expected


@pytest.mark.parametrize("made", [of_ours, of_nnunet])
@pytest.mark.parametrize(("fails", "where"), PLACES)
def test_pooled_features_of_a_case_that_started_again_are_those_of_its_last_attempt(
    fails: Any, where: int, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    recorder = PooledFeatures(net, TARGET, net.cls_head)
    predictor = made(recorder, False)
    predictor.perform_everything_on_device = True
    predictor.predict_sliding_window_return_logits(IMAGE)
    expected, expected_probs = recorder.result()
    predictor = made(recorder, False)
    predictor.perform_everything_on_device = True
    fails(where, monkeypatch)
    predictor.predict_sliding_window_return_logits(IMAGE)
    found, probs = recorder.result()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(probs, expected_probs)


def test_case_that_fails_for_good_leaves_nothing_to_the_next() -> None:
    recorder = RecordingNetwork(network(), TARGET, 1)
    predictor = of_ours(recorder, False)
    predictor.predict_sliding_window_return_logits(IMAGE)
    expected = recorder.result()
    with pytest.raises(RuntimeError):
        predictor.predict_sliding_window_return_logits(torch.ones(2, *IMAGE.shape[1:]))  # a channel too many
    with pytest.raises(RuntimeError, match="do not make up"):
        recorder.result()
    predictor.predict_sliding_window_return_logits(IMAGE)
    assert recorder.result() == expected


@pytest.mark.parametrize("shape", [(8, 8, 16), (5, 20, 30), (17, 8, 9)])
def test_windows_are_those_of_nnunet(shape: tuple[int, ...]) -> None:
    seen: list[torch.Size] = []

    class Counting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape)
            return torch.zeros(1, 3, *x.shape[2:])

    predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    predictor.manual_initialization(Counting(), PLANS, CONFIGURATION, None, {}, "", None)
    predictor.predict_sliding_window_return_logits(torch.zeros(1, *shape))
    assert len(window_layout(shape, PATCH)) == len(seen)


@pytest.mark.parametrize("kind", ["class", "pooled"])
def test_network_is_traced_once_and_the_noting_never(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    net = network("simple")
    compiled: Any = torch.compile(net, backend=counting)
    recorder = PooledFeatures(net, TARGET) if kind == "pooled" else RecordingNetwork(compiled, TARGET, 1)
    monkeypatch.setenv("nnUNet_compile", "true")
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_(module, backend=counting))
    for made in (of_ours, of_nnunet):
        predictor = made(recorder, False)
        predictor.predict_sliding_window_return_logits(IMAGE)
        recorder.result()
    torch._dynamo.reset()
    assert len(graphs) == (1 if kind == "class" else 0), "traced again, or more than the network"
