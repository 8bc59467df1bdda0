"""How OpenMP threads should wait: seconds of a small training step alone and beside a busy process.

Each setting runs in a process of its own, in turns; the lowest of all rounds counts, so that other work on the machine
weighs little.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}

STEP = """
import statistics, sys, time, torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
torch.manual_seed(0)
net = PlainConvUNet(1, 4, [8, 16, 32, 64], torch.nn.Conv3d, 3, [1, 2, 2, 2], 2, 3, 2, norm_op=torch.nn.InstanceNorm3d,
                    norm_op_kwargs={"affine": True}, nonlin=torch.nn.LeakyReLU, deep_supervision=False)
x, y = torch.randn(2, 1, 32, 40, 48), torch.randint(0, 3, (2, 32, 40, 48))
optimizer = torch.optim.SGD(net.parameters(), 1e-3)
times = []
for n in range(int(sys.argv[1])):
    start = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    times.append(time.perf_counter() - start)
print(statistics.median(times[3:]))
"""


def seconds(variables: dict[str, str], steps: int, beside: int) -> float:
    """Median step of a process with these variables while ``beside`` others compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
    try:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        command = [sys.executable, "-c", STEP, str(steps)]
        done = subprocess.run(command, env={**clean, **variables}, capture_output=True, text=True, check=True)
        return float(done.stdout)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args(argv)
    lowest: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.rounds):
        for name, variables in SETTINGS.items():
            for beside in (0, 1):
                lowest.setdefault((name, beside), []).append(seconds(variables, args.steps, beside))
    print(f"{'setting':28}{'alone':>8}{'beside one busy process':>26}")
    for name in SETTINGS:
        alone, beside = (min(lowest[name, n]) for n in (0, 1))
        print(f"{name:28}{alone:8.3f}{beside:26.3f}   all: {lowest[name, 0]} {lowest[name, 1]}", flush=True)


if __name__ == "__main__":
    main()
