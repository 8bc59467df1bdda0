"""Intensities that are no Hounsfield units, or that a conversion has cut off; volumes that end in blank slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nnunet_3dct.data.checks.cases import CheckedCases
from nnunet_3dct.data.checks.findings import Finding, count, shown
from nnunet_3dct.data.checks.measured import Intensities

SUBJECT = "intensities"
SCANNER_LIMITS = (3070, 3071, 4095, 8191, 16383, 32767)  # where scanners themselves cut off
BLANK_SHARE = 0.1  # of the slices


def check_intensities(cases: CheckedCases) -> Iterator[Finding]:
    """Say which CT volumes do not look like HU, and which volumes end in blank slices."""
    if cases.is_ct:
        for looks, remedy in LOOKS.items():
            found = [(case.case, measured.intensities) for case, measured in cases.measured()]
            matching = [(name, values) for name, values in found if looks(values)]
            if matching:
                names = [name for name, _ in matching]
                first = matching[0][1]
                few = "" if len(matching) == len(found) else f" of {len(found)}"
                yield Finding(
                    SUBJECT,
                    "warning",
                    f"{len(names)}{few} cases: {shown(names)}: expected HU, found {first.minimum:.5g} to "
                    f"{first.maximum:.5g} with the median {first.p50:.5g} in {names[0]}: {remedy}",
                    tuple(names),
                )
    yield from _blank(cases)


def looks_scaled(values: Intensities) -> bool:
    """Whether intensities were scaled to 0..1 or standardised."""
    return values.maximum - values.minimum < 25 and not (values.whole and values.maximum > 20)


def looks_like_bytes(values: Intensities) -> bool:
    """Whether intensities are the grey levels of a picture."""
    return not looks_scaled(values) and values.minimum >= 0 and 100 < values.maximum <= 255


def looks_raw(values: Intensities) -> bool:
    """Whether intensities are stored values without the scanner's intercept, with soft tissue at about 1000."""
    return values.minimum >= 0 and values.maximum > 255 and (values.p50 > 400 or values.p99 > 700)


def looks_windowed(values: Intensities) -> bool:
    """Whether intensities were cut off: many voxels share the highest value, more than the range below it holds."""
    cut = values.at_maximum > 0.002 and values.at_maximum > 3 * values.below_maximum
    low_cut = values.minimum > -900 and values.at_minimum > 0.02
    ordinary = values.maximum in SCANNER_LIMITS
    return not (looks_scaled(values) or looks_like_bytes(values) or looks_raw(values)) and (
        (cut and not ordinary) or (low_cut and values.at_maximum > 0.002)
    )


LOOKS: dict[Callable[[Intensities], bool], str] = {
    looks_raw: "looks raw, the scanner's intercept (mostly -1024) is not applied. Apply slope and intercept of the "
    "source when converting; cases with and without it do not mix.",
    looks_windowed: "looks windowed, values beyond are cut off. Convert the source without a window; where there is "
    "none, cut the images to be predicted in the same way.",
    looks_like_bytes: "looks like grey levels of a picture. Convert the source to HU; where there is none, name the "
    "channel otherwise than CT in dataset.json, so that nnU-Net normalises each case by itself.",
    looks_scaled: "looks scaled or standardised. Convert the source to HU; where there is none, name the channel "
    "otherwise than CT in dataset.json, so that nnU-Net normalises each case by itself.",
}


def _blank(cases: CheckedCases) -> Iterator[Finding]:
    found = [
        (case.case, measured.intensities)
        for case, measured in cases.measured()
        if measured.intensities.slices > 1
        and measured.intensities.blank_slices >= max(2, BLANK_SHARE * measured.intensities.slices)
    ]
    if found:
        names = [name for name, _ in found]
        first = found[0][1]
        yield Finding(
            SUBJECT,
            "warning",
            f"blank slices at the end of {count(len(names), 'case')}: {shown(names)}; in {names[0]} the last "
            f"{first.blank_slices} of "
            f"{first.slices}. A truncated file that some program read and saved again looks like this. Compare with "
            "the source, or crop the slices away.",
            tuple(names),
        )
