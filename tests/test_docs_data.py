"""The examples of docs/data.md, run on the folders that they show; what is printed is what the page says."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from nnunet_3dct.cli.convert import main
from nnunet_3dct.cli.runner import DONE, SOME_FAILED
from tests.data.convert import makers

PAGE = Path(__file__).parents[1] / "docs" / "data.md"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the page converts, in the working directory."""
    makers.challenge(tmp_path / "quiz")
    makers.damaged(tmp_path / "quiz_cut_off")
    makers.hospital(tmp_path / "clinic")
    makers.dicom(tmp_path / "export")
    makers.decathlon(tmp_path / "Task21_Thing")
    (tmp_path / "nnUNet_raw").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples() -> list[tuple[str, str]]:
    """Each command of the page with the output below it."""
    return re.findall(r"```bash\n(.+?)\n```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    name, *arguments = shlex.split(os.path.expandvars(command))
    assert name == "nnUNet3DCT_convert"
    code = 0
    try:
        main([*arguments, "-np", "1"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def shown(text: str, folder: Path) -> str:
    return text.replace(str(folder / "nnUNet_raw"), "$nnUNet_raw").replace(f"{folder}/", "")


def test_examples_do_what_the_page_says(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples()
    assert len(found) == 7
    page = PAGE.read_text(encoding="utf-8")
    for command, expected in found:
        code, printed = run(command, capsys)
        printed = shown(printed, sources)
        if "WRITE_DOCS" in os.environ:
            page = page.replace(f"{command}\n```\n\n```text\n{expected}```", f"{command}\n```\n\n```text\n{printed}```")
            continue
        assert printed == expected, command
        assert code == (SOME_FAILED if "quiz_cut_off" in command else DONE)
    if "WRITE_DOCS" in os.environ:
        PAGE.write_text(page, encoding="utf-8")
