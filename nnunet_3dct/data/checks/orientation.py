"""How volumes lie in the patient: the order of their axes, mirrored ones, the two matrices of a NIfTI header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nnunet_3dct.data.checks.cases import CheckedCases
from nnunet_3dct.data.checks.findings import Finding, count, shown

SUBJECT = "orientation"


def check_orientation(cases: CheckedCases) -> Iterator[Finding]:
    """Axes that differ between cases, left-handed axes, and headers whose sform and qform disagree."""
    yield from _axes(cases)
    yield from _mirrored(cases)
    yield from _forms(cases)


def _axes(cases: CheckedCases) -> Iterator[Finding]:
    if cases.reader is not None and "Reorient" in cases.reader:
        return
    by_axes: dict[str, list[str]] = {}
    for case, measured in cases.measured():
        by_axes.setdefault(measured.axes, []).append(case.case)
    if len(by_axes) < 2:
        return
    usual = Counter({axes: len(names) for axes, names in by_axes.items()}).most_common(1)[0][0]
    others = {axes: names for axes, names in by_axes.items() if axes != usual}
    text = "; ".join(f"{axes} in {shown(names)}" for axes, names in others.items())
    yield Finding(
        SUBJECT,
        "warning",
        f"the axes x, y, z run to {usual} of the patient in {count(len(by_axes[usual]), 'case')}, but {text}. nnU-Net "
        "takes "
        "voxels as they are stored, so these are mirrored or turned for the network. Store all cases in one order, or "
        'write "overwrite_image_reader_writer": "SimpleITKIOWithReorient" in dataset.json before planning.',
        tuple(name for names in others.values() for name in names),
    )


def _mirrored(cases: CheckedCases) -> Iterator[Finding]:
    names = [case.case for case, measured in cases.measured() if not measured.right_handed]
    if names and len(names) < sum(1 for _ in cases.measured()):
        yield Finding(
            SUBJECT,
            "warning",
            f"left-handed axes in {count(len(names), 'case')}, unlike the others: {shown(names)}. That is "
            "right for some scanners' files and else the trace of a volume that was mirrored without its header: "
            "compare liver and spleen with another case.",
            tuple(names),
        )


def _forms(cases: CheckedCases) -> Iterator[Finding]:
    differing = [(case.case, measured) for case, measured in cases.measured() if measured.forms]
    for turned in (True, False):
        found = [(name, measured) for name, measured in differing if measured.forms_turned is turned]
        if not found:
            continue
        names = [name for name, _ in found]
        consequence = (
            "one program shows the patient mirrored or turned against another"
            if turned
            else "one program places the volume elsewhere than another"
        )
        yield Finding(
            SUBJECT,
            "problem" if turned else "warning",
            f"sform and qform of the NIfTI header disagree in {count(len(names), 'case')}, so that {consequence}: "
            f"{shown(names)}; "
            f"in {names[0]}: {'; '.join(found[0][1].forms)} (expected is the qform's). Write the image again with one "
            "geometry, after a look at which is right.",
            tuple(names),
        )
