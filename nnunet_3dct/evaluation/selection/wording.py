"""A selection in words: what the numbers say, and the commands that predict with the model."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from nnunet_3dct.errors import listing
from nnunet_3dct.evaluation.selection.rule import DICE_MARGIN, RULE
from nnunet_3dct.formats.selection import Score, Selection, SelectionCandidate, SelectionMetric, SelectionModel
from nnunet_3dct.paths import RESULTS

METRIC_NAMES: Mapping[SelectionMetric, str] = {
    "f1_macro": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "auc_macro": "AUC",
}


def model_numbers(selection: Selection) -> dict[str, str]:
    """Short name of each candidate: the number of its model, ``1 + 3`` for a pair."""
    numbers = {model["name"]: str(n) for n, model in enumerate(selection["models"], start=1)}
    return {row["name"]: " + ".join(numbers[name] for name in row["models"]) for row in selection["candidates"]}


def with_interval(score: Score, digits: int = 3) -> str:
    """``0.612 (0.48 to 0.74)``."""
    if score["value"] is None:
        return "not known"
    text = f"{score['value']:.{digits}f}"
    if score["interval"] is None:
        return text
    low, high = score["interval"]
    return f"{text} ({low:.2f} to {high:.2f})"


def verdict(selection: Selection) -> list[str]:
    """What the comparison says, a sentence or two in each line."""
    best, selected = selection["best"], selection["selected"]
    name, number = METRIC_NAMES[selection["metric"]], len(selection["candidates"])
    short = model_numbers(selection)
    if number == 1:
        return [
            f"Only one candidate, so nothing was chosen: {best['name']}, {name} {with_interval(best['raw'])}.",
        ]
    lines = [f"Best by class: {best['name']}, {name} {with_interval(best['raw'])}, the raw score."]
    if best["corrected"]["value"] is None:
        lines.append(
            f"Best of {number}: the raw score is inflated, since it was chosen for it. There are too few cases to say "
            "by how much."
        )
    else:
        lines.append(
            f"Best of {number}: the raw score is inflated, since it was chosen for it; corrected "
            f"{with_interval(best['corrected'])}."
        )
    alike = selection["indistinguishable"]
    if alike:
        lines.append(
            f"{selection['n_class_cases']} cases cannot tell the best from {_count(len(alike))} by class: "
            f"{listing([short[other] for other in alike])}."
        )
    else:
        lines.append("All other candidates name the class worse, also when all comparisons are taken together.")
    lines.append(f"Use: {selected['name']}, {name} {with_interval(selected['raw'])}; {_corrected(selection)}.")
    return [*lines, *_remarks(selection)]


def _corrected(selection: Selection) -> str:
    corrected = selection["selected"]["corrected"]
    if corrected["value"] is None:
        return "too few cases to correct it for the choice"
    return f"corrected for the choice {with_interval(corrected)}"


def _remarks(selection: Selection) -> list[str]:
    """What speaks against the selected candidate, and what could not be compared."""
    rows = {row["name"]: row for row in selection["candidates"]}
    selected = rows[selection["selected"]["name"]]
    short = model_numbers(selection)
    lines = []
    if selected["dice"]["value"] is None:
        lines.append(f"The Dice of {short[selected['name']]} is not known: {selected['dice_missing']}.")
    else:
        better = [row for row in rows.values() if not row["not_worse"] and _segments_better(row, selected)]
        if better:
            shown = listing([f"{short[row['name']]} (Dice {row['dice']['value']:.3f})" for row in better])
            lines.append(f"Better segmentation, but shown to be worse by class: {shown}.")
    reasons: dict[str, list[str]] = {}
    for row in rows.values():
        if row["dice_missing"] and row is not selected:
            reasons.setdefault(row["dice_missing"], []).append(short[row["name"]])
    lines += [f"Dice not computed for {listing(names)}: {reason}." for reason, names in reasons.items()]
    return lines


def _segments_better(row: SelectionCandidate, selected: SelectionCandidate) -> bool:
    values = row["dice"]["value"], selected["dice"]["value"]
    return values[0] is not None and values[1] is not None and values[0] > values[1] + DICE_MARGIN


def _count(number: int) -> str:
    return "1 other candidate" if number == 1 else f"{number} other candidates"


def instructions(selection: Selection) -> str:
    """Text of ``selection_instructions.txt``: what was selected, by which rule, and how to predict with it."""
    listed = [f"{number}  {model['name']}" for number, model in enumerate(selection["models"], start=1)]
    return "\n".join(["Models:", *listed, "", *verdict(selection), "", *commands(selection)]) + "\n"


def commands(selection: Selection) -> list[str]:
    """The rule, and the commands that predict with the selected model or pair, as lines."""
    models = {model["name"]: model for model in selection["models"]}
    members = [models[name] for name in selection["selected"]["models"]]
    lines = [f"Rule: {RULE}.", ""]
    results = sorted({str(Path(model["folder"]).parents[1]) for model in members})
    elsewhere = [folder for folder in results if Path(folder) != _results_folder()]
    if len(members) == 1:
        lines += ["Predict like this:", "", *_results(elsewhere), _predict(members[0], "OUTPUT_FOLDER")]
        return lines
    folders = [f"OUTPUT_FOLDER_MODEL_{number}" for number in range(1, len(members) + 1)]
    lines += ["Predict with both models:", ""]
    for member, folder in zip(members, folders, strict=True):
        home = str(Path(member["folder"]).parents[1])
        lines += [*_results([home] if elsewhere else []), _predict(member, folder) + " --save_probabilities"]
    lines += [
        "",
        "Then average segmentation and class:",
        "",
        f"nnUNetv2_ensemble -i {' '.join(folders)} -o OUTPUT_FOLDER",
        f"python -c \"import nnunet_3dct; nnunet_3dct.average_classes({folders}, 'OUTPUT_FOLDER')\"",
    ]
    return lines


def _results_folder() -> Path | None:
    value = os.environ.get(RESULTS)
    return Path(value).resolve() if value else None


def _results(folders: list[str]) -> list[str]:
    return [f"export {RESULTS}={shlex.quote(folder)}" for folder in folders]


def _predict(model: SelectionModel, output: str) -> str:
    folds = " ".join(str(fold) for fold in model["folds"])
    return (
        f"nnUNet3DCT_predict -i INPUT_FOLDER -o {output} -d {model['dataset']} -tr {model['trainer']} "
        f"-p {model['plans']} -c {model['configuration']} -f {folds}"
    )
