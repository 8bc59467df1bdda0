"""Reasons in a class file are read as they were written, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunet_3dct.errors import EvaluationError
from nnunet_3dct.formats.class_files import class_file_path, read_class_file
from tests.formats.class_predictions import write

REASON = {
    "feature": "volume",
    "words": "larger",
    "speaks": "for",
    "share": 0.4,
    "value": 12.5,
    "typical": 3,
    "unit": "ml",
}


def test_reasons_are_read_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, "a", reasons=[REASON, {**REASON, "share": 1.0004}])
    write(tmp_path, "b")
    assert read_class_file(class_file_path(tmp_path, "a")).reasons == (REASON, {**REASON, "share": 1.0004})
    assert read_class_file(class_file_path(tmp_path, "b")).reasons == ()


@pytest.mark.parametrize(
    "reasons",
    [
        "larger",
        REASON,
        [REASON, "larger"],
        [{**REASON, "speaks": "neither"}],
        [{**REASON, "share": 1.1}],
        [{**REASON, "share": -0.1}],
        [{**REASON, "share": True}],
        [{**REASON, "value": "12"}],
        [{**REASON, "unit": 3}],
        [{key: value for key, value in REASON.items() if key != "words"}],
    ],
)
def test_what_is_no_reason_is_refused(reasons: Any, tmp_path: Path) -> None:
    write(tmp_path, "a", reasons=reasons)
    with pytest.raises(EvaluationError, match=r"a_classification\.json: expected reasons with feature, words"):
        read_class_file(class_file_path(tmp_path, "a"))
