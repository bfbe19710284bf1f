import inspect

import pytest

import msam
from msam.report import labels
from tests.report._records import config


@pytest.mark.parametrize(
    ("method", "sharpness", "label"),
    [
        ("joint", None, "Joint"),
        ("joint", "sam", "SAM"),
        ("joint", "msam", "M-SAM"),
        ("joint", "asam", "ASAM"),
        ("uniform", None, "Uniform"),
        ("agm", None, "AGM"),
        ("ogm_ge", "sam", "OGM-GE + SAM"),
        ("mmpareto", "fisher_sam", "MMPareto + Fisher SAM"),
        ("my_lab.magic", None, "magic"),
        ({"name": "unimodal", "modality": "audio"}, None, "Unimodal audio"),
        ({"name": "unimodal", "modality": "audio"}, "sam", "Unimodal audio + SAM"),
        ("joint", {"name": "msam", "rho": 0.3, "scope": "all", "loss": "weighted", "every": 2}, "M-SAM"),
        (
            "joint",
            {"name": "msam", "scope": "dominant", "modality": "random"},
            "M-SAM (scope=dominant, modality=random)",
        ),
        ("agm", {"name": "msam", "share": "one", "loss": "masked"}, "AGM + M-SAM (constant share, loss=masked)"),
    ],
)
def test_name_of_a_row(method: str, sharpness: str | None, label: str) -> None:
    assert labels.of_run(config(method, sharpness)) == label


def test_m_sam_as_printed_is_m_sam_without_options() -> None:
    parameters = inspect.signature(msam.MSAM).parameters
    assert {key: parameters[key].default for key in labels.PRINTED} == labels.PRINTED


def test_only_equal_labels_get_settings() -> None:
    configs = [config(), config("joint", {"name": "sam", "rho": 0.1}), config("joint", {"name": "sam", "rho": 0.25})]
    assert labels.distinct(["Joint", "SAM", "SAM"], configs) == ["Joint", "SAM (rho=0.1)", "SAM (rho=0.25)"]


def test_every_setting_that_differs_is_named() -> None:
    configs = [config(epochs=20, batch_size=64), config(epochs=40, batch_size=32)]
    assert labels.distinct(["Joint", "Joint"], configs) == [
        "Joint (epochs=20, batch_size=64)",
        "Joint (epochs=40, batch_size=32)",
    ]


def test_a_part_of_another_name_stands_for_its_settings() -> None:
    adam = config(optimizer={"name": "adamw", "lr": 0.001, "betas": [0.9, 0.999]})
    assert labels.distinct(["Joint", "Joint"], [config(), adam]) == ["Joint (optimizer=sgd)", "Joint (optimizer=adamw)"]


def test_settings_of_one_name_in_several_parts_keep_their_prefix() -> None:
    configs = [{"a": {"rho": 1}, "b": {"rho": 1}}, {"a": {"rho": 2}, "b": {"rho": 3}}]
    assert labels.distinct(["x", "x"], configs) == ["x (a.rho=1, b.rho=1)", "x (a.rho=2, b.rho=3)"]
