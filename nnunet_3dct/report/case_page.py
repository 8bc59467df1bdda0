"""The section of one case, ready for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_3dct.report.case_result import CaseResult
from nnunet_3dct.report.cohort import Cohort
from nnunet_3dct.report.pictures import CasePictures, Picture
from nnunet_3dct.report.tables import Cell, Table
from nnunet_3dct.report.wording import millilitres, number, percent, title

# of structures on grey slices, from Okabe and Ito's colours for all kinds of colour vision; pancreas, lesion, ...
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


@dataclass(frozen=True)
class ClassBar:
    """Probability of one class; ``marks``: ``predicted``, ``reference``."""

    name: str
    share: float
    text: str
    marks: str


@dataclass(frozen=True)
class CasePage:
    """One case with its pictures and tables; ``evidence_text`` is empty without evidence, ``measured`` None where
    the predictor measured nothing."""

    case: CaseResult
    drawn: CasePictures
    verdict: str
    bars: list[ClassBar]
    table: Table
    measured: Table | None
    evidence_text: str

    def alternative(self, picture: Picture) -> str:
        """Say what a picture shows to those who do not see it."""
        areas: dict[str, list[str]] = {}
        for outline in picture.outlines:
            source = "reference" if outline.reference else "predicted"
            areas.setdefault(outline.structure, []).append(f"{source} {number(outline.area, 2)} cm²")
        outlined = "; ".join(f"{title(name)}: {', '.join(texts)}" for name, texts in areas.items())
        through = f" through {title(self.drawn.structure)}" if self.drawn.structure else ""
        plane = picture.plane.name.capitalize()
        where = f"{plane} slice {picture.number} of {picture.count}{through} of {self.case.name}"
        return f"{where}. {outlined or 'No structure in this slice'}."


def build_case_page(case: CaseResult, drawn: CasePictures, cohort: Cohort) -> CasePage:
    """Lay out pictures and numbers of a case."""
    return CasePage(
        case,
        drawn,
        class_verdict(case, cohort),
        _bars(case, cohort),
        _metrics(case, cohort),
        _measured(case, cohort),
        _evidence_text(drawn),
    )


def class_verdict(case: CaseResult, cohort: Cohort) -> str:
    """Predicted class with its probability, and the true one."""
    result, classes = case.classified, cohort.classes
    if result is None or classes is None:
        return "No class was predicted."
    text = f"Predicted class {classes.names[result.predicted]}"
    if result.confidence is not None:
        text += f" ({percent(result.confidence)})"
    if result.truth is not None:
        text += ", as in the reference" if result.correct else f", reference {classes.names[result.truth]}: wrong"
    return f"{text}."


def structure_colours(cohort: Cohort) -> dict[str, str]:
    """Colour of each structure; the eighth begins again."""
    return {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(cohort.drawn_structures)}


def _bars(case: CaseResult, cohort: Cohort) -> list[ClassBar]:
    result, classes = case.classified, cohort.classes
    if result is None or classes is None or result.probabilities is None:
        return []
    return [
        ClassBar(
            name,
            share,
            percent(share, 1),
            ", ".join(
                word for word, k_th in (("predicted", result.predicted), ("reference", result.truth)) if k_th == k
            ),
        )
        for k, (name, share) in enumerate(zip(classes.names, result.probabilities, strict=True))
    ]


def _metrics(case: CaseResult, cohort: Cohort) -> Table:
    if cohort.segmentation is None or case.metrics is None:
        rows: list[list[Cell]] = [[title(name), millilitres(case.volumes[name])] for name in cohort.structures]
        return Table("Predicted volumes", ["Structure", "Volume [ml]"], rows)
    tolerance = cohort.segmentation["settings"]["tolerance_mm"]
    header = ["Structure", "Reference [ml]", "Predicted [ml]", "Difference [ml]", "Dice", f"NSD {tolerance:g}\u00a0mm"]
    return Table(
        "Volumes and agreement with the reference",
        [*header, "HD95 [mm]"],
        [
            [
                title(name),
                millilitres(m["volume_reference_ml"]),
                millilitres(m["volume_prediction_ml"]),
                millilitres(m["volume_error_ml"], "+"),
                number(m["Dice"]),
                number(m["NSD"]),
                number(m["HD95"], 1),
            ]
            for name, m in ((name, case.metrics[name]) for name in cohort.structures)
        ],
    )


def _measured(case: CaseResult, cohort: Cohort) -> Table | None:
    if case.measured is None:
        return None
    units = case.measured["units"]
    header = ["Structure", *(f"{name}, mean ± SD{f' [{unit}]' if unit else ''}" for name, unit in units.items())]
    rows: list[list[Cell]] = []
    for name in cohort.structures:
        found = case.measured["structures"][name]
        intensities = [
            f"{number(found['mean'].get(channel), 0)} ± {number(found['sd'].get(channel), 0)}" for channel in units
        ]
        diameter = found["longest_diameter"]
        rows.append(
            [
                title(name),
                *intensities,
                number(diameter["mm"] if diameter else None, 1),
                str(found["parts"]),
                "yes" if found["touches_border"] else "no",
            ]
        )
    header += ["Longest axial diameter [mm]", "Parts", "Touches the border of the image"]
    return Table("Measured in the predicted structures", header, rows)


def _evidence_text(drawn: CasePictures) -> str:
    """Where the evidence lies, in numbers; empty if it was not recorded."""
    if drawn.evidence is None:
        return ""
    if not drawn.evidence.inside:
        return "No place in the image speaks for the predicted class: it rests on the head's biases."
    inside = _join(
        [f"{percent(share)} in the predicted {title(name)}" for name, share in drawn.evidence.inside.items()]
    )
    distances = _join([f"{number(mm, 0)} mm from the {plane} slice" for plane, mm in drawn.evidence.distances.items()])
    return f"Share of all evidence: {inside}. Its strongest point is {distances}."


def _join(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
