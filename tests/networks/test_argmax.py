from __future__ import annotations

import pytest
import torch

from nnunet_3dct.networks.target import argmax_labels


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 256, 300])
def test_labels_are_those_of_argmax_with_ties_too(channels: int, dtype: torch.dtype) -> None:
    logits = torch.randint(-3, 4, (channels, 5, 6, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    # NumPy promises the first of equals
    expected = torch.from_numpy(logits.float().numpy().argmax(0))
    assert torch.equal(argmax_labels(logits).long(), expected)
