"""Temperature scaling out of fold, and the command that stores it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from nnunet_3dct.cli.calibrate import main
from nnunet_3dct.evaluation.calibration import calibrate, fit_calibration, review_table
from nnunet_3dct.evaluation.temperature import fit_temperature, held_out_parts, log_loss
from nnunet_3dct.formats.atomic import to_json
from tests.evaluation import trained_folds as made


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return made.write_folds(tmp_path, monkeypatch)


def overconfident(number: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``sharpness`` times those of the true probabilities, and classes drawn from these."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(number, 3)) * 1.5
    truth = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    return sharpness * logits, truth


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_that_the_logits_were_made_with_is_found(sharpness):
    logits, truth = overconfident(20000, sharpness)
    assert fit_temperature(logits, truth) == pytest.approx(sharpness, rel=0.05)


def test_no_other_temperature_has_less_log_loss():
    logits, truth = overconfident(40, 3.0)
    best = fit_temperature(logits, truth)
    losses = [sk.log_loss(truth, softmax(logits / t, axis=1)) for t in np.geomspace(0.1, 15, 300)]
    assert log_loss(logits / best, truth) <= min(losses) + 1e-6
    assert log_loss(logits, truth) == pytest.approx(sk.log_loss(truth, softmax(logits, axis=1)))


def test_gain_is_measured_on_cases_that_the_temperature_was_not_fitted_to():
    logits, truth = overconfident(60, 3.0)
    folds = np.arange(60) % 3
    found = fit_calibration(logits, truth, folds)
    scaled = np.empty_like(logits)
    for fold in range(3):
        scaled[folds == fold] = logits[folds == fold] / fit_temperature(logits[folds != fold], truth[folds != fold])
    assert found["after"]["log_loss"] == pytest.approx(sk.log_loss(truth, softmax(scaled, axis=1)))
    assert found["after"]["log_loss"] > log_loss(logits / found["temperature"], truth)
    assert found["helps"] and found["review"] == review_table(softmax(scaled, axis=1), truth)
    assert found["after"]["expected_calibration_error"] < found["before"]["expected_calibration_error"]


def test_one_fold_is_cut_into_parts_that_hold_every_class():
    truth = np.repeat([0, 1, 2], [7, 20, 9])
    parts = held_out_parts(truth, np.zeros(36, int))
    assert set(parts) == {0, 1, 2, 3, 4}
    for part in range(5):
        assert set(truth[parts == part]) == {0, 1, 2}
    assert set(held_out_parts(np.array([0, 0, 1]), np.zeros(3, int))) == {0}
    assert fit_calibration(np.eye(3), np.array([0, 1, 2]), np.zeros(3, int))["after"] is None


def test_review_table_counts_cases_below_the_threshold():
    rows = np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    found = review_table(rows, np.array([0, 1, 1, 1]), [0.5, 0.7, 0.99])
    assert [row["share_for_review"] for row in found] == [0, 0.5, 1]
    assert [row["accuracy_of_rest"] for row in found] == [0.75, 1, None]


def test_command_stores_the_temperature_beside_the_model(folds, capsys, tmp_path):
    main(["-d", "42", "--diagram", str(tmp_path / "reliability.png")])
    found = json.loads((folds / "calibration.json").read_text())
    assert 1.5 < found["temperature"] < 6  # 3, from 60 cases
    assert found["after"]["log_loss"] < found["before"]["log_loss"]
    assert found["head_weights"] == {str(fold): f"weights-of-{fold}" for fold in range(made.FOLDS)}
    assert sum(row["n"] for row in found["before"]["reliability"]) == found["n_cases"] == 60
    assert (tmp_path / "reliability.png").stat().st_size > 5000
    out = capsys.readouterr().out
    assert f"temperature {found['temperature']:.3f} from 60 cases" in out and f"{found['after']['log_loss']:.3f}" in out
    main(["-d", "42", "--remove"])
    assert not (folds / "calibration.json").exists()


def test_temperature_that_does_not_help_is_not_stored(folds, capsys):
    (folds / "calibration.json").write_text("{}")
    for fold in range(made.FOLDS):
        for case in made.cases_of(fold):  # true probabilities: nothing to gain
            sharp = made.probabilities_of(case) ** (1 / made.SHARPNESS)
            made.write_class_file(folds, fold, case, sharp / sharp.sum())
    main(["-d", "42"])
    out = capsys.readouterr().out
    assert "not better: no calibration stored" in out and not (folds / "calibration.json").exists()


def test_predictions_of_two_networks_in_one_fold_are_refused(folds, capsys):
    made.write_class_file(folds, 1, "case_103", made.probabilities_of("case_103"), head_weights={"1": "others"})
    with pytest.raises(SystemExit) as stopped:
        main(["-d", "42"])
    assert stopped.value.code == 2
    assert "expected predictions of one network, found those of 2" in capsys.readouterr().err


def test_class_files_that_name_no_weights_are_refused(folds, capsys):
    for case in made.cases_of(2):
        made.write_class_file(folds, 2, case, made.probabilities_of(case), head_weights={})
    with pytest.raises(SystemExit):
        main(["-d", "42"])
    assert "fold_2" in (message := capsys.readouterr().err) and "--val" in message


def test_python_gives_what_the_command_stores(folds):
    main(["-d", "42"])
    stored = json.loads((folds / "calibration.json").read_text())
    (folds / "calibration.json").unlink()
    found = calibrate(folds, write=False)
    assert json.loads(to_json(found)) == stored and not (folds / "calibration.json").exists()
    calibrate(str(folds))
    assert json.loads((folds / "calibration.json").read_text()) == stored
    assert calibrate(folds, folds=[1], write=False)["folds"] == [1]
