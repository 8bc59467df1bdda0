"""The ``NNUNETV2_*`` variables: defaults, values, and one message for everything that is wrong."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.settings import Settings

GOOD = {
    "NNUNETV2_MT_NUM_CLS": "3",
    "NNUNETV2_MT_LOSS_WEIGHT": "0.5",
    "NNUNETV2_PRE_CHECKPOINT_PATH": "stage1/checkpoint_best.pth",
    "NNUNETV2_MT_EPOCHS": "20",
    "NNUNETV2_MT_ITERS_PER_EPOCH": "30",
    "NNUNETV2_MT_VAL_ITERS": "4",
    "NNUNETV2_MT_LR": "1e-3",
    "NNUNETV2_MT_CLASS_WEIGHTS": "1, 2,0.5",
    "NNUNETV2_MT_SAMPLER": "Balanced",
    "NNUNETV2_MT_SEED": "0",
    "NNUNETV2_MT_TARGET_LABELS": "2, lesion",
    "NNUNETV2_MT_CLS_VAL_EVERY": "5",
    "NNUNETV2_MT_LABEL_SMOOTHING": "0.1",
    "NNUNETV2_MT_FOCAL_GAMMA": "2",
    "NNUNETV2_MT_LOSS_WARMUP": "3",
    "NNUNETV2_MT_INTENSITY_AUG": "off",
    "NNUNETV2_MT_EMA": "0.999",
    "NNUNETV2_MT_MIRROR_AXES": "2, 0",
    "NNUNETV2_MT_TARGET_PATCHES": "0.5",
    "NNUNETV2_MT_GRADIENT": "1",
    "NNUNETV2_MT_STANDARDIZE": "Off",
}
BAD = [
    ("NUM_CLS", "1"),
    ("NUM_CLS", "three"),
    ("NUM_CLS", "2.5"),
    ("LOSS_WEIGHT", "-0.1"),
    ("LOSS_WEIGHT", "nan"),
    ("LOSS_WEIGHT", "inf"),
    ("LOSS_WEIGHT", "0,3"),
    ("EPOCHS", "0"),
    ("ITERS_PER_EPOCH", "-5"),
    ("VAL_ITERS", "1.5"),
    ("LR", "0"),
    ("LR", "-1e-3"),
    ("LR", "fast"),
    ("CLASS_WEIGHTS", "inverse"),
    ("CLASS_WEIGHTS", "1"),
    ("CLASS_WEIGHTS", "1,0,2"),
    ("CLASS_WEIGHTS", "1,nan"),
    ("CLASS_WEIGHTS", "1,,2"),
    ("SAMPLER", "random"),
    ("SEED", "-1"),
    ("SEED", "4294967296"),
    ("SEED", "1" + 400 * "0"),
    ("TARGET_LABELS", "1,,2"),
    ("TARGET_LABELS", ","),
    ("CLS_VAL_EVERY", "0"),
    ("LABEL_SMOOTHING", "1"),
    ("LABEL_SMOOTHING", "-0.1"),
    ("FOCAL_GAMMA", "-1"),
    ("FOCAL_GAMMA", "inf"),
    ("LOSS_WARMUP", "-1"),
    ("LOSS_WARMUP", "0.5"),
    ("INTENSITY_AUG", "some"),
    ("EMA", "0"),
    ("EMA", "1"),
    ("EMA", "on"),
    ("EMA", "nan"),
    ("MIRROR_AXES", "3"),
    ("MIRROR_AXES", "-1"),
    ("MIRROR_AXES", "0,0"),
    ("MIRROR_AXES", "0,,1"),
    ("MIRROR_AXES", "0,none"),
    ("MIRROR_AXES", "x"),
    ("TARGET_PATCHES", "1.1"),
    ("TARGET_PATCHES", "-0.1"),
    ("TARGET_PATCHES", "lesion"),
    ("GRADIENT", "1.5"),
    ("GRADIENT", "-1"),
    ("STANDARDIZE", "maybe"),
]


def test_nothing_set_gives_the_documented_defaults():
    settings = Settings.from_env({"PATH": "elsewhere", "nnUNet_raw": "data"})
    assert settings == Settings()
    assert {name: value for name, value in dataclasses.asdict(settings).items() if value is not None} == {
        "target_patches": 0.0,
        "focal_gamma": 0.0,
        "loss_warmup": 0,
        "sampler": "uniform",
        "cls_val_every": 1,
        "intensity_aug": "on",
    }


def test_every_variable_is_read():
    assert Settings.from_env(GOOD) == Settings(
        num_cls=3,
        loss_weight=0.5,
        pre_checkpoint_path=Path("stage1/checkpoint_best.pth"),
        epochs=20,
        iters_per_epoch=30,
        val_iters=4,
        lr=1e-3,
        class_weights=(1.0, 2.0, 0.5),
        sampler="balanced",
        seed=0,
        target_labels=(2, "lesion"),
        cls_val_every=5,
        label_smoothing=0.1,
        focal_gamma=2,
        loss_warmup=3,
        intensity_aug="off",
        ema=0.999,
        mirror_axes=(0, 2),
        target_patches=0.5,
        gradient=1.0,
        standardize="off",
    )


def test_every_setting_has_a_variable_in_this_test():
    assert len(GOOD) == len(dataclasses.fields(Settings))


def test_blank_variables_count_as_unset():
    assert Settings.from_env(dict.fromkeys(GOOD, "  ")) == Settings()


def test_the_process_environment_is_read_when_none_is_given(monkeypatch):
    for name in list(os.environ):
        if name.startswith("NNUNETV2_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NNUNETV2_MT_EPOCHS", "7")
    assert Settings.from_env() == Settings(epochs=7)


@pytest.mark.parametrize("text", ["none", "Balanced"])
def test_class_weights_may_be_named(text):
    assert Settings.from_env({"NNUNETV2_MT_CLASS_WEIGHTS": text}).class_weights == text.lower()


def test_no_mirrored_axis_is_a_value_of_its_own():
    assert Settings.from_env({"NNUNETV2_MT_MIRROR_AXES": "None"}).mirror_axes == ()


def test_highest_seed_is_accepted():
    assert Settings.from_env({"NNUNETV2_MT_SEED": "4294967295"}).seed == 2**32 - 1


def test_loss_weight_zero_is_kept():
    assert Settings.from_env({"NNUNETV2_MT_LOSS_WEIGHT": "0"}).loss_weight == 0


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_value_is_named_with_what_was_expected_and_found(name, text):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**GOOD, f"NNUNETV2_MT_{name}": text})
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"  NNUNETV2_MT_{name}: expected ")
    assert line.endswith(f", found {text!r}")


def test_all_problems_are_in_one_message():
    environ = {**GOOD, "NNUNETV2_MT_EPOCHS": "0", "NNUNETV2_MT_LR": "x", "NNUNETV2_MT_EPOCH": "3"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [
        "NNUNETV2_MT_EPOCHS",
        "NNUNETV2_MT_LR",
        "NNUNETV2_MT_EPOCH",
    ]


@pytest.mark.parametrize(
    "name", ["NNUNETV2_MT_NUM_CLASSES", "NNUNETV2_MT_PRE_CHECKPOINT_PATH", "NNUNETV2_PRE_CHECKPOINT"]
)
def test_unknown_variable_with_our_prefix_is_refused_and_the_known_ones_listed(name):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: "3"})
    assert f"{name}: no such variable" in str(caught.value)
    assert all(known in str(caught.value) for known in GOOD)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NNUNETV2_MT_EPOCH", "NNUNETV2_MT_EPOCHS"),
        ("NNUNETV2_MT_LABEL_SMOTHING", "NNUNETV2_MT_LABEL_SMOOTHING"),
        ("NNUNETV2_PRE_CHECKPOINT", "NNUNETV2_PRE_CHECKPOINT_PATH"),
    ],
)
def test_misspelt_variable_is_told_with_the_one_that_was_meant(name, meant):
    with pytest.raises(SettingsError, match=f"{name}: no such variable; did you mean {meant}"):
        Settings.from_env({name: "3"})


def test_variables_of_others_are_left_alone():
    assert Settings.from_env({"NNUNETV2_OTHER_TOOL": "x", "nnUNet_MT": "y"}) == Settings()
