"""Memory, disk and CPUs of the machine or container."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nnunet_3dct.data.installation import Finding
from nnunet_3dct.paths import FOLDER_VARIABLES, PREPROCESSED, RESULTS

LITTLE_DISK, LITTLE_SHARED, LITTLE_MEMORY = 20.0, 1.0, 8.0  # GiB
GIB = 2**30


def check_memory() -> Finding:
    """Memory of the machine, or of the container that this runs in."""
    total, available = memory_of_machine()
    if total is None:
        return Finding("memory", True, "unknown", warning=True)
    text = f"{total / GIB:.1f} GiB" + (f", {available / GIB:.1f} GiB free" if available is not None else "")
    if (available if available is not None else total) < LITTLE_MEMORY * GIB:
        text += ". Little for nnU-Net, whose processes hold a case each: use few of them (-np, nnUNet_n_proc_DA)"
        return Finding("memory", True, text, warning=True)
    return Finding("memory", True, text)


def memory_of_machine() -> tuple[int | None, int | None]:
    """Bytes in all and free ones; the limit of the container counts where it is lower. None where nobody tells."""
    total = available = None
    try:
        entries = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (1024 * int(entries[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        pages, size = (_sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
        total = pages * size if pages and size else None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if total is None or limit < total:
            total, available = limit, min(available or limit, max(0, limit - used))
    except (OSError, ValueError):  # "max", or no such file
        pass
    return total, available


def check_shared_memory() -> Finding:
    """Room in ``/dev/shm``, through which the processes of torch and nnU-Net hand on data."""
    name, folder = "shared memory", Path("/dev/shm")
    if not folder.is_dir():
        return Finding(name, True, "no /dev/shm on this system")
    size = shutil.disk_usage(folder)
    text = f"{size.free / GIB:.2g} GiB free in /dev/shm"
    if size.free < LITTLE_SHARED * GIB:
        return Finding(
            name,
            True,
            f"{text}; data loaders die of 'bus error' there. Start the container with --shm-size=8g.",
            warning=True,
        )
    return Finding(name, True, text)


def check_disk(environ: Mapping[str, str]) -> list[Finding]:
    """Free space where nnU-Net writes, and for temporary files."""
    places = {variable: environ.get(variable, "") for variable in (PREPROCESSED, RESULTS)}
    places["temporary files"] = tempfile.gettempdir()
    findings = []
    for name, value in places.items():
        if value:
            free = free_bytes(Path(value))
            little = free < LITTLE_DISK * GIB
            more = (
                "; little: preprocessed data and checkpoints take tens of GB. Free some, or set it elsewhere"
                if little
                else ""
            )
            findings.append(Finding(f"disk of {name}", True, f"{free / GIB:.0f} GiB free{more}", warning=little))
    return findings


def free_bytes(folder: Path) -> int:
    """Free space on the disk where a folder lies or would lie."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def check_writable(environ: Mapping[str, str]) -> list[Finding]:
    """Whether the folders that nnU-Net writes to may be written; those that do not exist are told elsewhere."""
    findings = []
    for variable in FOLDER_VARIABLES[1:]:
        folder = Path(environ.get(variable, "") or "/nonexistent")
        if folder.is_dir():
            try:
                with tempfile.NamedTemporaryFile(dir=folder):
                    pass
            except OSError as error:
                findings.append(
                    Finding(variable, False, f"{folder}: expected a folder to write to, found {error.strerror}.")
                )
    return findings


def check_threads(environ: Mapping[str, str]) -> list[Finding]:
    """CPUs that this process may use, against the numbers of processes and threads that are set."""
    cpus = usable_cpus()
    set_here = {
        name: environ[name]
        for name in ("OMP_NUM_THREADS", "nnUNet_n_proc_DA", "nnUNet_def_n_proc", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        if environ.get(name)
    }
    text = f"{cpus} CPUs" + "".join(f", {name}={value}" for name, value in set_here.items())
    findings = [Finding("threads", True, text)]
    for name in ("OMP_NUM_THREADS", "nnUNet_n_proc_DA", "nnUNet_def_n_proc"):
        value = set_here.get(name, "")
        if value and not value.isdecimal():
            message = f"{name}: expected a whole number, found {value!r}. Correct or unset it."
            findings.append(Finding("threads", False, message))
        elif value and int(value) > cpus:
            message = f"{name}={value} is more than the {cpus} CPUs that may be used; they then wait for each other."
            findings.append(Finding("threads", True, message, warning=True))
    if "nnUNet_n_proc_DA" not in set_here and cpus < 12:
        message = (
            f"nnUNet_n_proc_DA is not set: nnU-Net starts up to 12 processes for augmentation, for {cpus} CPUs. "
            f"`export nnUNet_n_proc_DA={max(1, cpus - 1)}`"
        )
        findings.append(Finding("threads", True, message, warning=True))
    return findings


def usable_cpus() -> int:
    """CPUs that this process may use: those of its affinity, or of the quota of its container where that is less."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # "max", or no such file
        pass
    return cpus


def _sysconf(name: str) -> int | None:
    return os.sysconf(name) if sys.platform != "win32" and name in os.sysconf_names else None
