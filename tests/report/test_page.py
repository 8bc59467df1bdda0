"""The page: numbers of the evaluation, nothing from outside, readable without eyes or mouse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from html import unescape
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunet_3dct.cli.report import build_parser, main
from nnunet_3dct.evaluation.classification import evaluate_classification
from nnunet_3dct.evaluation.segmentation import evaluate_segmentation
from nnunet_3dct.report import write_report
from nnunet_3dct.report.cohort import collect
from nnunet_3dct.report.page import render
from tests.report.inputs import LABELS, NAMES, SHAPE, Inputs, image
from tests.report.parsing import Page
from tests.utils import write_sheared_volume, write_volume


def evidence(inputs: Inputs, case: str) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[6, 9, 10], values[6, 9, 9] = 1, 0.6  # in the lesion
    inputs.volume("predictions/evidence", case, values)


def test_segmentation_numbers_are_those_of_evaluate_segmentation(inputs):
    expected = evaluate_segmentation(
        *(inputs.root / name for name in ("labels", "predictions", "predictions/dataset.json"))
    )
    page = Page(inputs.html())
    for structure, name in (("pancreas", "pancreas"), ("lesion", "lesion"), ("whole_organ", "whole organ")):
        found = expected["structures"][structure]
        cells = page.row(name, "Structure")
        for cell, key, digits in zip(cells, ("Dice", "IoU", "NSD", "HD95"), (3, 3, 3, 1), strict=False):
            low, high = found[key]["mean_interval"]
            statistics = found[key]["mean"], low, high, found[key]["median"]
            assert re.findall(r"[\d.]+", cell) == [f"{value:.{digits}f}" for value in statistics]


def test_case_numbers_are_those_of_evaluate_segmentation(inputs):
    expected = evaluate_segmentation(
        *(inputs.root / name for name in ("labels", "predictions", "predictions/dataset.json"))
    )
    page = Page(inputs.html())
    for case in expected["metric_per_case"]:
        cells = page.row(case["case"], "Case")
        for n, structure in enumerate(("pancreas", "lesion", "whole_organ")):
            m = case["metrics"][structure]
            volumes = [f"{m[key]:.2f}" for key in ("volume_reference_ml", "volume_prediction_ml")]
            assert cells[3 + 3 * n : 6 + 3 * n] == [f"{m['Dice']:.3f}", *volumes]


def test_class_numbers_are_those_of_evaluate_classification(inputs):
    expected = evaluate_classification(inputs.root / "predictions", inputs.root / "classification.json", NAMES)
    page = Page(inputs.html())
    for key, name in (("accuracy", "Accuracy"), ("f1_macro", "F1, macro"), ("auc_macro", "AUC, macro")):
        low, high = expected["confidence_intervals"][key]
        assert page.row(name, "Metric") == [f"{expected[key]:.3f}", f"{low:.3f} to {high:.3f}"]
    assert page.row("Brier score (0 best, 2 worst)", "Metric")[0] == f"{expected['calibration']['brier_score']:.3f}"
    for k, name in enumerate(NAMES):
        assert page.row(name, "Class")[0].split()[0] == f"{expected['f1_per_class'][k]:.3f}"
        counts = [cell.split()[0] for cell in page.row(f"Reference  {name}", "")]
        assert counts == [str(count) for count in expected["confusion_matrix"][k]]


def test_metrics_that_do_not_exist_are_left_out(inputs):
    for path in inputs.root.glob("predictions/*_classification.json"):
        path.write_text(json.dumps({"pred": json.loads(path.read_text())["pred"], "num_classes": 3}))
    page = Page(inputs.html())
    assert "the predictions hold classes but no probabilities" in page.text
    assert "AUC, macro" not in page.text and "ROC" not in page.text and "Reliability" not in page.text
    assert "None" not in page.text and "nan" not in page.text


def test_nothing_is_loaded_from_elsewhere(inputs):
    evidence(inputs, "case_0")
    html = inputs.html()
    page = Page(html)
    assert not page.find("link") and not page.find("script") and not page.find("iframe")
    for attribute in ("src", "href", "xlink:href", "srcset", "action"):
        assert all(value.startswith(("#", "data:image/png;base64,")) for value in page.values(attribute))
    assert not re.search(r"url\(|@import|https?:", re.sub(r"base64,[^\"]*", "", html))


def test_identifiers_are_unique_and_links_resolve(inputs):
    evidence(inputs, "case_0")
    page = Page(inputs.html())
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    targets = [value.removeprefix("#") for value in page.values("href") if value.startswith("#")]
    assert set(targets) | set(page.values("aria-labelledby")) <= set(identifiers)
    for number in range(1, 7):
        assert targets.count(f"case-{number}") >= 1  # from the table of all cases


def test_every_picture_says_what_it_shows(inputs):
    evidence(inputs, "case_0")
    page = Page(inputs.html())
    for attributes in page.find("svg"):
        assert len(attributes.get("aria-label", "")) > 20 or attributes["aria-hidden"] == "true"
    axial = next(a["aria-label"] for a in page.find("svg") if a.get("aria-label", "").startswith("Axial"))
    # 4 x 4 voxels of 0.8 x 0.9 mm; the organ around them 12 x 10
    assert axial == (
        "Axial slice 6 of 14 through lesion of case_0. pancreas: predicted 0.75 cm², reference 0.75 cm²; "
        "lesion: predicted 0.12 cm², reference 0.12 cm²."
    )


def test_tables_have_captions_and_headings_have_an_order(inputs):
    page = Page(inputs.html())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption")
    assert all(a.get("scope") in ("col", "row", "colgroup") for a in page.find("th"))
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.find("html") == [{"lang": "en"}]
    assert {"header", "nav", "main", "footer", "title"} <= set(tags)
    assert page.find("a")[0]["href"] == "#content"


@pytest.mark.parametrize("evil", ['a <b>&"x', "it's <script>alert(1)<", "}}{{ 7*7 }}", "ünï & ç"])
def test_names_of_cases_are_text(tmp_path, evil):
    inputs = Inputs(tmp_path, cases=(evil, "case_1", "case_2")).write()
    names = ("<i>serous</i>", "muc & inous", 'so"lid')
    page = Page(inputs.html(class_names=names))
    assert not page.find("b") and not page.find("script") and not page.find("i")
    assert page.row(evil, "Case") and page.row(names[0], "Class")
    assert any(evil in a.get("aria-label", "") for a in page.find("svg"))


def test_everything_but_predictions_may_be_left_out(inputs):
    html = inputs.html(labels=None, images=None, classes=None, class_names=None)
    page = Page(html)
    for sentence in ("No references were given", "No images were given", "No class labels were given"):
        assert sentence in page.text
    assert "Dice of every case" not in page.text and "data:image/png" not in html
    assert page.row("lesion", "Structure") == [f"{48 * 0.8 * 0.9 * 2.5 / 1000:.2f}"]
    assert 'class="outline"' in html and 'class="outline reference"' not in html
    for path in inputs.root.glob("predictions/*_classification.json"):
        path.unlink()
    text = Page(inputs.html(classes=None, class_names=None)).text
    assert "No class predictions were found" in text and "Class probabilities" not in text


def test_evidence_is_drawn_where_it_exists_and_its_place_is_told(inputs):
    evidence(inputs, "case_0")
    html = inputs.html()
    page = Page(html)
    assert page.text.count("nnUNet3DCT_predict --explain") == 5
    assert sum(a.get("aria-label", "").startswith("Evidence") for a in page.find("svg")) == 3
    assert "0 % in the predicted pancreas and 100 % in the predicted lesion" in page.text


def test_black_map_of_the_evidence_is_said_and_not_drawn(inputs):
    inputs.volume("predictions/evidence", "case_0", np.zeros(SHAPE, np.float32))
    page = Page(inputs.html())
    assert "No place in the image speaks for the predicted class" in page.text
    assert not any(a.get("aria-label", "").startswith("Evidence") for a in page.find("svg"))


def test_cases_marked_for_review_are_named(inputs):
    inputs.class_json("case_3", probs=[0.4, 0.3, 0.3], pred=0, num_classes=3, review=True)
    page = Page(inputs.html())
    assert "1 case is marked for review, the class being uncertain or the case unusual: case_3" in page.text
    assert "review" in page.row("case_3", "Case")[1]
    assert page.text.count("Review: the class is uncertain") == 1


def test_manifest_gives_model_versions_and_failed_cases(inputs):
    manifest = {
        "versions": {"torch": "2.9.0"},
        "arguments": {"c": "3d_fullres", "i": "/secret/path/images"},
        "produced_by": {"trainer": "nnUNetTrainer_X", "backend": "openvino", "folds": [0, 1]},
        "failed": {"case_9": "truncated <file>"},
    }
    inputs.json("predictions/prediction_manifest.json", manifest)
    html = inputs.html()
    for expected in ("nnUNetTrainer_X", "openvino", "0, 1", "3d_fullres", "2.9.0"):
        assert expected in html
    assert "case_9 could not be predicted: truncated &lt;file&gt;" in html
    assert "/secret" not in html and str(inputs.root) not in html


def test_classes_without_basis_are_named_with_the_reason(inputs):
    inputs.class_json("case_3", probs=[0.4, 0.3, 0.3], pred=0, num_classes=3, without_basis="the image is constant")
    page = Page(inputs.html())
    assert "The class of 1 case is without basis: case_3 (the image is constant)" in page.text
    assert "without basis" in page.row("case_3", "Case")[1]
    assert page.text.count("Without basis: the image is constant") == 1


def test_unusual_cases_are_marked_and_named_with_how(inputs):
    basis, review = "no voxel of the target was found", "Review: the class is uncertain"
    remarks = ["spacing 6 x 1 x 1 mm", "features <far>"]
    inputs.class_json("case_3", probs=[0.4, 0.3, 0.3], num_classes=3, unusual=remarks, review=True)
    inputs.class_json("case_4", probs=[0.4, 0.3, 0.3], num_classes=3, unusual=[basis], without_basis=basis)
    inputs.class_json("case_5", probs=[0.4, 0.3, 0.3], num_classes=3, unusual=["noise", basis], without_basis=basis)
    html = inputs.html()
    page = Page(html)
    named = "case_3 (spacing 6 x 1 x 1 mm; features <far>), case_5 (noise)"
    assert f"2 cases unlike the training cases: {named}" in page.text
    assert (
        "<far>" not in html and page.text.count("Unlike the training cases: spacing 6 x 1 x 1 mm; features <far>") == 1
    )
    assert page.row("case_3", "Case")[1].split()[1:] == ["review", "unusual"] and review not in page.text
    assert "unusual" not in page.row("case_4", "Case")[1] and page.text.count("Unlike the training cases:") == 2
    assert page.text.count("Unlike the training cases: noise") == 1 and page.text.count(f"noise; {basis}") == 0


def test_reasons_are_listed_with_share_value_and_what_is_typical(inputs):
    reasons = [
        {"feature": "mean in the core", "words": "denser core", "speaks": "for", "share": 0.312, "value": -210.4,
         "typical": -560.2, "unit": "HU"},
        {"feature": "surface", "words": "larger <surface>", "speaks": "against", "share": 0.2, "value": 12.34,
         "typical": 3.456, "unit": "cm2"},
        {"feature": "encoder 0", "words": "texture in the network's encoder 0", "speaks": "for", "share": 0.001},
    ]  # fmt: skip
    inputs.class_json("case_2", probs=[0.4, 0.3, 0.3], num_classes=3, reasons=reasons)
    html = inputs.html()
    page, heading = Page(html), "Compared with the training cases"
    assert page.row("denser core", heading) == ["for", "31 %", "−210 HU", "−560 HU"]
    assert page.row("larger <surface>", heading) == ["against", "20 %", "12.3 cm²", "3.46 cm²"]
    assert page.row("texture in the network's encoder 0", heading) == ["for", "< 1 %", "–", "–"]
    assert "<surface>" not in html and html.count("<h4>What spoke for the class</h4>") == 1


def test_class_files_of_two_models_in_one_folder_are_named(inputs):
    for n, case in enumerate(inputs.cases):
        weights = "bbbb" if n == 4 else "aaaa"
        inputs.class_json(case, probs=[0.4, 0.3, 0.3], num_classes=3, produced_by={"head_weights": {"0": weights}})
    inputs.json("predictions/prediction_manifest.json", {"produced_by": {"head_weights": {"0": "aaaa"}}})
    for classes in (None, inputs.root / "classification.json"):
        text = Page(inputs.html(classes=classes)).text
        assert "The class files are of 2 models: case_4 (head_weights {'0': 'bbbb'})" in text
        assert "1 of 6 cases were not predicted by the run that prediction_manifest.json describes: case_4" in text


def test_files_of_no_case_are_named(inputs):
    write_volume(inputs.root / "images" / "case_8_0000.mha", image(8))
    assert "Left out: case_8_0000.mha (expected the ending .nii.gz" in Page(inputs.html()).text


@pytest.mark.parametrize("limit", [None, 2])
def test_every_volume_is_read_once(inputs, monkeypatch, limit):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    read: list[str] = []
    stock = SimpleITKIO.read_images

    def counted(self, files, *rest):
        read.extend(Path(file).name for file in files)  # which may be a decompressed copy
        return stock(self, files, *rest)

    evidence(inputs, "case_0")
    inputs.json("predictions/plans.json", {"image_reader_writer": "SimpleITKIO"})  # else nnU-Net tries it on a file
    monkeypatch.setattr(SimpleITKIO, "read_images", counted)
    inputs.html(max_cases=limit, num_processes=2)
    shown = ["case_2", "case_5"] if limit else inputs.cases  # shifted by two voxels
    labels_and_predictions = [f"{case}.nii.gz" for case in inputs.cases for _ in range(2)]
    expected = [*labels_and_predictions, "case_0.nii.gz", *(f"{case}_0000.nii.gz" for case in shown)]  # with evidence
    assert sorted(read) == sorted(expected)


def test_number_of_threads_changes_nothing(inputs):
    evidence(inputs, "case_1")
    now = datetime(2026, 1, 1)
    pages = [render(collect(inputs.options(num_processes=n)), now) for n in (1, 4)]
    assert pages[0] == pages[1]


def test_volumes_that_the_datasets_reader_takes_are_shown(inputs):
    description = {"labels": LABELS, "file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIO"}
    straight = inputs.html()
    inputs.json("predictions/dataset.json", {**description, "channel_names": {"0": "CT"}})
    assert re.findall(r'<path [^>]*"', inputs.html()) == re.findall(r'<path [^>]*"', straight)
    for path in [*inputs.root.glob("*/*.nii.gz")]:
        write_sheared_volume(path, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
    assert len(Page(inputs.html()).find("article")) == 6


def test_importing_the_report_loads_neither_torch_nor_nnunet():
    code = "import sys, nnunet_3dct.report.page, nnunet_3dct.evaluation.crossval, nnunet_3dct.evaluation.calibration\n"
    code += "print([name for name in ('torch', 'nnunetv2', 'monai', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_writes_what_the_command_writes(inputs, capsys):
    main(inputs.arguments(inputs.root / "command.html"))
    folders = {name: str(inputs.root / name) for name in ("labels", "images")}
    report = write_report(
        str(inputs.root / "predictions"),
        inputs.root / "python.html",
        classes=inputs.root / "classification.json",
        class_names=NAMES,
        **folders,
    )
    assert (report.num_cases, report.num_pages) == (6, 6)
    pages = [(inputs.root / f"{name}.html").read_text(encoding="utf-8") for name in ("command", "python")]
    first, second = (re.sub("made on [0-9 :-]+", "", page) for page in pages)
    assert first == second
    assert report.warnings and all(warning in unescape(first) for warning in report.warnings)


def test_long_and_short_flags_are_the_same(inputs):
    short = inputs.arguments(inputs.root / "short.html")
    names = {"-p": "--predictions", "-g": "--labels", "-i": "--images", "-c": "--classes", "-o": "--output"}
    parsed = [build_parser().parse_args(flags) for flags in (short, [names.get(flag, flag) for flag in short])]
    assert parsed[0] == parsed[1] and parsed[0].predictions == inputs.root / "predictions"


def test_progress_bar_can_be_disabled(inputs, capsys):
    main([*inputs.arguments(inputs.root / "report.html"), "--disable_progress_bar"])
    assert capsys.readouterr().err == ""


def test_as_many_sections_as_asked_for_those_with_the_lowest_dice(inputs):
    page = Page(inputs.html(max_cases=2))
    assert [a["id"] for a in page.find("article")] == ["case-3", "case-6"]  # shifted by two voxels
    assert "2 of 6 cases have pictures" in page.text
    assert page.row("case_0", "Case")
    assert not Page(inputs.html(max_cases=0)).find("article")


def test_images_without_prediction_are_named(inputs):
    inputs.volume("images", "case_7_0000", np.zeros(SHAPE, np.int16))
    assert "1 cases of the image folder have no prediction: case_7" in Page(inputs.html()).text


def test_a_case_stays_below_a_megabyte(tmp_path):
    inputs = Inputs(tmp_path, cases=("noise",)).write()
    noise = np.random.default_rng(0)
    shape = (300, 512, 512)
    inputs.volume("predictions", "noise", (noise.random(shape, np.float32) > 0.9999).astype(np.uint8))
    inputs.volume("images", "noise_0000", noise.integers(-160, 240, shape, np.int16))
    assert len(inputs.html(labels=None, classes=None)) < 1e6


def test_command_writes_the_file(inputs, capsys):
    output = inputs.root / "report.html"
    main(inputs.arguments(output))
    assert "6 cases, 6 with pictures" in capsys.readouterr().out
    assert Page(output.read_text(encoding="utf-8")).find("article")


def test_measurements_beside_the_masks_stand_in_the_pages_of_the_cases(inputs: Inputs) -> None:
    from nnunet_3dct.evaluation.label_measurements import measure_structures
    from nnunet_3dct.formats.measurement_files import measurement_path, write_measurements

    case = inputs.cases[0]
    predictions = inputs.root / "predictions"
    assert "Measured in the predicted structures" not in inputs.html()
    dataset = json.loads((predictions / "dataset.json").read_text())
    image = inputs.root / "images" / f"{case}_0000.nii.gz"
    content = measure_structures(predictions / f"{case}.nii.gz", [image], dataset, case)
    write_measurements(content, measurement_path(predictions, case))
    html = inputs.html()
    assert html.count("Measured in the predicted structures") == 2  # a label of the region and a caption
    assert f"{content['structures']['lesion']['longest_diameter']['mm']:.1f}" in html
    content["structures"]["lesion"]["volume_ml"] *= 2  # the mask was drawn anew
    write_measurements(content, measurement_path(predictions, case))
    assert "Measured in the predicted structures" not in inputs.html()
