"""M-SAM whose modalities have losses that differ: contributions of every sample, or a loss of one's own."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import msam
from msam import shapley
from tests.definitions import msam_options
from tests.definitions import shapley as slow_shapley
from tests.sharpness._flat import close, flat, gradient_of, spent
from tests.sharpness._modal import NAMES, SHARES, batch, by_block, in_one_call, losses, members, model_of, rule_of

RHO = 0.4
SPLIT = [{"weighting": "sample"}, {"loss": "response"}, {"loss": "masked"}, {"weighting": "sample", "loss": "response"}]


class Coalitions(nn.Module):
    """The model as the slow edition looks at it: logits of every set of modalities."""

    def __init__(self, model: msam.MultimodalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: dict[str, Tensor]) -> dict[frozenset[int], Tensor]:
        features = self.model.encode(x)
        names = self.model.modalities
        subsets = [frozenset(i for i in range(len(names)) if mask >> i & 1) for mask in range(1, 2 ** len(names))]
        return {
            s: self.model.fuse({n: features[n] if i in s else 0 * features[n] for i, n in enumerate(names)})
            for s in subsets
        }


def weights_of(model: msam.MultimodalModel, t: int, weighting: str) -> Tensor:
    x, y = batch(t)
    logits = shapley.coalition_logits(model, copy.deepcopy(model)(x).features)
    return shapley.contributions(logits, y, reduction="none" if weighting == "sample" else "batch")


def literal(model: msam.MultimodalModel, fusion: str, t: int, *, weighting="batch", loss="weighted", scope="all"):
    """Return the gradient that the slow edition spends at the model's weights."""
    x, y = batch(t)
    nu = weights_of(model, t, weighting)
    count = len(nu)
    mean = nu.mean(1) if weighting == "sample" else nu
    d = int(mean.argmax())
    twin = Coalitions(copy.deepcopy(model))

    def of_modality(m: int):
        def found(forward) -> Tensor:
            logits = forward(x)
            if loss == "response":
                z = slow_shapley.values(logits, count)[m]
            else:
                z = logits[frozenset({m} if loss == "masked" else range(count))]
            return (nu[m] * nn.functional.cross_entropy(z, y, reduction="none")).mean()

        return found

    return msam_options.split(
        gradient_of(twin, of_modality(d)),
        gradient_of(twin, lambda forward: sum(of_modality(m)(forward) for m in range(count) if m != d)),
        flat(model),
        members(model, fusion, scope, NAMES[d]),
        RHO,
    )


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("scope", ["all", "dominant", "dominant+fusion"])
@pytest.mark.parametrize("fusion", ["sum", "concat", "maxout"])
@pytest.mark.parametrize("options", SPLIT, ids=str)
def test_one_call_equals_the_slow_edition(options, fusion, scope, modalities):
    rule = rule_of(model_of(fusion, modalities), scope=scope, **options)
    for t in range(2):
        expected = literal(rule.model, fusion, t, scope=scope, **options)
        in_one_call(rule, weights_of(rule.model, t, options.get("weighting", "batch")), t)
        close(spent(rule.model), expected)
        rule.optimizer.step()
    assert rule.last["radius"] == RHO


def climbed(options: dict, shares, fusion: str = "maxout") -> tuple[Tensor, Tensor]:
    """Return how far the weights climb, and the gradient of the whole loss."""
    rule, places = rule_of(model_of(fusion), **options), []
    theta, twin = flat(rule.model), copy.deepcopy(rule.model)
    x, y = batch()
    losses(twin(x), y).mean().backward()

    def seen(output, target):
        places.append(flat(rule.model) - theta)
        return losses(output, target)

    in_one_call(rule, shares(rule.model) if callable(shares) else shares, loss=seen)
    return places[-1], spent(twin)


@pytest.mark.parametrize(("options", "parallel"), [({}, True), *[(chosen, False) for chosen in SPLIT]], ids=str)
def test_the_climb_is_parallel_to_the_gradient_only_where_losses_are_multiples_of_one(options, parallel):
    weighting = options.get("weighting", "batch")
    eps, gradient = climbed(options, lambda model: weights_of(model, 0, weighting))
    cosine = float(eps @ gradient / (eps.norm() * gradient.norm()))
    assert float(eps.norm()) == pytest.approx(RHO)
    assert (cosine > 1 - 1e-9) is parallel
    assert parallel or cosine < 0.9999


@pytest.mark.parametrize("loss", ["response", "masked"])
def test_with_heads_of_their_own_a_modalitys_loss_moves_no_other_encoder(loss):
    eps, _ = climbed({"loss": loss}, [0.3, 0.7], fusion="sum")
    assert not eps[members(model_of("sum"), "sum", "dominant", "audio")].any()
    assert eps[members(model_of("sum"), "sum", "dominant", "image")].any()


def test_contributions_that_every_sample_shares_are_those_of_the_batch():
    found, shares = [], torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    for options, given in (({}, shares[:, 0]), ({"weighting": "sample"}, shares.expand(2, 10))):
        rule = rule_of(model_of("maxout"), **options)
        in_one_call(rule, given)
        found.append(spent(rule.model))
    close(*found)


def test_a_modality_that_does_everything_in_every_sample_makes_it_sam():
    rule, twin = rule_of(model_of("maxout"), weighting="sample"), model_of("maxout")
    in_one_call(rule, torch.tensor([[0.0], [1.0]]).expand(2, 10))
    sam = msam.SAM(torch.optim.SGD(twin.parameters(), lr=0.1), RHO, model=twin)
    x, y = batch()
    sam.backward(twin, x, lambda output: losses(output, y))
    close(spent(rule.model), spent(twin))


