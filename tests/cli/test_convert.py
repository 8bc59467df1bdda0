"""What ``nnUNet3DCT_convert`` prints and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_3dct.cli.convert import main
from tests.data.convert import makers
from tests.data.convert.makers import tree
from tests.utils import truncate


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        main([*map(str, arguments), "-np", "1"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_all_is_well_is_0_and_something_missing_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiz, target = makers.challenge(tmp_path / "quiz"), tmp_path / "Dataset001_Quiz"
    code, out, err = run("-i", quiz, "-o", target, capsys=capsys)
    assert (code, err) == (0, "")
    assert "challenge: 11 cases: 6 in imagesTr, 3 in imagesVal, 2 in imagesTs" in out
    truncate(quiz / "test/quiz_030_0000.nii.gz", 0.5)
    code, out, _ = run("-i", quiz, "-o", tmp_path / "Dataset002_Quiz", capsys=capsys)
    assert code == 1 and "failed: quiz_030: test/quiz_030_0000.nii.gz: truncated or damaged" in out
    assert "1 case failed" in out


def test_verbose_lists_every_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiz = makers.challenge(tmp_path / "quiz")
    _, out, _ = run("-i", quiz, "-o", tmp_path / "Dataset001_Quiz", "--verbose", capsys=capsys)
    assert out.count("1.0000153 in 191 voxels") == 9
    _, out, _ = run("-i", quiz, "-o", tmp_path / "Dataset002_Quiz", capsys=capsys)
    assert out.count("1.0000153 in 191 voxels") == 2 and "and 7 more, listed in conversion.json" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "-o: expected the folder of the dataset"), (["-o", "x", "--repair"], "-o: expected none with --repair"),
     (["--repair", "--undo"], "expected one of them"),
     (["-o", "x", "--map_labels", "a=1"], "expected pairs of numbers"),
     (["-o", "x", "--labels", "lost.csv"], "lost.csv"), (["-o", "x", "--label_names", "a", "A"], "label_names"),
     (["-o", "x", "--from", "decathlon"], "Medical Segmentation Decathlon"),
     (["-o", "x", "--images", "lost"], "expected")],
)  # fmt: skip
def test_wrong_use_is_2_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiz = makers.challenge(tmp_path / "quiz", train=1, test=0)
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = run("-i", quiz, *arguments, capsys=capsys)
    assert code == 2 and message in err
    assert tree(tmp_path) == before


def test_repair_and_undo_work_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "Dataset001_Quiz"
    run("-i", makers.challenge(tmp_path / "quiz"), "-o", target, capsys=capsys)
    assert run("-i", target, "--repair", capsys=capsys)[:2] == (0, "no file needs a repair\n")
    assert run("-i", target, "--undo", capsys=capsys)[:2] == (0, "9 files as before the repairs\n")
    code, out, _ = run("-i", target, "--repair", capsys=capsys)
    assert code == 0 and "9 files repaired" in out and f"to undo: nnUNet3DCT_convert -i {target} --undo" in out
