"""The report as one HTML file: text, styles and pictures, nothing to be loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nnunet_3dct import __version__
from nnunet_3dct.formats.atomic import write_text
from nnunet_3dct.report import charts, notes, tables, wording
from nnunet_3dct.report.case_page import build_case_page, structure_colours
from nnunet_3dct.report.cohort import Cohort, Progress, collect
from nnunet_3dct.report.options import WINDOW, ReportOptions
from nnunet_3dct.report.ranking import rankings
from nnunet_3dct.report.rasters import EVIDENCE_OPACITY, evidence_colours


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: of the HTML file.
        num_cases: predicted cases.
        num_pages: cases with pictures.
        warnings: what makes the results doubtful or incomplete, as the page says it.
    """

    path: Path
    num_cases: int
    num_pages: int
    warnings: list[str]


def write_report(
    predictions: Path | str,
    output: Path | str,
    *,
    labels: Path | str | None = None,
    images: Path | str | None = None,
    classes: Path | str | None = None,
    dataset_json: Path | str | None = None,
    class_folder: Path | str | None = None,
    class_names: Sequence[str] | None = None,
    window: tuple[float, float] = WINDOW,
    max_cases: int | None = None,
    tolerance: float = 2.0,
    chill: bool = False,
    num_processes: int = 1,
) -> Report:
    """Write one self-contained HTML file with the metrics and pictures of a prediction folder.

    Whatever is not given is left out of the page, and the page says so.

    Args:
        predictions: folder of predicted label volumes.
        output: the HTML file.
        labels: folder of reference label volumes.
        images: folder of images, ``<case>_0000<ending>``.
        classes: ``classification.json`` or ``classification.csv``.
        dataset_json: None for the one in ``predictions``.
        class_folder: folder of the class predictions, None for ``predictions``.
        class_names: names of the classes 0, 1, ...; None for those that the class files state.
        window: lowest and highest intensity of the pictures, HU for CT.
        max_cases: how many cases get pictures, those with the lowest Dice first; None for all.
        tolerance: of the surface Dice, in mm.
        chill: accept references without a prediction.
        num_processes: how many cases are read and compared at the same time (threads).

    Raises:
        SettingsError: a setting is out of range.
        EvaluationError: files are missing or do not belong together.
        ImageError: a volume cannot be read or does not lie on its case's grid.
        ClassLabelsError: the class labels cannot be used.
        OutputError: the file cannot be written.

    Examples:
        >>> import nnunet_3dct
        >>> report = nnunet_3dct.write_report(
        ...     predictions, tmp / "report.html", labels=labels, images=images, classes=classes, max_cases=2
        ... )
        >>> report.num_cases, report.num_pages
        (6, 2)
        >>> report.path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        True
    """
    options = ReportOptions(
        predictions=Path(predictions),
        labels=_path(labels),
        images=_path(images),
        classes=_path(classes),
        dataset_json=_path(dataset_json),
        class_folder=_path(class_folder),
        class_names=tuple(class_names) if class_names else None,
        window=window,
        max_cases=max_cases,
        tolerance=tolerance,
        chill=chill,
        num_processes=num_processes,
    )
    return write_page(options, Path(output))


def write_page(options: ReportOptions, output: Path, progress: Progress | None = None) -> Report:
    """What :func:`write_report` does; ``progress`` as in :func:`~nnunet_3dct.report.cohort.collect`."""
    cohort = collect(options, progress)
    write_text(render(cohort), output)
    return Report(output, len(cohort.cases), len(cohort.pages), notes.warnings(cohort))


def render(cohort: Cohort, now: datetime | None = None) -> str:
    """Lay out the page; nothing is read any more.

    Args:
        cohort: all that it says.
        now: date that the page carries, None for the present.
    """
    return (
        template_environment()
        .get_template("report.html")
        .render(
            **_cohort_context(cohort),
            date=(now or datetime.now()).strftime("%Y-%m-%d %H:%M"),
            pages=[build_case_page(case, case.drawn, cohort) for case in cohort.cases if case.drawn],
            colours=structure_colours(cohort),
            window=cohort.options.window,
            channel=_channel(cohort),
            evidence_stops=[tuple(int(part) for part in colour) for colour in evidence_colours(5)],
            evidence_opacity=EVIDENCE_OPACITY,
        )
    )


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _cohort_context(cohort: Cohort) -> dict[str, Any]:
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
        "linked": {case.name for case in cohort.pages},
        "limited": len(cohort.pages) < len(cohort.cases),
    }


def _overview(cohort: Cohort) -> list[tuple[str, str]]:
    """Folders by their names alone: paths may hold what does not concern the reader of a report."""
    options = cohort.options
    folders = (
        ("Predictions", options.predictions),
        ("References", options.labels),
        ("Images", options.images),
        ("Class labels", options.classes),
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


def template_environment() -> Environment:
    """Templates of this package with their filters."""
    environment = Environment(
        loader=PackageLoader("nnunet_3dct.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        percent=wording.percent,
        measured=wording.measured,
        millilitres=wording.millilitres,
        words=wording.title,
    )
    return environment
