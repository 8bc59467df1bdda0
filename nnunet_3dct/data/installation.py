"""Checks of the installation: packages that fit each other, trainers where nnU-Net looks, folders, device."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_3dct.paths import FOLDER_VARIABLES

EXT_TRAINERS = Path(__file__).resolve().parent.parent / "ext_trainers"
TRAINER_FOLDER = Path("training", "nnUNetTrainer", "variants", "multi_task")
NNUNET_SERIES = "2.8."
PROBE_TRAINER = "nnUNetTrainer_CLSHeadSum"


@dataclass(frozen=True)
class Finding:
    """Result of one check; a ``warning`` is worth reading but fails nothing."""

    name: str
    ok: bool
    message: str
    warning: bool = False


@dataclass(frozen=True)
class NNUNetLocation:
    """Where Python finds nnU-Net.

    Attributes:
        package: folder of the package; None where there is none, or only a folder without __init__.py.
        copies: other folders named ``nnunetv2`` on the path that hold our trainers.
        installed: pip knows nnU-Net, whether or not Python finds it.
        editable: nnU-Net was installed from a source tree with ``pip install -e``.
    """

    package: Path | None
    copies: tuple[Path, ...]
    installed: bool
    editable: bool


def check_installation(environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Run every check; the search for a trainer only where the checks before it passed.

    Args:
        environ: defaults to ``os.environ``.
    """
    environ = os.environ if environ is None else environ
    torch_fits = check_torchvision()
    trainers = check_trainers(locate_nnunet(), environ.get("nnUNet_extTrainer", ""))
    findings = [torch_fits, check_nnunet_version(), trainers]
    if torch_fits.ok and trainers.ok:
        findings.append(check_trainer_search())
    return [*findings, *check_folders(environ), check_device(), check_cpu_prediction()]


