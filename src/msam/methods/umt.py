"""UMT: uni-modal teachers, Du, Li, Liu, Wen, Hua, Wang and Zhao, arXiv 2021."""

import copy
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Passes, Run, Stage
from msam.methods._heads import head_losses, where_there
from msam.models import MultimodalModel
from msam.models.fusion import pooled
from msam.tasks import per_sample_loss
from msam.types import Batch, Output


def distance(taught: Tensor, feature: Tensor) -> Tensor:
    """Return the mean over elements of `(taught - feature)^2`, `(B,)`.

    >>> distance(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 4.0], [3.0, 4.0]]))
    tensor([ 2.0000, 12.5000])
    """
    return (taught - feature).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Umt(Method):
    """First unimodal nets, then the multimodal one, whose encoders are pulled to the features of the unimodal ones.

    Teachers: `L = sum_m CE(o_m, y)` with `o_m` a linear head added on `h_m = e_m(x_m)`. No parameter sees two modalities,
    so this is training each net alone, with the optimizer, schedule and batches of the run; the fusion does not train.
    Then `T_m` is the encoder as it ended, frozen and in evaluation mode. Student: from the weights the run began with, a
    fresh optimizer and the schedule from its start,

        L = CE(z, y) + weight * sum_m mean_i (T_m(x_m)_i - h_m,i)^2.

    A modality that the fused loss has stopped teaching still learns what it could by itself. The teacher gives no
    gradient; the pull on an encoder goes through `h_m` alone and leaves the fusion be. Teacher and student see the same
    batch, and where a sample lacks a modality (`Batch.present`) neither teaches nor is taught.

    The paper trains the teachers beforehand, from initial weights of their own; here they share the student's, in one run,
    whose record has their epochs marked `auxiliary`. They stop after a length given in advance, not at their best
    validation measure. Any fusion, any number of modalities. The heads are the teachers': they rest while the student
    trains, and the `head` measure of its epochs says how well a teacher's head reads the student's feature.

    Arguments:
        weight: of the pull, >= 0; at 0 there are no teachers and this is joint training. Not given for the datasets of the
            field: 10 is the value of a public re-implementation with the same mean over elements; worth tuning.
        teacher_length: epochs of the teachers as a multiple of the run's, > 0; rounded to whole epochs, at least one.

    >>> Umt(weight=0.0).passes(2) == Method().passes(2)
    True
    """

    about: ClassVar[About] = About(
        paper="Du, Li, Liu, Wen, Hua, Wang, Zhao, arXiv 2021",
        family="objective",
        changes="pulls each encoder's feature to that of a unimodal teacher",
        heads="one linear per modality for the teachers, and the teachers",
        neutral=("joint", {"weight": 0.0}),
        pairs="A sharpness rule trains the teachers too, with one climb of all and contributions of an untrained fusion.",
    )

    weight: Annotated[float, Range(ge=0), Search(0.5, 50.0, log=True)] = 10.0
    teacher_length: Annotated[float, Range(gt=0)] = 1.0

    def passes(self, modalities: int) -> Passes:
        """Return one pass for teachers' steps, one forward pass more (of the teachers) for the student's."""
        if not self.weight:
            return Passes()
        students = 1 / (1 + self.teacher_length)
        return Passes(forward=1 + students)

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a linear head per modality, for the teachers."""
        if self.weight:
            model.add_heads(num_classes)
        return model

    def stage(self, run: Run, k: int) -> Stage | None:
        """Return the teachers' stage, then the student's."""
        if not self.weight:
            return super().stage(run, k)
        if "teachers" not in run.state:
            network = run.network
            teachers = copy.deepcopy(network.encoders).requires_grad_(False)
            run.state["teachers"] = teachers.eval()
            run.state["initial"] = {"encoders": _copied(network.encoders), "fusion": _copied(network.fusion)}
        if k == 0:
            epochs = max(1, round(self.teacher_length * run.epochs))
            return Stage(epochs, roles=frozenset({"encoder", "head"}), auxiliary=True)
        return Stage(run.epochs, new_optimizer=True, schedule_from=0) if k == 1 else None

    def stage_end(self, run: Run) -> None:
        """Keep the encoders as teachers, and put the student's initial weights back."""
        if self._teaching(run):
            run.state["teachers"].load_state_dict(run.network.encoders.state_dict())
            run.network.encoders.load_state_dict(run.state["initial"]["encoders"])
            run.network.fusion.load_state_dict(run.state["initial"]["fusion"])
            run.state["initial"] = {}  # every checkpoint to come is smaller by a model

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the heads' losses for the teachers, the fused loss plus the pull for the student."""
        if self._teaching(run):
            return head_losses(run, output, batch).sum(0)
        fused = per_sample_loss(output.logits, batch.target)
        if not self.weight:
            return fused
        taught = run.once("taught", lambda: _taught(run.state["teachers"], batch))
        pulls = torch.stack([distance(pooled(taught[name]), pooled(h)) for name, h in output.features.items()])
        return fused + self.weight * where_there(pulls, batch).sum(0)

    def _teaching(self, run: Run) -> bool:
        return self.weight > 0 and run.stage == 0


@torch.no_grad()
def _taught(teachers: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
    return {name: teacher(batch.inputs[name]) for name, teacher in teachers.items()}


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}
