"""Codes of labels: those of the standard, found by name, lesions in their organ."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from nnunet_3dct.dicom import codes as ours
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.label_codes import LabelCode, label_code_problems, read_label_codes

STANDARD = [code for code in (getattr(codes.SCT, name) for name in dir(codes.SCT)) if isinstance(code, Code)]
TABLE = {**ours.ORGANS, **ours.LESIONS, **ours.SIDES}


@pytest.mark.parametrize("word", TABLE)
def test_code_is_in_the_standard(word: str) -> None:
    code = TABLE[word]
    assert code.scheme == "SCT"
    assert code.code in {found.value for found in STANDARD if found.meaning.lower() == code.meaning.lower()}


@pytest.mark.parametrize(
    ("name", "kind", "site"),
    [
        ("pancreas", "Pancreas", "Pancreas"),
        ("Pancreas_Tumour", "Neoplasm", "Pancreas"),
        ("lung_nodules", "Nodule", "Lung"),
        ("renalCyst", "Cyst", "Kidney"),
        ("portal_vein_and_splenic_vein", "Splenic vein", "Splenic vein"),
        ("left kidney", "Kidney", "Kidney"),
        ("gall_bladder", "Gallbladder", "Gallbladder"),
        ("Vertebrae T12", "Tissue", None),
        ("lesion", "Lesion", None),
        ("label_7", "Tissue", None),
        ("organ", "Organ", None),
    ],
)
def test_name_tells(name: str, kind: str, site: str | None) -> None:
    found = ours.meanings([name])[name]
    assert found.type.meaning == kind
    assert (found.site.meaning if found.site else None) == site


def test_side_and_category() -> None:
    found = ours.meanings(["kidney_left", "right lung lesion"])
    assert found["kidney_left"].side == ours.SIDES["left"]
    assert found["right lung lesion"].side == ours.SIDES["right"] and found["right lung lesion"].is_lesion


def test_lesion_lies_in_the_only_organ_of_the_dataset() -> None:
    assert ours.meanings(["liver", "tumor"])["tumor"].region == ours.ORGANS["liver"]
    assert ours.meanings(["liver", "spleen", "tumor"])["tumor"].region is None
    assert ours.meanings(["organ", "lesion"])["lesion"].region is None


def test_unknown_label_is_told() -> None:
    found = ours.unknown_labels(ours.meanings(["layer_7", "liver"]))
    assert list(found) == ["layer_7"] and "label_codes" in found["layer_7"]


def test_given_code_goes_first() -> None:
    given = {"organ": LabelCode("15776009", "SCT", "Pancreas"), "blob": LabelCode("1", "99X", "Blob", "lesion")}
    found = ours.meanings(["organ", "blob"], given)
    assert found["organ"].type.meaning == "Pancreas" and found["organ"].known
    assert found["blob"].is_lesion and found["blob"].region == found["organ"].type
    assert ours.unknown_labels(found) == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "expected {"),
        ({"spleen": {}}, "expected one of the labels"),
        ({"liver": {"code": "1", "scheme": "SCT"}}, "expected the keys code, scheme and meaning"),
        ({"liver": {"code": 1, "scheme": "SCT", "meaning": "Liver"}}, "code: expected text of 1 to 16"),
        ({"liver": {"code": "1", "scheme": "SCT", "meaning": "x" * 65}}, "meaning: expected text of 1 to 64"),
        ({"liver": {"code": "1", "scheme": "SCT", "meaning": "Liver", "kind": "vessel"}}, "organ or lesion"),
    ],
)
def test_wrong_entry_is_named(entry: object, message: str) -> None:
    dataset = {"labels": {"background": 0, "liver": 1}, "label_codes": entry}
    assert message in label_code_problems(dataset)[0]
    with pytest.raises(SettingsError, match=r"dataset\.json, label_codes"):
        read_label_codes(dataset)


def test_no_entry_is_no_problem() -> None:
    assert read_label_codes({"labels": {"background": 0}}) == {}
