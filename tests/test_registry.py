"""The folder is the registry, and so is any importable module."""

import importlib
import sys
import textwrap

import pytest

from msam import _registry, data, methods, sharpness
from msam.train.config import config, options

METHOD = """
    from dataclasses import dataclass
    from typing import Annotated
    from msam.checks import Range
    from msam.methods import Method

    @dataclass(frozen=True)
    class Scaled(Method):
        '''Joint training with a scaled loss.

        Arguments:
            scale: of the loss, > 0.
        '''
        scale: Annotated[float, Range(gt=0)] = 2.0

        def loss(self, run, output, batch):
            return self.scale * super().loss(run, output, batch)
"""
RULE = """
    from msam.sharpness import Sharpness
    from msam.sharpness.sam import SAM as Other
    from msam.sharpness import Direction, norm

    class Mine(Sharpness):
        '''SAM with a share of one half.'''
        def __init__(self, optimizer, rho: float = 0.1, *, model=None, sync=True, monitor: int = 0) -> None:
            super().__init__(optimizer, rho, model=model, sync=sync, monitor=monitor)

        def direction(self, first):
            return Direction(first, norm(first.values()))

        def share(self, contributions):
            return 0.5
"""
DATASET = """
    from msam.data.dial import dial

    def tiny(*, train_size: int = 40):
        '''Return a small dial.'''
        return dial(train_size=train_size, valid_size=20, test_size=20, bayes_samples=10)
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Return a function that writes a module of a package that is nowhere else."""
    package = tmp_path / "my_lab"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> str:
        (package / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return f"my_lab.{name}"

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_what_is_in_the_folder_is_found_and_helpers_are_not():
    for package in (methods, sharpness, data):
        assert package.names() == sorted(package.names())
        assert package.names()
        assert not any(name.startswith("_") for name in package.names())
        for name in package.names():
            assert package.load(name)
    assert {"joint", "uniform", "unimodal"} <= set(methods.names())
    assert {"sam", "msam"} <= set(sharpness.names())
    assert {"avdigits", "dial"} <= set(data.names())


def test_every_part_loads_once_and_is_the_same_again():
    assert methods.load("joint") is methods.load("joint")
    assert methods.load("msam.methods.joint") is methods.load("joint")


def test_parts_from_outside_are_found_with_their_options(lab):
    method, rule, tiny = lab("scaled", METHOD), lab("mine", RULE), lab("tiny", DATASET)
    assert methods.load(method)(scale=3.0).scale == 3.0
    assert sharpness.load(rule).__name__ == "Mine"
    assert len(data.load(tiny)().train) == 40
    scale = options("method", method)["scale"]
    assert (scale.default, scale.range.gt, scale.help) == (2.0, 0, "of the loss, > 0.")
    made = config(method={"name": method, "scale": "4"}, sharpness=rule, data=tiny)
    assert made.method == {"name": method, "scale": 4.0}
    assert made.sharpness == {"name": rule, "rho": 0.1, "monitor": 0}
    assert made.run_name().startswith(f"{tiny}-late-{method}-{rule}-seed0-")
    with pytest.raises(ValueError, match=r"`method\.scale` must be > 0, received 0"):
        config(method={"name": method, "scale": 0})


def test_a_method_of_ones_own_is_checked_like_ours(lab):
    kind = methods.load(lab("scaled", METHOD))
    with pytest.raises(ValueError, match="`scale` must be > 0, received -1"):
        kind(scale=-1)


@pytest.mark.parametrize("load", [methods.load, sharpness.load])
def test_a_module_without_a_part_is_refused(lab, load):
    with pytest.raises(ValueError, match=r"my_lab\.empty must define exactly one final subclass of .*, found 0: \[\]"):
        load(lab("empty", "from msam.methods.joint import Joint\nfrom msam.sharpness.sam import SAM\n"))


def test_a_module_with_two_parts_is_refused(lab):
    second = METHOD + "\n    @dataclass(frozen=True)\n    class Other(Method):\n        pass\n"
    with pytest.raises(ValueError, match=r"exactly one .* of Method, found 2: \['Scaled', 'Other'\]"):
        methods.load(lab("double", second))
    second = RULE + "\n    class Second(Mine):\n        pass\n"
    with pytest.raises(ValueError, match=r"exactly one .* of Sharpness, found 2: \['Mine', 'Second'\]"):
        sharpness.load(lab("both", second))


def test_a_dataset_module_without_its_function_is_refused(lab):
    with pytest.raises(ValueError, match=r"my_lab\.nothing must define a function nothing\(\.\.\.\) -> Dataset"):
        data.load(lab("nothing", "other = 1\n"))


@pytest.mark.parametrize(
    ("load", "kind"), [(methods.load, "method"), (sharpness.load, "sharpness rule"), (data.load, "dataset")]
)
def test_unknown_names_are_refused(load, kind):
    with pytest.raises(ValueError, match=f"Unknown {kind} 'nonesuch'.* Known: "):
        load("nonesuch")
    with pytest.raises(ValueError, match=f"Unknown {kind} 'my_lab.none'.*must be an importable module"):
        load("my_lab.none")
    with pytest.raises(ValueError, match=f"Unknown {kind} '_base'"):
        load("_base")


@pytest.mark.parametrize("name", ["", ".", "..", ".joint", "joint.", "a..b", "../joint", "os.path"])
def test_odd_names_end_in_a_clear_error(name):
    with pytest.raises(ValueError, match=r"Unknown method|must define exactly one"):
        methods.load(name)


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match=r"Did you mean 'msam'\?"):
        sharpness.load("m-sam")
    with pytest.raises(ValueError, match=r"Did you mean 'avdigits'\?"):
        data.load("av_digits")


def test_imported_bases_and_abstract_classes_do_not_count():
    assert _registry.defined_class(sys.modules["msam.sharpness.msam"], sharpness.Sharpness).__name__ == "MSAM"
