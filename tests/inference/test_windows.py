"""Windows, mirrors and batches of a case."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from nnunet_3dct.inference.backends import Backend, make_backend
from nnunet_3dct.inference.ensemble import Ensemble, ways_to_run
from nnunet_3dct.inference.windows import Windows, empty_window_rule, mirrored_passes, window_layout
from nnunet_3dct.networks.target import TargetLabels
from tests.inference.test_backends import network

CPU = torch.device("cpu")
LABELS = SimpleNamespace(has_regions=False, all_labels=[0, 1, 2], label_dict={"background": 0, "a": 1, "b": 2})
PATCH = (8, 8, 16)


class Recording(Backend):
    """Logits that depend on the voxel alone; remembers how many windows came at once."""

    name, precision, device = "torch", "f32", CPU

    def __init__(self, most: int = 100, error: RuntimeError | None = None) -> None:
        self.head = SimpleNamespace(averages_mirrors=True)  # type: ignore[assignment]
        self.most = most
        self.error = error or torch.OutOfMemoryError("too many")
        self.batches: list[int] = []
        self.classified: list[bool] = []

    def __call__(
        self, windows: torch.Tensor, classify: bool = True, importance: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.batches.append(len(windows))
        self.classified.append(classify)
        if len(windows) > self.most:
            raise self.error
        means = windows.flatten(1).mean(1)
        return torch.cat((windows * 0, windows, -windows), 1), torch.stack((means, -means), 1) if classify else None


def windows(tta: str = "full", is_empty=None, patch: tuple[int, ...] = PATCH) -> Windows:
    passes = mirrored_passes(range(len(patch)), tta)
    return Windows(patch, 0.5, passes, 3, TargetLabels(LABELS, ["a"]), is_empty)


def image(*shape: int) -> torch.Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("allowed", "tta", "passes"),
    [
        ((0, 1, 2), "full", 8),
        ((0, 1, 2), "flips", 4),
        ((0, 1, 2), "pair", 2),
        ((0, 1, 2), "none", 1),
        ((1,), "full", 2),
        ((1,), "pair", 2),
        (None, "full", 1),
        ((), "flips", 1),
        ((), "pair", 1),
    ],
)
def test_mirrored_passes(allowed: tuple[int, ...] | None, tta: str, passes: int) -> None:
    found = mirrored_passes(allowed, tta)
    assert len(found) == len(set(found)) == passes and found[0] == ()
    assert set().union(*found) <= set(allowed or ())


def assert_same(found: torch.Tensor, expected: torch.Tensor, patch: tuple[int, ...] = PATCH) -> None:
    """Equal to the rounding of half precision, which is coarse where all windows that see a voxel weigh little."""
    shape = expected.shape[1:]
    weight = torch.zeros([max(*pair) for pair in zip(shape, (0, 0, 0, *patch)[-3:], strict=True)], dtype=torch.double)
    gaussian = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10, device=CPU).double()
    for place in window_layout(shape, patch):
        weight[place[1:]] += gaussian
    starts = [(padded - n) // 2 for padded, n in zip(weight.shape, shape, strict=True)]
    inside = tuple(slice(start, start + n) for start, n in zip(starts, shape, strict=True))
    allowed = 0.01 + 2**-23 / weight[inside]
    assert bool(((found.double() - expected.double()).abs() <= allowed).all())
    assert float((allowed < 0.02).double().mean()) > 0.8


@pytest.mark.parametrize("tta", ["none", "pair", "flips", "full"])
@pytest.mark.parametrize("shape", [(8, 8, 16), (5, 20, 30), (17, 8, 9)])
def test_logits_find_back_to_their_voxels(tta: str, shape: tuple[int, ...]) -> None:
    data = image(*shape)
    logits, _ = windows(tta).predict(Recording(), data, 3, CPU)
    assert_same(logits[1:2], data)


@pytest.mark.parametrize("at_once", [1, 3, 8, 100])
def test_passes_at_once_change_nothing(at_once: int) -> None:
    data, backend = image(12, 20, 30), make_backend(network(), (1, *PATCH), CPU, "torch")
    expected, expected_class = windows().predict(backend, data, 1, CPU)
    logits, case_class = windows().predict(backend, data, at_once, CPU)
    assert_same(logits, expected)
    assert case_class.probs == pytest.approx(expected_class.probs, abs=1e-5)
    assert (case_class.windows, case_class.passes_per_window) == (24, 8)


def test_class_is_asked_for_only_where_the_head_reads_it() -> None:
    data, backend = image(12, 20, 30), Recording()
    windows().predict(backend, data, 1, CPU)
    assert backend.classified == [True] * 24 * 8
    backend = Recording()
    backend.head.averages_mirrors = False
    logits, case_class = windows().predict(backend, data, 1, CPU)
    assert backend.classified == ([True] + [False] * 7) * 24
    for at_once in (3, 8, 100):  # plain and mirrored passes in one call
        found, found_class = windows().predict(backend, data, at_once, CPU)
        assert torch.equal(found, logits) and found_class == case_class
    plain, _ = windows("none").predict(Recording(), data, 1, CPU)
    assert_same(logits, plain)


def test_batches_are_full() -> None:
    backend = Recording()
    windows("none").predict(backend, image(12, 20, 30), 10, CPU)
    assert backend.batches == [10, 10, 4]


def test_each_slice_of_a_volume_is_a_window_of_a_2d_network() -> None:
    data, backend = image(3, 20, 30), Recording()
    logits, case_class = windows("none", patch=(8, 16)).predict(backend, data, 100, CPU)
    assert case_class.windows == backend.batches[0] == 3 * 4 * 3
    assert_same(logits[1:2], data, (8, 16))


@pytest.mark.parametrize("tta", ["none", "full"])
@pytest.mark.parametrize("shape", [(8, 8, 16), (5, 20, 30), (17, 8, 9)])
def test_logits_are_those_of_nnunet_to_the_last_bit(shape: tuple[int, ...], tta: str) -> None:
    data, net = image(*shape), network()
    predictor = nnUNetPredictor(use_mirroring=tta == "full", device=CPU, allow_tqdm=False)
    labels = SimpleNamespace(num_segmentation_heads=3)
    plans = SimpleNamespace(get_label_manager=lambda dataset_json: labels)
    predictor.manual_initialization(net, plans, SimpleNamespace(patch_size=PATCH), None, {}, "", (0, 1, 2))
    expected = predictor.predict_sliding_window_return_logits(data)
    with torch.inference_mode():
        found, _ = windows(tta).predict(make_backend(net, (1, *PATCH), CPU, "torch"), data, 1, CPU)
    assert torch.equal(found, expected)


def air_or_not(window: torch.Tensor) -> bool:
    return bool((window <= -2).all())


def test_empty_windows_are_left_out_and_are_background() -> None:
    data = image(8, 8, 64).clamp_min(-1)
    data[..., 32:] = -2
    backend = Recording()
    logits, case_class = windows("none", air_or_not).predict(backend, data, 100, CPU)
    assert case_class.windows == sum(backend.batches) == 4  # of seven; three lie in the air
    expected, _ = windows("none").predict(Recording(), data, 100, CPU)
    torch.testing.assert_close(logits[..., :32], expected[..., :32], rtol=1e-2, atol=1e-2)
    assert torch.isfinite(logits).all() and bool((logits[..., 44:].argmax(0) == 0).all())


def test_case_of_air_alone_is_looked_at_all_the_same() -> None:
    _, case_class = windows("none", air_or_not).predict(Recording(), torch.full((1, 8, 8, 32), -2.0), 100, CPU)
    assert case_class.windows == 3


def test_overflow_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="half precision"):
        windows("none").predict(Recording(), torch.full((1, *PATCH), 1e6), 1, CPU)


def test_ct_window_is_empty_below_the_lower_clip() -> None:
    statistics = {"0": {"mean": 80.0, "std": 40.0, "percentile_00_5": -100.0}}
    plans = SimpleNamespace(foreground_intensity_properties_per_channel=statistics)
    is_empty = empty_window_rule(plans, SimpleNamespace(normalization_schemes=["CTNormalization"]))
    lowest = (-100 - 80) / 40
    air = torch.full((1, 10, 10, 20), lowest)
    assert is_empty(air)
    air[0, 0, 0, 0] = air[0, 9, 9, 0] = 0.0  # two voxels of 2000
    assert is_empty(air)
    air[0, 5, 5, 0] = 0.0
    assert not is_empty(air)


def test_shortage_of_gpu_memory_takes_smaller_batches_then_sums_on_the_cpu() -> None:
    backend = Recording()
    backend.windows_at_once, backend.device = 8, torch.device("cuda", 0)
    ways = [(n, device.type) for n, device in ways_to_run(backend, True)]
    assert ways == [(8, "cuda"), (4, "cuda"), (2, "cuda"), (1, "cuda"), (8, "cpu"), (4, "cpu"), (2, "cpu"), (1, "cpu")]
    backend.windows_at_once = 1
    assert [(n, d.type) for n, d in ways_to_run(backend, False)] == [(1, "cpu")]
    assert [(n, d.type) for n, d in ways_to_run(Recording(), True)] == [(1, "cpu")]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("too many"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.0 GB)"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=["torch", "cublas", "mps", "cudnn"],
)
def test_case_survives_shortage_and_only_cases_as_large_start_with_what_worked(error: RuntimeError) -> None:
    backend, told = Recording(most=3, error=error), []
    ensemble = Ensemble([backend], windows(), on_message=told.append, ways=[(n, CPU) for n in (8, 4, 2, 1)])
    data = image(12, 20, 30)
    logits = ensemble.predict(data).logits
    assert torch.equal(logits, windows().predict(Recording(), data, 2, CPU)[0])
    assert backend.batches[:3] == [8, 4, 2]
    assert len(told) == 2 and "2 passes at once" in told[-1]
    for larger in (data, image(14, 20, 30)):
        backend.batches.clear()
        ensemble.predict(larger)
        assert set(backend.batches) == {2}
    backend.batches.clear()
    backend.most = 100
    ensemble.predict(image(8, 8, 16))
    assert set(backend.batches) == {8}


def test_case_that_never_fits_fails() -> None:
    ensemble = Ensemble([Recording(most=0)], windows(), ways=[(2, CPU), (1, CPU)])
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            ensemble.predict(image(8, 8, 16))


def test_other_error_of_a_pass_is_not_taken_for_shortage() -> None:
    backend = Recording(most=0, error=RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        Ensemble([backend], windows(), ways=[(2, CPU), (1, CPU)]).predict(image(8, 8, 16))
    assert backend.batches == [2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_logits_that_are_no_numbers_in_half_precision_are_refused(value: float) -> None:
    data = image(8, 8, 16)
    data[0, 4, 4, 8] = value
    with pytest.raises(RuntimeError, match="not finite in half precision"):
        windows().predict(Recording(), data, 1, CPU)


def empty_rule(*schemes: str):
    statistics = {str(n): {"mean": 80.0, "std": 40.0, "percentile_00_5": -100.0} for n in range(len(schemes))}
    plans = SimpleNamespace(foreground_intensity_properties_per_channel=statistics)
    return empty_window_rule(plans, SimpleNamespace(normalization_schemes=list(schemes)))


@pytest.mark.parametrize("hounsfield", [-90, -60, 20])
def test_ct_window_just_above_the_lower_clip_is_not_empty(hounsfield: int) -> None:
    window = torch.full((1, 4, 4, 4), (hounsfield - 80) / 40)
    assert not empty_rule("CTNormalization")(window)


def test_window_of_another_normalisation_is_empty_where_it_shows_nothing_but_its_lowest_value() -> None:
    is_empty = empty_rule("ZScoreNormalization", "CTNormalization")
    window = torch.full((2, 4, 4, 4), -4.5)  # air in the CT
    window[0] = 3.0  # whatever the constant
    assert is_empty(window)
    visible = window.clone()
    visible[0, 0] = 3.5
    assert not is_empty(visible)
    visible = window.clone()
    visible[1, 0] = 0.0
    assert not is_empty(visible)


def test_map_of_a_case_smaller_than_the_patch_is_looked_at_with_zeros_around_it() -> None:
    seen: list[torch.Tensor] = []

    def look(window: torch.Tensor) -> torch.Tensor:
        seen.append(window)
        return window[0]

    data = image(4, 8, 10) + 5
    found = windows("none").blend(data, [1.0], look)
    torch.testing.assert_close(found, data[0])
    inside = int((seen[0] == 0).sum())
    assert seen[0].shape == (1, *PATCH) and inside == seen[0].numel() - data.numel()