def check_torchvision() -> Finding:
    """Import torchvision and run one of its compiled operators.

    nnU-Net's trainer search imports timm, which imports torchvision; one built for another torch dies there
    with a message such as "operator torchvision::nms does not exist".
    """
    name = "torch and torchvision"
    versions = f"torch {package_version('torch')}, torchvision {package_version('torchvision')}"
    try:
        torch = importlib.import_module("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts of torch that torchvision uses and the next release drops
            ops = importlib.import_module("torchvision.ops")
        ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:  # a mismatch shows as ImportError, RuntimeError, AttributeError or OSError
        return Finding(
            name,
            False,
            f"expected builds made for each other, found {versions}: {type(error).__name__}: {error}. "
            "nnU-Net cannot find any trainer like this. Install both in one command from one index, for "
            "instance `pip install --upgrade torch torchvision`.",
        )
    return Finding(name, True, versions)


def check_nnunet_version() -> Finding:
    """nnU-Net is of the series whose hooks this project uses."""
    found = package_version("nnunetv2")
    if found.startswith(NNUNET_SERIES):
        return Finding("nnU-Net version", True, found)
    message = f"expected {NNUNET_SERIES}x, found {found}. Run `pip install 'nnunetv2>=2.8.1,<2.9'`."
    return Finding("nnU-Net version", False, message)


def locate_nnunet() -> NNUNetLocation:
    """Ask Python's import system, without importing nnU-Net."""
    spec = importlib.util.find_spec("nnunetv2")
    package = Path(spec.origin).resolve().parent if spec is not None and spec.origin is not None else None
    candidates = (Path(entry or ".").resolve() / "nnunetv2" for entry in sys.path)
    copies = tuple(dict.fromkeys(c for c in candidates if c != package and _has_trainers(c)))
    return NNUNetLocation(package, copies, package_version("nnunetv2") != "none", _is_editable("nnunetv2"))


def check_trainers(location: NNUNetLocation, ext_trainers: str) -> Finding:
    """Our trainers are where nnU-Net searches.

    Args:
        location: from :func:`locate_nnunet`.
        ext_trainers: value of ``nnUNet_extTrainer``, folders joined by ``os.pathsep``.
    """
    name = "trainers"
    copies = ", ".join(str(copy) for copy in location.copies)
    announced = EXT_TRAINERS in [Path(part).resolve() for part in ext_trainers.split(os.pathsep) if part.strip()]
    export = f'export nnUNet_extTrainer="{EXT_TRAINERS}"'
    if location.package is None and location.installed:
        return Finding(
            name,
            False,
            f"expected the package nnunetv2, found only {copies or 'a folder without __init__.py'}, which "
            "hides it. Install nnU-Net without `-e`; or delete that folder from site-packages, work outside "
            f"this project's source tree and set `{export}`.",
        )
    if location.package is None:
        message = "expected the package nnunetv2, found none. Run `pip install 'nnunetv2>=2.8.1,<2.9'`."
        return Finding(name, False, message)
    if _has_trainers(location.package):
        return Finding(name, True, str(location.package / TRAINER_FOLDER))
    if announced:
        return Finding(name, True, f"through nnUNet_extTrainer, {EXT_TRAINERS}")
    found = f"them in {copies}" if copies else "no such files"
    remedy = "Install this project into the environment of nnU-Net, or set"
    if location.editable:
        found += " (nnU-Net is an editable install, so pip puts this project's files elsewhere)"
        remedy = "Set"
    return Finding(
        name,
        False,
        f"expected them in {location.package / TRAINER_FOLDER}, where nnU-Net searches; found {found}. "
        f"{remedy} `{export}`.",
    )


def check_trainer_search() -> Finding:
    """Let nnU-Net itself look one of our trainers up; a module that fails to import breaks this search."""
    name = "nnU-Net's trainer search"
    output = io.StringIO()
    try:
        search = importlib.import_module("nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
        with contextlib.redirect_stdout(output):
            trainer = search(PROBE_TRAINER)
    except Exception as error:  # whatever any trainer module raises on import
        message = f"expected {PROBE_TRAINER}, found {type(error).__name__}: {error}. Correct or remove that module."
        return Finding(name, False, message)
    if not trainer.__module__.startswith("nnunet_3dct."):
        where = getattr(sys.modules.get(trainer.__module__), "__file__", trainer.__module__)
        return Finding(name, False, f"expected this project's {PROBE_TRAINER}, found another in {where}. Remove it.")
    return Finding(name, True, f"finds {PROBE_TRAINER}")


def check_folders(environ: Mapping[str, str]) -> list[Finding]:
    """The three folders of nnU-Net; only warnings, since not every command needs all of them."""
    findings = []
    for variable in FOLDER_VARIABLES:
        value = environ.get(variable, "")
        if not value:
            message = f'not set; run `export {variable}="/path/to/{variable}"` before commands that need it.'
            findings.append(Finding(variable, True, message, warning=True))
        elif not Path(value).is_dir():
            findings.append(Finding(variable, True, f"{value} does not exist; create it.", warning=True))
        else:
            findings.append(Finding(variable, True, value))
    return findings


def check_device() -> Finding:
    """The device that training and prediction would use; information only."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build fails in many ways
        return Finding("device", False, f"torch cannot be imported: {error}.")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("device", True, f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Finding("device", True, "mps")
    return Finding("device", True, f"cpu, {torch.get_num_threads()} threads (give `-device cpu` to the commands)")


def check_cpu_prediction() -> Finding:
    """What runs networks on the CPU and in which precision; information only."""
    name = "prediction on the CPU"
    try:
        openvino = importlib.import_module("openvino")
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # not installed, or a build that does not fit the machine
        message = f"torch, since OpenVINO is not there ({error}); `pip install openvino` makes it some times faster"
        return Finding(name, True, message, warning=True)
    precision = "bf16" if "BF16" in capabilities else "f32, since this CPU does not compute in bf16"
    return Finding(name, True, f"openvino {package_version('openvino')} in {precision}")


def _has_trainers(package: Path) -> bool:
    return any(path.name != "__init__.py" for path in (package / TRAINER_FOLDER).glob("*.py"))


def _is_editable(distribution: str) -> bool:
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(json.loads(text or "{}").get("dir_info", {}).get("editable", False))


def package_version(distribution: str) -> str:
    """Version of an installed distribution, ``none`` where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
