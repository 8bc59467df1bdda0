"""Draws the architecture from nnU-Net's network for a plan and a head of the registry.

``python -m figures.draw_model`` writes ``figures/model_3dct.svg`` and ``.png``;
``python -m figures.draw_model --plans plans.json -c 2d --head lesion -o other.svg`` another network.

The plan in ``figures/phantom`` is nnU-Net's for the phantom: ``nnUNet3DCT_phantom --cases 60 --val 24``, then
``nnUNetv2_plan_and_preprocess -d 1 --no_pp``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from figures.canvas import GREY, SKY, VERMILION, Sheet, save
from figures.head_drawing import draw_head
from figures.model_outline import ModelOutline, outline_model
from figures.unet_drawing import draw_unet, rows
from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.networks.heads import head_names
from nnunet_3dct.training.variants import nnUNetTrainer_CLSHeadSumFT

HERE = Path(__file__).parent
WIDTH = 1000.0


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--plans",
        type=Path,
        default=HERE / "phantom" / "plans.json",
        help="nnU-Net's plans with dataset.json beside them; default: those of the phantom",
    )
    parser.add_argument("-c", default="3d_fullres", help="configuration; default: 3d_fullres")
    parser.add_argument("--head", choices=head_names(), default=nnUNetTrainer_CLSHeadSumFT.head_name)
    parser.add_argument("--classes", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "-o",
        type=Path,
        nargs="+",
        default=[HERE / "model_3dct.svg", HERE / "model_3dct.png"],
        help=".svg or .png files; default: both of figures/model_3dct",
    )
    args = parser.parse_args(argv)
    try:
        model = outline_model(
            json.loads(args.plans.read_text()),
            args.c,
            json.loads(args.plans.with_name("dataset.json").read_text()),
            args.head,
            args.classes,
        )
    except (NNUNet3DCTError, OSError) as error:
        sys.exit(f"error: {error}")
    for path in args.o:
        save(draw(model), path, *describe(model))


def describe(model: ModelOutline) -> tuple[str, str]:
    """Title and description in words."""
    head = model.head
    read = dict.fromkeys(name for lane in head.lanes for name in lane.features)
    return (
        f"{model.unet} with {head.title}",
        f"{model.plan}. A patch of {model.patch} goes through {len(model.encoder)} encoder stages of "
        f"{', '.join(str(stage.channels) for stage in model.encoder)} channels and {len(model.decoder)} decoder stages "
        f"to a segmentation of {model.segmentation[0]}. The head reads {', '.join(read)} and gives "
        f"{head.num_classes} class logits. Parameters: {model.unet_parameters} in the U-Net, {head.parameters} "
        "in the head.",
    )


def draw(model: ModelOutline) -> Figure:
    """The figure: U-Net on the left, a row for each resolution; head on the right."""
    last = rows(model)[-1]
    bottom = last + 40
    sheet = Sheet(WIDTH, bottom + 62)
    ways = draw_unet(sheet, model)
    draw_head(sheet, model.head, ways, bottom)
    _draw_title(sheet, model)
    _draw_legend(sheet, model, bottom + 22)
    return sheet.figure


def _draw_title(sheet: Sheet, model: ModelOutline) -> None:
    sheet.text(14, 22, f"{model.unet} + {model.head.title}", 15, align="left", bold=True)
    sheet.text(14, 42, model.plan, 10.5, GREY, align="left")
    total = f"{model.parameters:,} parameters: U-Net {model.unet_parameters:,}, head {model.head.parameters:,}"
    sheet.text(sheet.width - 14, 22, total, 11, align="right")


def _draw_legend(sheet: Sheet, model: ModelOutline, y: float) -> None:
    items = [(SKY, False, "skip, concatenated")]
    dashed = [name not in model.head.trained for lane in model.head.lanes for name in lane.features]
    if not all(dashed):
        items.append((VERMILION, False, "read by the head, class gradient flows back"))
    if any(dashed):
        items.append((VERMILION, True, "read by the head without gradient"))
    x = 14.0
    for colour, dash, text in items:
        sheet.line([(x, y), (x + 30, y)], colour, dashed=dash, width=1.6)
        sheet.text(x + 38, y, text, 10.5, GREY, align="left")
        x += 62 + 6.6 * len(text)
    note = "Sizes in voxels; parameters in M and k, a decoder stage's with its upsampling."
    if len(model.segmentation) > 1:
        note += f" In training the next {len(model.segmentation) - 1} decoder stages segment too."
    sheet.text(14, y + 20, note, 10, GREY, align="left", width=sheet.width - 28)


if __name__ == "__main__":
    main()
