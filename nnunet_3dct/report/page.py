"""The report as one HTML file: text, styles and pictures, nothing to be loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nnunet_3dct import __version__
from nnunet_3dct.report import charts, formats, notes, tables
from nnunet_3dct.report.case_page import build_case_page, structure_colours
from nnunet_3dct.report.cohort import Case, Cohort, collect
from nnunet_3dct.report.options import ReportOptions
from nnunet_3dct.report.ranking import choose_pages, rankings
from nnunet_3dct.report.rasters import EVIDENCE_OPACITY, evidence_colours


@dataclass(frozen=True)
class Report:
    """The page and what it shows: ``cases`` with a section each, of ``total``."""

    html: str
    cases: int
    total: int


def build_report(options: ReportOptions, now: datetime | None = None) -> Report:
    """Evaluate the predictions and write the page.

    Args:
        options: folders and settings.
        now: date that the page carries, None for the present.

    Raises:
        EvaluationError: files are missing or do not belong together.
        ImageError: a volume cannot be read or does not lie on its case's grid.
        ClassLabelsError: the class labels cannot be used.
    """
    cohort = collect(options)
    chosen = choose_pages(cohort)
    template = _environment().get_template("report.html")
    html = template.render(
        **_cohort_context(cohort, chosen),
        date=(now or datetime.now()).strftime("%Y-%m-%d %H:%M"),
        pages=(build_case_page(case, cohort) for case in chosen),  # drawn one at a time, as the template asks for them
        colours=structure_colours(cohort),
        window=options.window,
        channel=_channel(cohort),
        evidence_stops=[tuple(int(part) for part in colour) for colour in evidence_colours(5)],
        evidence_opacity=EVIDENCE_OPACITY,
    )
    return Report(html, len(chosen), len(cohort.cases))


def _cohort_context(cohort: Cohort, chosen: Sequence[Case]) -> dict[str, Any]:
    metrics = cohort.classes.metrics if cohort.classes else None
    return {
        "cohort": cohort,
        "version": __version__,
        "overview": _overview(cohort),
        "warnings": notes.warnings(cohort),
        "not_given": notes.not_given(cohort),
        "segmentation_tables": tables.segmentation_tables(cohort),
        "strips": charts.dice_strips(cohort) if cohort.segmentation else [],
        "metrics": metrics,
        "class_tables": tables.class_tables(metrics) if metrics else [],
        "confusion": tables.confusion_cells(metrics) if metrics else [],
        "curves": charts.roc_curves(cohort),
        "bins": charts.reliability(metrics) if metrics else [],
        "rankings": rankings(cohort),
        "linked": {case.name for case in chosen},
        "limited": len(chosen) < len(cohort.cases),
    }


def _overview(cohort: Cohort) -> list[tuple[str, str]]:
    """Folders by their names alone: paths may hold what does not concern the reader of a report."""
    options = cohort.options
    folders = (
        ("Predictions", options.predictions),
        ("References", options.labels),
        ("Images", options.images),
        ("Class labels", options.class_labels),
    )
    return [
        ("Cases", str(len(cohort.cases))),
        *((name, path.resolve().name) for name, path in folders if path is not None),
        *cohort.provenance.settings,
    ]


def _channel(cohort: Cohort) -> str:
    """Name of the first channel, which the slices show."""
    names = cohort.scheme.content.get("channel_names")
    return str(names.get("0", "CT")) if isinstance(names, dict) else "CT"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nnunet_3dct.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number, percent=formats.percent, millilitres=formats.millilitres, words=formats.title
    )
    return environment
