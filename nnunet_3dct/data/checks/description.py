"""What dataset.json says of labels and reader, as nnU-Net understands it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_3dct.data.raw_cases import RawCase
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.image_readers import DatasetJson, choose_reader, reader_name


def allowed_labels(description: DatasetJson) -> tuple[list[int], list[str]]:
    """Voxel values that dataset.json allows, the ignore label among them, as nnU-Net reads them."""
    from nnunet_3dct.upstream import LabelManager

    try:
        manager = LabelManager(description["labels"], description.get("regions_class_order"))
        allowed = [int(label) for label in manager.all_labels]
        if manager.has_ignore_label:
            allowed.append(int(manager.ignore_label))
    except Exception as error:  # nnU-Net asserts, and lets wrong types run into its own code
        return [], [f"dataset.json: 'labels' cannot be used by nnU-Net: {error}"]
    if sorted(allowed) != list(range(len(allowed))):
        return allowed, [f"dataset.json: expected consecutive labels 0, 1, 2, ..., found {sorted(allowed)}."]
    return allowed, []


def structure_names(description: DatasetJson) -> dict[int, str]:
    """Name of each label; without background and ignore label. A label of several regions has that of the smallest."""
    names: dict[int, tuple[int, str]] = {}
    for name, value in description["labels"].items():
        members = [int(member) for member in (value if isinstance(value, list) else [value])]
        for label in members:
            if label > 0 and name != "ignore" and len(members) < names.get(label, (len(members) + 1, ""))[0]:
                names[label] = len(members), str(name)
    return {label: name for label, (_, name) in sorted(names.items())}


def target_of(
    description: DatasetJson, structures: Mapping[int, str], wanted: Sequence[int | str] | None
) -> tuple[int, ...]:
    """Labels that carry the class: those of ``wanted``, by id or name, else all; unknown ones are told at training."""
    if wanted is None:
        return tuple(structures)
    chosen: set[int] = set()
    for label in wanted:
        value = description["labels"].get(label, []) if isinstance(label, str) else label
        chosen.update(int(member) for member in (value if isinstance(value, list) else [value]))
    return tuple(sorted(chosen & set(structures)))


def chosen_reader(description: DatasetJson, training: Sequence[RawCase]) -> tuple[str | None, list[str]]:
    """Name of the reader that nnU-Net's planning will take, None where it finds none."""
    example = next((case.images[0] for case in training if case.images), None)
    try:
        return reader_name(choose_reader(description, example)), []
    except ImageError as error:
        named = "overwrite_image_reader_writer" in str(error) or example is None
        return None, [str(error)] if named else []  # a file that no reader opens is reported with its case
