"""Commands beside this Python: run, timed, their memory; and the machine they ran on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def run(command: list[Any]) -> None:
    """Run a command that is installed beside this Python; its standard output is dropped.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run(_program(command), check=True, stdout=subprocess.DEVNULL)


def timed(command: list[Any]) -> tuple[float, float]:
    """Seconds and peak memory in GiB of a command with all its processes; a failure ends the benchmark."""
    peak, done = [0.0], threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(_program(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], _memory(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} failed:\n{errors.decode()[-2000:]}")
    return seconds, peak[0]


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    flags = next((x.split() for x in _cpuinfo() if x.startswith("flags")), [])
    found: dict[str, Any] = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "avx512_bf16": "avx512_bf16" in flags,
        "amx": "amx_bf16" in flags,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "nnunetv2", "openvino", "numpy")},
    }
    if device == "cuda":
        import torch

        found.update(gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    return found


def _program(command: list[Any]) -> list[str]:
    parts = [str(part) for part in command]
    return [str(Path(sys.executable).parent / parts[0]), *parts[1:]]


def _memory(root: int) -> float:
    """GiB of a process and its descendants; pages that several share count once."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    total = 0
    for pid in family:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 2**20


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
