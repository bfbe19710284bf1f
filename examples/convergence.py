"""Section 3.6 of the paper, corrected and run: M-SAM with step and radius falling as 1 / sqrt(t) converges, and how fast.

    python examples/convergence.py --steps 3000 --out convergence.png

The problem is smooth with known constants: softmax regression on two modalities, full batch. With `Z` the features of all
`n` samples (ones for the biases among them), the gradient of the loss is `K`-Lipschitz with `K = lambda_max(Z' Z / n) / 2`
and no longer than `G = 2 sqrt(K)`, since it is `Z' (p - y) / n` and `||p - y||^2 <= 2` for every sample.

With `u_t = (1 - s_t) g_t + s_t grad L(theta_t + eps_t)` the descent lemma gives (the printed Eq. 13 has rho_t squared, and
analyses a step that is all second gradient; here the step is the algorithm's own)

    eta_t ||g_t||^2 <= L_t - L_{t+1} + eta_t s_t K rho_t G + eta_t^2 K G^2 / 2,

since `||u_t - g_t|| <= s_t K rho_t` and `||u_t|| <= G`. Summed, with eta_t = eta_0 / sqrt(t), rho_t = rho_0 / sqrt(t):

    1/T sum ||g_t||^2  <=  (L_1 + K G eta_0 rho_0 sum s_t / t + K G^2 eta_0^2 / 2 sum 1 / t) / (eta_0 sqrt(T))

for any loss `>= 0`, which is of the order log(T) / sqrt(T), whichever modality dominates.
"""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import msam
from msam.models import MultimodalModel, SumFusion

SAMPLES, SIZES, CLASSES = 600, {"audio": 12, "image": 8}, 5
RHO = 0.2


class Curves(NamedTuple):
    """What a run shows, a value for every step `t = 1 .. T`.

    Attributes:
        mean: running mean of the squared gradient norms, `1/t sum ||g||^2`.
        bound: what theory allows it to be.
        rate: `log(t) / sqrt(t)`, at the height of the mean in the end.
        dominant: positions of the dominant modalities.
    """

    mean: Tensor
    bound: Tensor
    rate: Tensor
    dominant: list[int]


def problem() -> tuple[MultimodalModel, dict[str, Tensor], Tensor]:
    """Return a softmax regression, inputs whose directions differ in scale by a hundred, and noisy classes; in float64."""
    made = torch.Generator().manual_seed(0)
    inputs, scores = {}, torch.zeros(SAMPLES, CLASSES, dtype=torch.float64)
    for name, size in SIZES.items():
        scales = torch.logspace(0, -2, size, dtype=torch.float64)
        inputs[name] = scales * torch.randn(SAMPLES, size, generator=made, dtype=torch.float64)
        scores += (inputs[name] / scales) @ torch.randn(size, CLASSES, generator=made, dtype=torch.float64) / 2
    target = torch.multinomial(scores.softmax(1), 1, generator=made).squeeze(1)
    fusion = SumFusion(SIZES, CLASSES)
    for p in fusion.parameters():
        nn.init.zeros_(p)
    return MultimodalModel({name: nn.Identity() for name in SIZES}, fusion).double(), inputs, target


def constants(inputs: dict[str, Tensor]) -> tuple[float, float]:
    """Return `K` and `G`. Both heads have a bias, so that a sample's features hold two ones."""
    rows = torch.cat([*inputs.values(), torch.ones(SAMPLES, len(inputs), dtype=torch.float64)], 1)
    smoothness = float(torch.linalg.eigvalsh(rows.T @ rows / SAMPLES)[-1]) / 2
    return smoothness, 2 * math.sqrt(smoothness)


def run(steps: int) -> Curves:
    """Train by M-SAM with eta_t, rho_t ~ 1 / sqrt(t) and return measured and allowed means."""
    model, inputs, target = problem()
    smoothness, largest = constants(inputs)
    eta = 0.3 / smoothness
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)
    sharpness = msam.MSAM(optimizer, rho=RHO, rho_schedule="inverse_sqrt")
    squares, shares, dominant, first_loss = [], [], [], 0.0
    for t in range(steps):
        optimizer.zero_grad()
        output = model(inputs)
        loss = nn.functional.cross_entropy(output.logits, target)
        loss.backward()
        first_loss = first_loss or float(loss.detach())
        squares.append(sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None))
        contributions = msam.shapley.contributions(msam.shapley.coalition_logits(model, output.features), target)
        with sharpness.perturbed(contributions):
            nn.functional.cross_entropy(model(inputs).logits, target).backward()
        optimizer.step()
        schedule.step()
        shares.append(sharpness.last["share"])
        dominant.append(int(contributions.argmax()))
        assert math.isclose(sharpness.last["radius"], RHO / math.sqrt(t + 1))
    number = torch.arange(1, steps + 1, dtype=torch.float64)
    climbs, moves = (torch.tensor(shares) / number).cumsum(0), (1 / number).cumsum(0)
    allowed = first_loss + smoothness * largest * eta * RHO * climbs + smoothness * largest**2 * eta**2 / 2 * moves
    mean = torch.tensor(squares, dtype=torch.float64).cumsum(0) / number
    rate = number.log() / number.sqrt()
    return Curves(mean, allowed / (eta * number.sqrt()), rate * mean[-1] / rate[-1], dominant)


def slope(mean: Tensor) -> float:
    """Return the slope of a curve over steps in a double logarithmic plot, fitted to its last nine tenths."""
    number = torch.arange(1, len(mean) + 1, dtype=torch.float64)
    x, y = number[len(mean) // 10 :].log(), mean[len(mean) // 10 :].log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x**2).sum())


def main() -> None:
    """Run, print what was found, and draw it."""
    parser = argparse.ArgumentParser(description="M-SAM converges, and how fast")
    parser.add_argument("--steps", type=int, default=3000, help="steps of training, at least 10")
    parser.add_argument("--out", type=Path, default=Path("convergence.png"), help="where the picture goes")
    given = parser.parse_args()
    curves = run(given.steps)
    print(f"mean squared gradient norm {curves.mean[-1]:.2e} after {given.steps} steps, bound {curves.bound[-1]:.2e}")
    print(f"bound / mean {curves.bound[-1] / curves.mean[-1]:.0f}, slope {slope(curves.mean):.2f}")

    import matplotlib.pyplot as plt

    number = range(1, given.steps + 1)
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.loglog(number, curves.bound, label="bound", color="tab:gray", linestyle="--")
    axes.loglog(number[1:], curves.rate[1:], label="log T / sqrt T, at the height of the last mean", color="tab:orange")
    axes.loglog(number, curves.mean, label="mean squared gradient norm", color="tab:blue")
    axes.set(
        xlabel="steps T", ylabel="1/T sum of squared gradient norms", title="M-SAM with step and radius ~ 1 / sqrt(t)"
    )
    axes.legend()
    figure.savefig(given.out, dpi=150)
    print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