@pytest.mark.parametrize("options", SPLIT, ids=str)
class TestForms:
    def shares(self, options: dict) -> Tensor:
        shares = torch.tensor(SHARES[2], dtype=torch.float64)
        return shares.unsqueeze(1).expand(2, 10) if options.get("weighting") == "sample" else shares

    def test_a_block_and_the_closure_form_are_refused_with_the_way_out(self, options):
        rule = rule_of(model_of("sum"), **options)
        theta = flat(rule.model)
        with pytest.raises(RuntimeError, match=r"Use `sharpness\.backward\(model"):
            by_block(rule, SHARES[2])
        with pytest.raises(RuntimeError, match=r"Use `sharpness\.backward\(model"):
            rule.as_optimizer()
        assert torch.equal(flat(rule.model), theta)

    @pytest.mark.parametrize("more", [{"share": "one"}, {"share": 0.5}, {"compensate": True}, {"every": 2}], ids=str)
    def test_options_that_blend_whole_gradients_exclude_it(self, options, more):
        with pytest.raises(ValueError, match="do not go with them"):
            rule_of(model_of("sum"), **options, **more)

    def test_statistics_are_counted_once_the_fusions_too(self, options):
        rule = rule_of(model_of("normalised maxout"), **options)
        once = copy.deepcopy(rule.model)
        once(batch()[0])
        in_one_call(rule, self.shares(options))
        for mine, other in zip(rule.model.buffers(), once.buffers(), strict=True):
            assert torch.equal(mine, other)
        assert all(m.training and m.track_running_stats for m in rule.model.modules() if isinstance(m, nn.BatchNorm1d))

    @pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()], ids=repr)
    def test_after_an_exception_weights_are_back_and_the_gradient_is_that_of_theta(self, options, error):
        rule, flat_rule = rule_of(model_of("maxout"), **options), rule_of(model_of("maxout"), rho=0.0, **options)
        in_one_call(flat_rule, self.shares(options))
        theta = flat(rule.model)

        def failing(output, target):
            if rule.slots.taken:
                raise error
            return losses(output, target)

        with pytest.raises(type(error)):
            in_one_call(rule, self.shares(options), loss=failing)
        assert torch.equal(flat(rule.model), theta)
        close(spent(rule.model), spent(flat_rule.model))

    def test_it_needs_contributions(self, options):
        with pytest.raises(ValueError, match="needs the contributions"):
            in_one_call(rule_of(model_of("sum"), **options), None)

    def test_replay_drops_the_same_in_both_passes(self, options):
        rule, masks = rule_of(model_of("sum", dropout=0.5), rng="replay", **options), []
        rule.model.encoders["audio"][3].register_forward_hook(lambda _m, _x, out: masks.append(out == 0))
        in_one_call(rule, self.shares(options))
        assert len(masks) == 2
        assert torch.equal(*masks)


@pytest.mark.parametrize(
    "shares",
    [
        torch.tensor([0.3, 0.7]),
        torch.full((2, 9), 0.5),
        torch.full((3, 2, 10), 0.5),
        torch.full((2, 10), 0.4),
        torch.tensor([[-0.5], [1.5]]).expand(2, 10),
        torch.full((2, 10), math.nan),
        torch.tensor([[1.5, *[0.5] * 9], [-0.5, *[0.5] * 9]]),
        torch.tensor([[0.9, 0.1, *[0.5] * 8], [0.5, 0.5, *[0.5] * 8]]),
    ],
    ids=["batch", "other size", "three axes", "sum", "negative", "nan", "one negative", "one other sum"],
)
def test_contributions_that_are_none_of_every_sample_are_refused_before_anything_changes(shares):
    rule = rule_of(model_of("sum"), weighting="sample")
    theta = flat(rule.model)
    with pytest.raises(ValueError, match="contributions"):
        in_one_call(rule, shares)
    assert torch.equal(flat(rule.model), theta)
    assert not any(p.grad is not None for p in rule.model.parameters())


def test_contributions_of_every_sample_cannot_be_kept_for_other_samples():
    with pytest.raises(ValueError, match="`contributions_every` must be 1"):
        rule_of(model_of("sum"), weighting="sample", contributions_every=2)


def test_where_modalities_have_losses_contributions_may_be_kept():
    rules = [rule_of(model_of("maxout"), loss="response", contributions_every=n) for n in (1, 2)]
    for shares in (SHARES[2], None):
        in_one_call(rules[0], SHARES[2])
        in_one_call(rules[1], shares)
        close(*[spent(rule.model) for rule in rules])


def test_contributions_of_every_sample_serve_where_those_of_the_batch_do():
    rules = [rule_of(model_of("maxout"), loss="response") for _ in range(2)]
    each = weights_of(rules[0].model, 0, "sample")
    in_one_call(rules[0], each)
    in_one_call(rules[1], each.mean(1))
    close(*[spent(rule.model) for rule in rules])


@pytest.mark.parametrize("option", ["weighting", "loss"])
def test_a_word_that_is_none_is_refused(option):
    with pytest.raises(ValueError, match=f"Unknown {option} 'wieghted'"):
        rule_of(model_of("sum"), **{option: "wieghted"})
