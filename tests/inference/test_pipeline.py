"""A folder whose cases fail: what is said, and what goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_3dct.inference import Predictor, ensemble
from nnunet_3dct.inference.backends import openvino_backend
from tests import toy
from tests.inference.predicting import reports, run
from tests.inference.test_predict_failures import bytes_of, fails


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, number: int) -> None:
    """The network fails at the case of that number, and at all after it."""
    calls, predict = [], ensemble.Ensemble.predict

    def watched(self: ensemble.Ensemble, data: torch.Tensor, *about: Any) -> ensemble.NetworkOutput:
        calls.append(None)
        if len(calls) >= number:
            raise error
        return predict(self, data, *about)

    monkeypatch.setattr(ensemble.Ensemble, "predict", watched)


def test_lost_device_stops_the_run_and_costs_no_earlier_result(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = toy.write_toy_inputs(tmp_path / "in", range(8)), tmp_path / "out"
    run(images, out, "--disable_tta")
    before = {f"new_{n:03d}": bytes_of(f"new_{n:03d}", out) for n in range(2, 8)}
    failing(monkeypatch, RuntimeError("CUDA error: unspecified launch failure\nmore"), 3)
    message = fails(capsys, images, out, "--disable_tta")
    assert "6 of 8 cases failed" in message
    manifest = json.loads((out / "prediction_manifest.json").read_text())
    assert list(manifest["failed"]) == manifest["earlier_files"] == sorted(before)
    assert manifest["failed"]["new_002"].startswith("CUDA error")
    for case in sorted(before)[1:]:
        assert "not tried, since the device was lost in new_002 (CUDA error: unspecified" in manifest["failed"][case]
    assert {case: bytes_of(case, out) for case in before} == before
    assert (out / "subtype_results.csv").read_text().count("\n") == 3


def test_origin_of_an_unexpected_error_is_kept(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyError("channel"), 3)
    with pytest.raises(SystemExit):
        run(images, tmp_path, "--disable_tta", "--verbose")
    assert "Traceback" in capsys.readouterr().out
    traces = json.loads((tmp_path / "prediction_manifest.json").read_text())["tracebacks"]
    assert list(traces) == ["new_002"] and "in watched" in traces["new_002"] and "KeyError" in traces["new_002"]


def test_folder_from_python_is_that_of_the_command(model: Path, images: Path, tmp_path: Path, capfd) -> None:
    run(images, tmp_path / "command", "--disable_tta")
    capfd.readouterr()
    steps: list[tuple[int, int]] = []
    told: list[str] = []
    predictor = Predictor(model, device="cpu", backend="torch", tta="none", on_message=told.append)
    result = predictor.predict_folder(images, tmp_path / "python", progress=lambda *step: steps.append(step))
    assert capfd.readouterr() == ("", "")
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)] and any("3 to predict; torch on cpu in f32" in t for t in told)
    assert reports(tmp_path / "python") == reports(tmp_path / "command")
    assert (result.predicted, result.kept, result.failed, result.left_out) == (
        list(reports(tmp_path / "python")),
        [],
        {},
        {},
    )
    names = [sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("python", "command")]
    assert names[0] == names[1] and result.manifest.name in names[0]
    for name in names[0]:
        if name != result.manifest.name:
            assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()


def test_conversion_is_announced_to_who_listens_and_nobody_else(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNUNET3DCT_CACHE", str(tmp_path / "cache"))
    if not openvino_backend.is_installed():
        pytest.skip("openvino is not installed")
    told: list[str] = []
    Predictor(model, device="cpu", backend="openvino", on_message=told.append)
    assert len(told) == 1 and "converting it for OpenVINO" in told[0] and capfd.readouterr() == ("", "")
