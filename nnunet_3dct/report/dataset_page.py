"""The check of a dataset as one HTML file: findings by subject, pictures of the cases that were named, all cases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nnunet_3dct import __version__
from nnunet_3dct.data.checks.cases import CheckedCase
from nnunet_3dct.data.checks.dataset import DatasetCheck
from nnunet_3dct.data.checks.findings import LEVELS, Finding
from nnunet_3dct.data.checks.summary import case_entry
from nnunet_3dct.formats.atomic import write_text
from nnunet_3dct.report.case_page import COLOURS
from nnunet_3dct.report.dataset_pictures import DatasetPictures, draw_cases
from nnunet_3dct.report.page import template_environment
from nnunet_3dct.report.pictures import Picture
from nnunet_3dct.report.tables import Cell, Table
from nnunet_3dct.report.wording import millilitres, number, title

WORDS = {"problem": "Problem", "warning": "Warning", "note": "Note"}


@dataclass(frozen=True)
class NamedCase:
    """A case that a finding names.

    Attributes:
        case: which.
        anchor: identifier of its section.
        findings: that name it.
        pictures: of it.
    """

    case: CheckedCase
    anchor: str
    findings: list[Finding]
    pictures: DatasetPictures

    def alternative(self, picture: Picture) -> str:
        """Say what a picture shows to those who do not see it."""
        outlined = ", ".join(f"{title(line.structure)} {number(line.area, 2)} cm²" for line in picture.outlines)
        where = f"{picture.plane.name.capitalize()} slice {picture.number} of {picture.count} of {self.case.case}"
        return f"{where}. {outlined or 'No structure in this slice'}."


def write_dataset_page(result: DatasetCheck, output: Path, *, num_processes: int = 1) -> int:
    """Write the page; returns the number of cases with pictures.

    Args:
        result: of the check.
        output: the HTML file.
        num_processes: cases drawn side by side.

    Raises:
        OutputError: it cannot be written.
    """
    named = _named(result, num_processes)
    write_text(render_dataset_page(result, named), output)
    return sum(case.pictures.drawn is not None for case in named)


def render_dataset_page(result: DatasetCheck, named: list[NamedCase], now: datetime | None = None) -> str:
    """Lay out the page; nothing is read any more.

    Args:
        result: of the check.
        named: cases with pictures.
        now: date that the page carries, None for the present.
    """
    structures = result.cases.structures if result.cases else {}
    names = list(dict.fromkeys(structures.values()))
    return (
        template_environment()
        .get_template("dataset.html")
        .render(
            result=result,
            version=__version__,
            date=(now or datetime.now()).strftime("%Y-%m-%d %H:%M"),
            counts=[(WORDS[level], sum(f.level == level for f in result.findings)) for level in LEVELS],
            subjects=_by_subject(result.findings),
            words=WORDS,
            named=named,
            anchors={case.case.case: case.anchor for case in named},
            colours={name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)},
            table=_table(result),
        )
    )


def _named(result: DatasetCheck, num_processes: int) -> list[NamedCase]:
    if result.cases is None:
        return []
    findings: dict[str, list[Finding]] = {}
    for finding in result.findings:
        for case in finding.cases:
            findings.setdefault(case, []).append(finding)
    cases = [case for case in result.cases.all if case.case in findings]
    drawn = draw_cases(cases, result.cases, num_processes)
    return [
        NamedCase(case, f"case-{n}", findings[case.case], pictures)
        for n, (case, pictures) in enumerate(zip(cases, drawn, strict=True), start=1)
    ]


def _by_subject(findings: list[Finding]) -> dict[str, list[Finding]]:
    """Findings of each subject, the worst first; subjects with problems before the others."""
    grouped: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        grouped.setdefault(finding.subject, []).append(finding)
    return grouped


def _table(result: DatasetCheck) -> Table | None:
    cases = result.cases
    if cases is None:
        return None
    names = list(dict.fromkeys(cases.structures.values()))
    header = ["Case", "Part", "Size", "Voxel [mm]", "Axes", "Intensities", *(f"{title(name)} [ml]" for name in names)]
    rows: list[list[Cell]] = []
    for case in cases.all:
        entry = case_entry(case, cases)
        spacing, reach, volumes = entry["spacing_mm"], entry["intensity_range"], entry["structures_ml"]
        rows.append(
            [
                case.case,
                case.part,
                " × ".join(map(str, entry["size"])) if entry["size"] else "–",
                " × ".join(f"{value:.3g}" for value in spacing) if spacing else "–",
                entry["axes"] or "–",
                f"{reach[0]:.5g} to {reach[1]:.5g}" if reach else "–",
                *(millilitres(volumes[name]) if volumes else "–" for name in names),
            ]
        )
    return Table("All cases, axes x, y, z", header, rows)
