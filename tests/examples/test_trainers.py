"""Every trainer of examples/trainers does what the algorithm, written out by hand in one process, does."""

import re

import pytest
import torch

from tests.examples._by_hand import FOLDER, THIRD_PARTY, by_hand, example, weights

TWO_PROCESSES = ("ddp", "fsdp2")
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
BIT_FOR_BIT = 0.0
TO_ROUNDING = 1e-6


def close(found, expected, tolerance=BIT_FOR_BIT):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def different(found, expected):
    return any((a - b).abs().max() > 1e-4 for a, b in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def plain():
    return weights(example("plain").train())


def test_the_plain_loop_is_the_algorithm(plain):
    close(plain, by_hand())


def test_every_pass_is_one_forward_and_one_backward(monkeypatch):
    problem, counted = example("_problem"), {"forward": 0, "backward": 0}
    made, backward = problem.make_model, torch.Tensor.backward

    def make_model():
        model = made()
        model.register_forward_hook(lambda *_: counted.update(forward=counted["forward"] + 1))
        return model

    def counting(loss, *args, **options):
        counted["backward"] += 1
        assert not options.get("retain_graph")
        backward(loss, *args, **options)

    monkeypatch.setattr(example("plain"), "make_model", make_model)
    monkeypatch.setattr(torch.Tensor, "backward", counting)
    example("plain").train()
    steps = len(problem.make_batches()) * problem.EPOCHS
    assert counted == {"forward": 2 * steps, "backward": 2 * steps}


def test_micro_batches_add_up_to_the_batch(plain):
    close(weights(example("accumulation").train()), plain, TO_ROUNDING)


def test_clipping_and_a_schedule_apply_to_what_is_spent(plain):
    found = weights(example("clipping_and_schedule").train())
    close(found, by_hand(largest=0.5, schedule=True))
    assert different(found, plain)


def test_autocast_to_bfloat16_is_the_algorithm_under_autocast(plain):
    found = weights(example("bf16").train())
    close(found, by_hand(dtype=torch.bfloat16))
    assert different(found, plain)


def test_scaled_float16_is_the_algorithm_without_a_scale():
    close(weights(example("fp16_scaler").train()), by_hand(dtype=torch.float16, largest=5.0), TO_ROUNDING)


@pytest.mark.parametrize("overflowing", [1, 2])
def test_an_overflow_in_either_pass_is_one_skipped_step_and_weights_stay_clean(overflowing):
    problem, module = example("_problem"), example("fp16_scaler")
    model = problem.make_model()
    sharpness = module.msam.MSAM(problem.make_optimizer(model), rho=problem.RHO, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    passes = []

    def overflow(_, __, output):
        passes.append(1)
        return output._replace(logits=output.logits * torch.inf) if len(passes) == overflowing else None

    model.register_forward_hook(overflow)
    theta = [w.clone() for w in weights(model)]
    batches = problem.make_batches()
    module.step(model, sharpness, scaler, *batches[0])
    close(weights(model), theta)
    assert not sharpness.optimizer.state
    assert scaler.get_scale() == 2.0**9
    module.step(model, sharpness, scaler, *batches[1])
    assert scaler.get_scale() == 2.0**9
    assert different(weights(model), theta)


def test_a_compiled_model_trains_as_the_model_itself(plain):
    """With the backend "aot_eager", as compiling with inductor takes half a minute; the example's own default works too."""
    close(weights(example("compiled").train("aot_eager")), plain, TO_ROUNDING)


@pytest.mark.parametrize("name", ["fabric", "accelerate_loop", "lightning_automatic", "lightning_manual"])
@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_engines_change_nothing(name, plain):
    close(weights(example(name).train()), plain)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_the_trainer_of_transformers_changes_nothing_and_accumulates(micro_batches, plain):
    found = weights(example("huggingface_trainer").train(micro_batches))
    close(found, plain, BIT_FOR_BIT if micro_batches == 1 else TO_ROUNDING)


@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_lightning_clips_what_is_spent_under_manual_optimization():
    module = example("lightning_manual").Manual(largest=0.5)
    _fit(module)
    close(weights(module), by_hand(largest=0.5), TO_ROUNDING)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"accumulate_grad_batches": 2}, "added to gradients"), ({"scaler": True}, "without a closure")],
)
@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_where_lightning_keeps_a_pass_from_us_it_says_so(options, says):
    with pytest.raises(RuntimeError, match=says):
        _fit(example("lightning_automatic").Automatic(), **options)


@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_lightning_scales_both_passes_under_manual_optimization():
    module = example("lightning_manual").Manual()
    _fit(module, scaler=True)
    close(weights(module), by_hand(dtype=torch.float16), TO_ROUNDING)


def _fit(module, *, scaler=False, **options):
    if scaler:
        from pytorch_lightning.plugins import MixedPrecision

        options["plugins"] = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    loader = torch.utils.data.DataLoader(example("_problem").make_batches(), batch_size=None)
    example("lightning_automatic").make_trainer(**options).fit(module, loader)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in (*TWO_PROCESSES, "compiled")])
@pytest.mark.filterwarnings(*THIRD_PARTY)
def test_an_example_prints_what_it_did(name, capsys):
    example(name).main()
    assert re.search(r"^.*: loss 0\.\d{4} after 2 epochs$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_which_lines_matter_and_reads_in_a_sitting(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert "numbered lines" in example(name).__doc__
    numbers = [int(n) for n in re.findall(r"  # (\d)$", text, re.M)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(text.splitlines()) <= 100
