"""Image and text, with small transformers made from configurations of Hugging Face's; nothing is downloaded.

    python examples/modalities/image_text.py

The model is one that nobody here wrote: it takes keywords and returns a mapping. `msam.adapt` says which inputs are which
modality's; M-SAM and contributions then take it as it is. The data are made up: a bright patch at one of four places, and a
caption of eight words one of which, in three captions of four, names the place.
"""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

import msam
from _loop import say, scores, train
from msam.data import TensorSplit

PLACES, WORDS, LENGTH, SIDE = 4, 40, 8, 16
EPOCHS, RHO, WIDTH = 6, 0.05, 32
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
INPUTS = {"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]}


class Pair(nn.Module):
    """A classifier of an image and its caption, as one finds it elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = ViTModel(ViTConfig(**SMALL, image_size=SIDE, patch_size=4, num_channels=1))
        self.language = BertModel(BertConfig(**SMALL, vocab_size=WORDS, max_position_embeddings=LENGTH))
        self.classifier = nn.Linear(2 * WIDTH, PLACES)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return `{"logits": (B, 4)}`."""
        seen = self.vision(pixel_values).pooler_output
        read = self.language(input_ids, attention_mask=attention_mask).pooler_output
        return {"logits": self.classifier(torch.cat([seen, read], dim=1))}


def captioned(samples: int, seed: int) -> TensorSplit:
    """Return images `(B, 1, 16, 16)` and captions `(B, 8)` of words 1 .. 39; 0 is no word, 1 to 4 are places."""
    made = torch.Generator().manual_seed(seed)
    place = torch.randint(PLACES, (samples,), generator=made)
    image = torch.randn(samples, 1, SIDE, SIDE, generator=made)
    text = torch.randint(1 + PLACES, WORDS, (samples, LENGTH), generator=made)
    length = torch.randint(3, LENGTH + 1, (samples, 1), generator=made)
    half = SIDE // 2
    for row, at in enumerate(place.tolist()):
        image[row, 0, half * (at // 2) :, half * (at % 2) :][:half, :half] += 0.5
    named = torch.rand(samples, generator=made) < 0.75
    where = (torch.rand(samples, 1, generator=made) * length).long()
    text.scatter_(1, where, torch.where(named, 1 + place, text.gather(1, where)[:, 0])[:, None])
    mask = (torch.arange(LENGTH) < length).long()
    return TensorSplit({"pixel_values": image, "input_ids": text * mask, "attention_mask": mask}, place)


def make() -> msam.Adapted:
    """Return the model, adapted; an absent caption is one of no words, to whose padding the model may attend."""
    torch.manual_seed(0)
    keep = {"attention_mask": torch.ones_like}
    return msam.adapt(Pair(), INPUTS, absent=keep, encoders={"image": "vision", "text": "language"})


def main() -> tuple[dict[str, float], dict[str, float]]:
    """Train with M-SAM; print and return the accuracy of every set of modalities, and contributions."""
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    train(model, optimizer, captioned(1200, seed=1), epochs=EPOCHS, rho=RHO, absent="input")
    found, shares = scores(model, captioned(600, seed=2), absent="input")
    say("accuracies", found)
    say("contributions", shares)
    return found, shares


if __name__ == "__main__":
    main()
