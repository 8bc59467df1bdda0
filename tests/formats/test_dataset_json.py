from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_3dct.formats.dataset_json import entry_problems, num_channels, read_dataset_json

SOUND: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": {"background": 0, "organ": [1, 2], "lesion": 2, "ignore": 3}},
        {"labels": {"background": "0", "organ": "1"}},  # nnU-Net turns them into numbers
        {"channel_names": {"0": "CT", "1": "noNorm"}},
        {"training": [{"image": "a", "label": "b"}], "name": "x"},
    ],
)
def test_sound_entries_pass(changes: dict) -> None:
    assert entry_problems({**SOUND, **changes}) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_names": ["CT"]}, 'found the list ["CT"]. Write "channel_names": {"0": "CT"}.'),
        ({"channel_names": ["CT", "PET"]}, 'Write "channel_names": {"0": "CT", "1": "PET"}.'),
        ({"channel_names": "CT"}, 'Write "channel_names": {"0": "CT"}.'),
        ({"channel_names": {"CT": 0}}, 'found name -> number. Write "channel_names": {"0": "CT"}.'),
        ({"channel_names": {"1": "CT"}}, "with the numbers 0, 1, 2, ... of the files"),
        ({"channel_names": {"0": "CT", "2": "PET"}}, "with the numbers 0, 1, 2, ... of the files"),
        ({"channel_names": {}}, "expected number -> name"),
        ({"channel_names": {"0": None}}, "found null for a name"),
        ({"numTraining": "4"}, 'numTraining: expected a number, found the text "4". Write "numTraining": 4.'),
        ({"numTraining": None}, "numTraining: expected a number, found null"),
        ({"numTraining": True}, "numTraining: expected a number, found true"),
        (
            {"labels": {"0": "background", "1": "organ"}},
            'the form of nnU-Net v1. Write "labels": {"background": 0, "organ": 1}.',
        ),
        ({"labels": ["background", "organ"]}, 'Write "labels": {"background": 0, "organ": 1}.'),
        ({"labels": {"background": 0, "organ": None}}, "found null for organ"),
        ({"labels": {"background": 0, "organ": [1, "two"]}}, 'found [1, "two"] for organ'),
        ({"labels": {"background": 0, "organ": 1.5}}, "found 1.5 for organ"),
        ({"labels": {"Background": 0, "organ": 1}}, "Write background in place of Background"),
        ({"labels": {"organ": 1}}, "which expects background with the value 0"),
        ({"file_ending": "nii.gz"}, 'Write "file_ending": ".nii.gz".'),
        ({"file_ending": None}, "expected an ending with its dot"),
    ],
)
def test_entry_of_another_form_is_named_with_the_form_that_is_meant(changes: dict, words: str) -> None:
    problems = entry_problems({**SOUND, **changes})
    assert list(problems) == list(changes)
    assert words in problems[next(iter(changes))]


def test_what_a_message_says_to_write_is_sound() -> None:
    problems = entry_problems({**SOUND, "channel_names": ["CT"], "labels": {"0": "background", "1": "organ"}})
    written = {key: json.loads(text.split(f'Write "{key}": ')[1].removesuffix(".")) for key, text in problems.items()}
    assert entry_problems({**SOUND, **written}) == {}


def test_file_of_nnunet_v1_is_explained_at_once() -> None:
    old = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ"}, "numTraining": 4, "training": []}
    keys, labels = entry_problems(old).values()
    assert "found no channel_names, file_ending" in keys
    assert 'modality is its name in nnU-Net v1: write "channel_names": {"0": "CT"}' in keys
    assert "the form of nnU-Net v1" in labels
    assert num_channels(old) == num_channels(SOUND) == 1


def test_text_that_is_no_object_is_refused() -> None:
    assert "found the list []" in entry_problems([])[""]


def test_byte_order_mark_is_a_problem_since_nnunet_does_not_read_it(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(SOUND).encode())
    content, problems = read_dataset_json(tmp_path)
    assert content == SOUND
    assert len(problems) == 1 and "byte order mark" in problems[0]


def test_wrong_number_of_cases_leaves_the_rest_to_be_checked(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({**SOUND, "numTraining": "4"}))
    content, problems = read_dataset_json(tmp_path)
    assert content is not None and len(problems) == 1
