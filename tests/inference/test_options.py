"""Names and numbers are checked before anything is loaded, with the right ones in the message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.inference import Predictor
from nnunet_3dct.inference.options import FolderOptions
from nnunet_3dct.runtime import is_device_lost, is_out_of_memory, prediction_switches
from tests.inference.test_predict_failures import fails


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("backend", "tensorrt", "auto, torch, openvino"),
        ("tta", "all", "none, pair, flips, full"),
        ("precision", "fp32", "auto, f32, bf16, fp16"),
        ("device", "gpu", "auto, cuda, cpu, mps"),
        ("device", "cuda:x", "cuda:0, cuda:1"),
        ("step_size", 0, "above 0 and at most 1"),
        ("step_size", "0.5", "above 0 and at most 1"),
        ("step_size", float("nan"), "above 0 and at most 1"),
        ("abstain", 2, "a probability between 0 and 1"),
    ],
)
def test_wrong_argument_is_named_with_the_right_ones(argument: str, value: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=argument) as caught:
        Predictor("/no/such/model", **{argument: value})
    assert words in str(caught.value) and repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_openvino_off_the_cpu_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(SettingsError, match="expected the device cpu, found cuda:1"):
        Predictor("/no/such/model", device="cuda:1", backend="openvino")


@pytest.mark.parametrize("name", ["num_preprocessing_threads", "num_export_threads", "num_parts", "part_id"])
@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_wrong_number_of_a_folder_is_named(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{name}: expected a whole number"):
        FolderOptions(**{name: value})


def test_command_names_its_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (("-device", "cuda:x"), ("--abstain", "2"), ("-nps", "0")):
        assert f"error: {flags[0]}: expected" in fails(capsys, tmp_path, tmp_path / "out", *flags)


def test_switches_are_set_for_the_prediction_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    with pytest.raises(KeyError), prediction_switches(torch.device("cuda", 0), "f32"):
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (True, False, False)
        raise KeyError
    assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before
    with prediction_switches(torch.device("cuda", 0), "fp16"):
        assert (cudnn.benchmark, cudnn.allow_tf32) == (True, before[1])
    monkeypatch.setattr(cudnn, "deterministic", True)
    with prediction_switches(torch.device("cuda", 0), "fp16"):
        assert cudnn.benchmark is False
    with prediction_switches(torch.device("cpu"), "f32"):
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before


def test_errors_of_cuda_are_told_apart() -> None:
    lost = RuntimeError("CUDA error: device-side assert triggered")
    shortage = RuntimeError("CUDA error: out of memory")
    assert is_device_lost(lost) and not is_out_of_memory(lost)
    assert is_out_of_memory(shortage) and not is_device_lost(shortage)
    assert is_out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    assert not is_device_lost(ValueError("device-side assert"))
