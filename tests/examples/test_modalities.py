"""Examples of models of several modalities: what their data make true by construction is what they find."""

import importlib
import re
import sys

import pytest
import torch

from tests.examples._by_hand import FOLDER as TRAINERS

FOLDER = TRAINERS.parent / "modalities"
if str(FOLDER) not in sys.path:  # as scripts in one folder import one another
    sys.path.append(str(FOLDER))
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def example(name):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def sensors():
    return example("sensors").main()


@pytest.fixture(scope="module")
def missing():
    return example("missing").main()


@pytest.fixture(scope="module")
def digits():
    return example("avdigits").main()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The model before and after its fusion was trained, and how its encoders were left."""
    module, folder = example("frozen"), tmp_path_factory.mktemp("weights")
    data = module.data.load("avdigits")(seed=0)
    module.pretrain(data, folder)
    model = module.assemble(data, folder)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rule = module.fuse(model, data)
    return module, data, model, before, rule


@pytest.fixture(scope="module")
def captions():
    return example("image_text").main()


def test_no_sensor_knows_alone_and_all_together_do(sensors):
    found, shares = sensors
    assert len(found) == 7
    assert all(
        value < 0.75 + 0.05 for name, value in found.items() if "+" not in name
    )  # two activities look alike to each
    assert found["accelerometer+gyroscope+pulse"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0.05


def test_signals_are_what_the_table_says():
    module = example("sensors")
    split = module.signals(400, seed=5)
    pulse = 100 + 30 * split.inputs["pulse"].mean((1, 2))
    for kind, name in enumerate(module.ACTIVITIES):
        rows = split.target == kind
        assert pulse[rows].mean() == pytest.approx(float(module.PULSE[kind]), abs=5), name
        for sensor, rate in (("accelerometer", module.BOUNCE), ("gyroscope", module.ROTATION)):
            power = torch.fft.rfft(split.inputs[sensor][rows]).abs().square().mean((0, 1))[1:]
            if rate[kind] > 0:  # bins are a quarter of a hertz apart
                assert abs((1 + int(power.argmax())) / module.SECONDS - float(rate[kind])) <= 0.3
            else:
                assert power.max() < 2 * power.mean()


def test_who_trained_with_gaps_bears_them(missing):
    complete, gaps = missing.values()
    for name in ("accelerometer", "gyroscope", "pulse"):
        assert gaps[f"without {name}"] > complete[f"without {name}"] + 0.05
        assert gaps[f"without {name}"] > 0.8  # any two sensors tell all activities apart
    assert gaps["without nothing"] > 0.9


def test_gaps_leave_every_sample_something_and_half_of_them_all():
    present = example("missing").gaps(400, 3, seed=0)
    assert present.any(1).all()
    assert present[:200].all()
    assert 0.4 < present[200:].double().mean() < 0.75  # 4 of 7 coalitions hold a given sensor
    assert len({tuple(row.tolist()) for row in present}) == 7


def test_the_audio_sleeps_in_the_joint_model(digits):
    assert digits["audio alone"]["audio"] > digits["joint"]["audio"] + 0.15
    assert digits["image alone"]["image"] > digits["joint"]["image"]
    for title in ("joint", "M-SAM"):
        assert digits[title]["audio+image"] > max(digits["audio alone"]["audio"], digits["image alone"]["image"])


def test_frozen_encoders_stay_bit_for_bit_and_the_fusion_learns(frozen, digits):
    module, data, model, before, rule = frozen
    after = model.state_dict()
    for key, value in before.items():
        assert torch.equal(after[key], value) == key.startswith("encoders."), key
    assert rule.last["radius"] > 0
    found, _ = module.scores(model, data.test)
    assert found["audio"] > digits["joint"]["audio"] + 0.1  # nothing it knew is lost
    assert found["audio+image"] > digits["joint"]["audio+image"]


def test_a_caption_says_the_place_in_three_of_four(captions):
    found, shares = captions
    assert 0.6 < found["text"] < 0.75 + 0.25 / 4 + 0.05
    assert found["image+text"] > found["text"]
    assert shares["text"] > shares["image"] > 0.05


def test_captions_are_what_they_are_said_to_be():
    module = example("image_text")
    split = module.captioned(800, seed=3)
    text, mask, place = split.inputs["input_ids"], split.inputs["attention_mask"], split.target
    assert ((text > 0) == (mask == 1)).all()
    named = ((text >= 1) & (text <= module.PLACES)).sum(1)
    assert set(named.tolist()) == {0, 1}
    assert named.double().mean() == pytest.approx(0.75, abs=0.05)
    rows = named == 1
    assert torch.equal(text[rows].where(text[rows] <= module.PLACES, 0).sum(1) - 1, place[rows])
    quarters = torch.nn.functional.avg_pool2d(split.inputs["pixel_values"], module.SIDE // 2).flatten(1)
    assert (quarters.argmax(1) == place).double().mean() > 0.97  # of 0.993


@pytest.mark.parametrize("name", NAMES)
def test_an_example_tells_how_to_run_it_and_reads_in_a_sitting(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert f"python examples/modalities/{name}.py" in example(name).__doc__
    assert len(text.splitlines()) <= 120
    assert re.search(r'\nif __name__ == "__main__":\n    main\(\)\n$', text)


def test_each_sensor_explains_the_number_it_knows_and_both_explain_both():
    found, shares = example("flight").main()
    assert all(0.4 < found[name] < 0.55 for name in ("camera", "microphone"))
    assert found["camera+microphone"] > 0.95
    assert all(0.4 < share < 0.6 for share in shares.values())


def test_numbers_of_flights_are_standardised_and_known_to_one_sensor_each():
    module = example("flight")
    split = module.flights(4000, seed=3)
    torch.testing.assert_close(split.target.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(split.target.std(0), torch.ones(2), atol=0.05, rtol=0)
    low, high = module.SPEED
    speed = low + (high - low) * (split.target[:, 1] / 12**0.5 + 0.5)
    pitch = torch.fft.rfft(split.inputs["microphone"][:, 0]).abs()[:, 1:].argmax(1) + 1
    assert ((pitch / module.SECONDS - speed).abs() < 1.5).double().mean() > 0.95
    size = split.inputs["camera"].sum((1, 2, 3))
    assert torch.corrcoef(torch.stack([size, split.target[:, 0]]))[0, 1] < -0.85


def test_each_modality_knows_the_keys_it_can_and_both_know_all():
    found, shares = example("piano").main()
    most = (8 + 4 * 0.75) / 12  # a key of which nothing is known is up in three cases of four
    assert all(most - 0.05 < found[name] < most + 0.02 for name in ("camera", "microphone"))
    assert found["camera+microphone"] > 0.98
    assert all(0.4 < share < 0.6 for share in shares.values())


def test_the_camera_sees_nothing_of_the_hidden_keys_and_the_microphone_hears_nothing_of_the_lowest():
    module = example("piano")
    split = module.played(2000, seed=3)
    keys = split.inputs["camera"][:, 0].mean(1).view(-1, module.KEYS, module.KEY_PIXELS).mean(2)
    strengths = split.inputs["microphone"][:, module.FREQUENCIES.round().long()]
    for values, blind in ((keys, module.HIDDEN), (strengths, module.UNHEARD)):
        apart = [
            (values[split.target[:, k], k].mean() - values[~split.target[:, k], k].mean()) / values[:, k].std()
            for k in range(module.KEYS)
        ]
        assert all(abs(apart[k]) < 0.3 for k in blind)
        assert all(apart[k] > 1 for k in range(module.KEYS) if k not in blind)
