"""What describes a converted dataset: ``dataset.json``, ``classification.json`` and the patients beside it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

from nnunet_3dct.data.convert.job import ENDING
from nnunet_3dct.data.convert.source import Source, SourceCase
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.atomic import to_json
from nnunet_3dct.formats.class_label_files import CSV_NAME, JSON_NAME, UNKNOWN
from nnunet_3dct.formats.conversion import CaseRecord
from nnunet_3dct.paths import DATASET_FILE


def dataset_tables(source: Source, cases: Sequence[SourceCase], records: Sequence[CaseRecord]) -> dict[str, str]:
    """File name -> content, for the cases that were converted."""
    tables = {DATASET_FILE: to_json(_description(source, cases, records)) + "\n"}
    if any(case.label != UNKNOWN for case in cases):
        tables[JSON_NAME] = to_json({case.case: case.label for case in cases}) + "\n"
    patients = {case.case: case.patient for case in cases if case.patient}
    if patients:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["Names", "Subtype", "Patient"])
        writer.writerows([case.case, case.label, case.patient] for case in cases)
        tables[CSV_NAME] = text.getvalue()
    return tables


def label_problems(source: Source, records: Sequence[CaseRecord]) -> list[str]:
    """What is wrong with the labels of all masks together."""
    found = Counter(label for record in records for label in record.labels)
    known = {0, *source.label_names} if source.label_names else set(range(max(found, default=0) + 1))
    strange = [label for label in sorted(found) if label not in known]
    missing = sorted(set(range(max(found, default=0) + 1)) - set(found)) if source.label_names is None else []
    problems = []
    if strange:
        cases = [record.case for record in records if set(record.labels) & set(strange)]
        problems.append(
            f"labels: expected {listing(sorted(known))} in the masks, found {listing(strange)} in {listing(cases, 3)}. "
            "Map them to others, or name them."
        )
    if missing:
        problems.append(
            f"labels: expected 0, 1, 2, ... without a gap, since nnU-Net takes no other, found "
            f"{listing(sorted(found))}. Map them, such as {max(found)} to {min(missing)}."
        )
    if found and not any(label > 0 for label in found):
        problems.append("labels: expected a structure in the masks, found background alone.")
    return problems


def num_training(cases: Sequence[SourceCase]) -> int:
    """Cases of ``imagesTr``."""
    return sum(case.part == "Tr" for case in cases)


def _description(source: Source, cases: Sequence[SourceCase], records: Sequence[CaseRecord]) -> dict[str, object]:
    names = source.label_names or {}
    known = sorted({*names, *(label for record in records for label in record.labels)} - {0})
    description: dict[str, object] = {
        "channel_names": {str(number): name for number, name in enumerate(source.channel_names)},
        "labels": {"background": 0, **{names.get(label, f"label_{label}"): label for label in known}},
        "numTraining": num_training(cases),
        "file_ending": ENDING,
    }
    if source.class_names:
        description["class_names"] = list(source.class_names)
    return description
