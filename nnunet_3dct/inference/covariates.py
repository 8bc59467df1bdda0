"""Covariates that are given for a prediction, checked against those of the model before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.class_files import ClassFile
from nnunet_3dct.formats.clinical import Covariates, misspelt_rows, read_clinical_table
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding
from nnunet_3dct.runtime import Message


def check_covariates(encoding: CovariateEncoding | None, given: Mapping[str, object] | None) -> Covariates | None:
    """Covariates of one case as the model takes them.

    Args:
        encoding: of the model; None if it was trained without covariates.
        given: by a Python call.

    Raises:
        SettingsError: the model has covariates and none are given, or the other way round; one is lacking, not known
            or of the wrong kind.
    """
    if encoding is None:
        if given:
            raise SettingsError(
                f"covariates: expected none, since this model was trained without, found {listing(list(given))}. Leave "
                "them out, or choose a model that was trained with covariates."
            )
        return None
    if given is None:
        raise SettingsError(
            f"covariates: expected {_columns(encoding)}, which this model was trained with, found none. Give a "
            "dictionary with a value for each; None where it is missing."
        )
    return encoding.accept(given)


def read_folder_covariates(
    encoding: CovariateEncoding | None, clinical: Path | None, cases: Sequence[str], images: Path, on_message: Message
) -> dict[str, Covariates]:
    """Covariates of every case of a folder from a table; empty for a model without covariates.

    Args:
        encoding: of the model; None if it was trained without covariates.
        clinical: the table; None if none is given.
        cases: of the folder; those without a row miss every covariate.
        images: the folder, for messages.
        on_message: told of cases without a row or with missing values, and of rows and columns that are not used.

    Raises:
        SettingsError: the model has covariates and there is no table, or the other way round; the table is malformed,
            lacks a column of the model, or its rows are not of these cases.
    """
    if encoding is None:
        if clinical is not None:
            raise SettingsError(
                f"clinical: expected none, since this model was trained without covariates, found {clinical}. Leave it "
                "out, or choose a model that was trained with covariates."
            )
        return {}
    if clinical is None:
        raise SettingsError(
            f"clinical: expected a table with Names and {_columns(encoding)}, which this model was trained with, found "
            "none. Give one with a row for each case; cells may be empty."
        )
    table = read_clinical_table(clinical, encoding.kinds)
    misspelt = misspelt_rows(table, cases)
    without = table.without_row(cases)
    if misspelt or len(without) == len(cases):
        meant = [f"{row} (did you mean {case}?)" for row, case in misspelt.items()]
        raise SettingsError(
            f"Covariates {clinical}: expected the cases of {images}, such as {listing(sorted(cases), 3)}, found rows "
            f"of {listing(meant or list(table.by_case))}. Write names as the images have them, without channel number."
        )
    unknown = sorted(set(table.by_case) - set(cases))
    if unknown:
        on_message(f"Rows of {clinical} that are of no case in {images}: {listing(unknown)}.")
    if table.unused:
        on_message(f"Columns of {clinical} that the model does not use: {listing(table.unused)}.")
    if without:
        on_message(f"Cases without a row in {clinical}, whose covariates all count as missing: {listing(without)}.")
    found = {case: table.of(case) for case in cases}
    partly = [f"{case} ({listing(encoding.missing(found[case]))})" for case in cases
              if case not in without and encoding.missing(found[case])]  # fmt: skip
    if partly:
        on_message(f"Covariates that are missing: {listing(partly)}.")
    return dict(found)


def note_covariates(content: ClassFile, encodings: Sequence[CovariateEncoding], values: Covariates | None) -> None:
    """Say in a class file which covariates were used, which are missing and what is unusual about them.

    Args:
        content: of the class file, changed.
        encodings: one for each fold; a value is unusual if it is so for all of them.
        values: covariate -> value; None for a model without.
    """
    if values is None or not encodings:
        return
    content["covariates"] = dict(values)
    missing = encodings[0].missing(values)
    if missing:
        content["covariates_missing"] = missing
    unusual = []
    for name, value in values.items():
        remarks = [encoding.remarks({name: value}) for encoding in encodings]
        if all(remarks):
            unusual += remarks[0]
    if unusual:
        content["unusual"] = [*content.get("unusual", []), *unusual]


def _columns(encoding: CovariateEncoding) -> str:
    """Names of a model's covariates with what they are."""
    return listing([f"{name} (a {kind})" for name, kind in encoding.kinds.items()])
