"""The tables of all cases: ``subtype_results.csv`` and ``subtype_probabilities.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.formats.atomic import write_text
from nnunet_3dct.formats.class_files import class_file_path, read_class_file
from nnunet_3dct.formats.class_label_files import case_name
from nnunet_3dct.formats.class_labels import load_class_labels
from nnunet_3dct.formats.class_prediction import ClassPrediction, check_probabilities, class_values
from nnunet_3dct.formats.text_tables import read_table

PROBABILITIES_CSV = "subtype_probabilities.csv"
RESULTS_CSV = "subtype_results.csv"
UNUSUAL = "Unusual"  # last column of the probabilities, where a model tells


def write_class_tables(class_folder: Path, cases: Iterable[str], file_ending: str) -> None:
    """``subtype_results.csv`` (``Names,Subtype``) and ``subtype_probabilities.csv`` from the class files.

    The tables hold these cases and no others; where no case has a class file, tables of an earlier run are deleted.
    Cases without a class file are left out, so that parts of a split run can each write the tables; should another
    part finish a case meanwhile, they are written again.

    Raises:
        EvaluationError: a class file is damaged, or the cases have different numbers of classes.
        OutputError: a table cannot be written.
    """
    cases = sorted(cases)
    written: dict[str, list[str]] | None = None
    while True:
        predictions = _predictions(class_folder, cases)
        rows = {case: _row(case, prediction, class_folder) for case, prediction in predictions.items()}
        if rows == written:
            return
        written = rows
        if not rows:
            for name in (RESULTS_CSV, PROBABILITIES_CSV):
                (class_folder / name).unlink(missing_ok=True)
            continue
        names = _header(predictions, class_folder)
        named = [[f"{case}{file_ending}", *row] for case, row in rows.items()]
        _write_csv(class_folder / RESULTS_CSV, ["Names", "Subtype"], [row[:2] for row in named])
        header, table = ["Names", *names], [[row[0], *row[2:]] for row in named]
        if any(prediction.unusual or prediction.produced_by.get("whole_case") for prediction in predictions.values()):
            header.append(UNUSUAL)
            table = [[*row, "; ".join(predictions[case].unusual)] for case, row in zip(rows, table, strict=True)]
        _write_csv(class_folder / PROBABILITIES_CSV, header, table)


def _predictions(class_folder: Path, cases: Iterable[str]) -> dict[str, ClassPrediction]:
    found = {}
    for case in cases:
        path = class_file_path(class_folder, case)
        try:
            found[case] = read_class_file(path)
        except EvaluationError:
            if path.exists():  # another part may remove a case that failed
                raise
    return found


def _row(case: str, prediction: ClassPrediction, folder: Path) -> list[str]:
    """Class and probabilities of a case as the tables hold them."""
    if prediction.probabilities is None:
        raise EvaluationError(f"{class_file_path(folder, case)}: expected probabilities, found none. Predict it again.")
    return [str(prediction.label), *(f"{p:.6f}" for p in prediction.probabilities)]


def _header(predictions: Mapping[str, ClassPrediction], folder: Path) -> list[str]:
    """Names of the classes, for the first line of the table."""
    numbers: dict[int | None, str] = {}
    for case, prediction in predictions.items():
        numbers.setdefault(prediction.num_classes, case)
    if len(numbers) > 1:
        shown = listing([f"{number} ({case})" for number, case in numbers.items()])
        raise EvaluationError(
            f"{folder}: expected predictions of the same classes, found different numbers of classes: {shown}. "
            "Predict all cases with one model."
        )
    number = next(iter(numbers)) or 0
    names = next(iter(predictions.values())).class_names
    fitting = names is not None and len({*names}) == len(names) == number and all(name.strip() for name in names)
    return list(names) if names is not None and fitting else [f"class_{k}" for k in range(number)]


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(text.getvalue(), path)


def read_results(path: Path) -> dict[str, ClassPrediction]:
    """Class of every case by a ``subtype_results.csv``.

    Raises:
        ClassLabelsError: it cannot be used.
    """
    return {case: ClassPrediction(label, None, None) for case, label in load_class_labels(path).by_case.items()}


def read_probabilities(path: Path) -> dict[str, ClassPrediction]:
    """Class of every case by a ``subtype_probabilities.csv``; it is the most probable one.

    Raises:
        EvaluationError: the table is unreadable, or a row of it cannot be used.
    """
    try:
        rows = read_table(path, ("names",))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    header = rows[0].cells if rows else ()
    last = len(header) - 1 if _ends_with_remarks(header, [row.cells for row in rows[1:]]) else len(header)
    if header[:1] != ("Names",) or last < 3:
        found = ",".join(header) or "an empty file"
        raise EvaluationError(f"{path}: expected the header Names,<class>,<class>,..., found {found}.")
    predictions: dict[str, ClassPrediction] = {}
    for row in rows[1:]:
        where = f"{path}, line {row.line} ({row.cells[0]})"
        if len(row.cells) != len(header):
            raise EvaluationError(f"{where}: expected {len(header)} columns, found {len(row.cells)}.")
        case = case_name(row.cells[0])
        if case in predictions:
            raise EvaluationError(f"{where}: the case is listed more than once.")
        probabilities = class_values(row.cells[1:last], where)
        check_probabilities(probabilities, where)
        label = int(probabilities.argmax())
        predictions[case] = ClassPrediction(
            label,
            probabilities,
            len(probabilities),
            header[1:last],
            unusual=tuple(text for text in row.cells[last:] if text),
        )
    return predictions


def _ends_with_remarks(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the last column says what is unusual; a class may have that name too, then it holds probabilities."""
    return header[-1:] == (UNUSUAL,) and not (rows and all(_reads_as_number(row[-1]) for row in rows))


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
