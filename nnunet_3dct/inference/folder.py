"""A folder of images: which cases are predicted, what is kept, and what the prediction folder says of itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.dicom.series import counted
from nnunet_3dct.errors import EvaluationError, listing
from nnunet_3dct.formats.atomic import read_json, write_json
from nnunet_3dct.formats.class_files import class_file_path, classified_in, write_class_file
from nnunet_3dct.formats.class_tables import write_class_tables
from nnunet_3dct.formats.image_folders import CaseImages
from nnunet_3dct.formats.manifest import (
    Manifest,
    manifest_path,
    read_manifest,
    read_manifests,
    versions,
    write_manifest,
)
from nnunet_3dct.formats.measurement_files import write_measurement_table
from nnunet_3dct.inference.case_writer import CaseWriter, remove_leftovers
from nnunet_3dct.inference.covariates import read_folder_covariates
from nnunet_3dct.inference.dicom_writer import DicomWriter
from nnunet_3dct.inference.images import find_images
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.options import FolderOptions
from nnunet_3dct.inference.pipeline import Outcome, Pipeline, Progress
from nnunet_3dct.runtime import Message


@dataclass(frozen=True)
class FolderResult:
    """What became of a folder.

    Attributes:
        predicted: cases of this run.
        kept: cases that an earlier run had predicted in the same way.
        failed: case -> reason.
        left_out: file or case of the image folder -> why it is in no case.
        review: case -> highest class probability, of those marked for review, kept ones too.
        without_basis: case -> why its class rests on nothing, of predicted and kept ones.
        unusual: case -> in which way it is unlike the training cases, of predicted and kept ones.
        seconds: of the whole run.
        manifest: the file that holds all this.
    """

    predicted: list[str]
    kept: list[str]
    failed: dict[str, str]
    left_out: dict[str, str]
    review: dict[str, float]
    without_basis: dict[str, str]
    unusual: dict[str, list[str]]
    seconds: float
    manifest: Path


def predict_folder(
    model: TrainedModel,
    images: Path,
    output: Path,
    class_folder: Path,
    options: FolderOptions,
    progress: Progress | None,
    on_message: Message,
    arguments: Mapping[str, object],
) -> FolderResult:
    """See :meth:`nnunet_3dct.inference.predictor.Predictor.predict_folder`."""
    start = time.perf_counter()
    ending = str(model.dataset_json["file_ending"])
    given = find_images(images, model, options)
    found = given.folder
    dicom = DicomWriter(model, given.series, options.dicom_results) if given.series else None
    cases = found.cases[options.part_id :: options.num_parts]
    if found.left_out:
        on_message(
            f"Left out of {given.shown(str(images))}: {listing([f'{k} ({v})' for k, v in found.left_out.items()])}."
        )
    if given.set_aside:
        on_message(f"Set aside, no slices of a volume: {counted(given.set_aside)}.")
    covariates = read_folder_covariates(
        model.covariates, options.clinical, [images.case for images in found.cases], images, on_message
    )
    for folder in (output, class_folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, [images.case for images in cases])
    writer = CaseWriter(model, output, class_folder, options.save_probabilities, covariates, dicom)
    for message in dicom.messages if dicom else ():
        on_message(message)
    kept = _kept(cases, writer, on_message) if options.continue_prediction else []
    todo = [images for images in cases if images.case not in kept]
    on_message(f"{len(found.cases)} cases in {given.shown(str(images))}; {len(todo)} to predict; {model.backends[0]}.")
    outcome = Pipeline(model, writer, options, on_message, progress, covariates, given).run(todo)
    _add_kept(outcome, kept, class_folder, model)
    path = manifest_path(output, options.part_id, options.num_parts)
    times = {**_earlier_times(path, kept), **outcome.seconds}
    manifest: Manifest = {
        "versions": versions(),
        "device": str(model.device),
        "arguments": {key: given.shown(str(v)) if isinstance(v, Path) else v for key, v in arguments.items()},
        "head": dict(model.head_config),
        "produced_by": dict(model.describe()),
        "cases": [images.case for images in cases],
        "kept": kept,
        "failed": outcome.failed,
        "earlier_files": [case for case in outcome.failed if writer.exists(case)],
        "tracebacks": outcome.tracebacks,
        "left_out": found.left_out,
        "review": outcome.review,
        "without_basis": outcome.without_basis,
        "unusual": outcome.unusual,
        "seconds": {
            "loading": model.seconds_loading,
            "total": model.seconds_loading + time.perf_counter() - start,
            "per_case": {images.case: times[images.case] for images in cases if images.case in times},
        },
    }
    if given.set_aside:
        manifest["set_aside"] = given.set_aside
    if given.repairs:
        manifest["repairs"] = dict(sorted(given.repairs.items()))
    write_manifest(manifest, path)
    write_json(model.dataset_json, output / "dataset.json")
    write_json(model.plans_manager.plans, output / "plans.json")
    in_tables = _for_tables(found.cases, manifest, output, writer)
    write_class_tables(class_folder, in_tables, ending)
    write_measurement_table(output, in_tables, ending)
    return FolderResult(
        sorted(outcome.seconds),
        kept,
        outcome.failed,
        found.left_out,
        outcome.review,
        outcome.without_basis,
        outcome.unusual,
        time.perf_counter() - start,
        path,
    )


def _kept(cases: Sequence[CaseImages], writer: CaseWriter, on_message: Message) -> list[str]:
    """Cases whose files are whole and were made by this model with these settings."""
    whole = [images.case for images in cases if writer.is_whole(images.case)]
    kept = [case for case in whole if writer.is_of_this_model(case)]
    others = [case for case in whole if case not in kept]
    if others:
        on_message(
            "Predicted again, since another model, other settings, other covariates or another version made their "
            f"results: {listing(others)}."
        )
    return kept


def _add_kept(outcome: Outcome, kept: Sequence[str], class_folder: Path, model: TrainedModel) -> None:
    """What the class files of kept cases say, with the mark for review that today's threshold asks for.

    As in :func:`~nnunet_3dct.inference.case.predict`, cases that are unlike the training cases are marked whatever
    their probability.
    """
    threshold = model.options.abstain
    for case in kept:
        content = read_json(class_file_path(class_folder, case), "Class file", EvaluationError)
        highest = max(content["probs"])
        review = None if threshold is None else highest < threshold or bool(content.get("unusual"))
        if content.get("review") != review:
            content.pop("review", None)
            if review is not None:
                content["review"] = review
            write_class_file(content, class_folder, case)
        if review:
            outcome.review[case] = highest
        if content.get("unusual"):
            outcome.unusual[case] = content["unusual"]
        if content.get("without_basis"):
            outcome.without_basis[case] = content["without_basis"]


def _earlier_times(path: Path, kept: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds of kept cases from the manifest that is about to be replaced."""
    if not kept or not path.is_file():
        return {}
    try:
        earlier = read_manifest(path)["seconds"].get("per_case", {})
    except EvaluationError:  # damaged: it is written anew
        return {}
    return {case: times for case, times in earlier.items() if case in set(kept)}


def _for_tables(cases: Sequence[CaseImages], ours: Manifest, output: Path, writer: CaseWriter) -> list[str]:
    """Cases of all parts whose results are of this model and of no earlier run."""
    failed, own = set(ours["failed"]), set(ours["cases"])
    try:
        for other in read_manifests(output):
            failed |= set(other["failed"]) - own
    except EvaluationError:  # of another part, which is being written or damaged
        pass
    there = set(classified_in(writer.class_folder))
    names = [images.case for images in cases if images.case in there and images.case not in failed]
    return [case for case in names if case in own or writer.is_of_this_model(case)]
