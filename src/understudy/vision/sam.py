"""SAM 2 (Ravi et al. 2024, arXiv:2408.00714) from a folder: points and a box to a mask.

The folder is one that transformers' Sam2Model.save_pretrained writes. Pictures are prepared here,
because transformers' own processor needs torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ModelError
from understudy.models.folder import read_json
from understudy.models.network_configs import refuse_foreign
from understudy.models.weight_files import entries
from understudy.pictures.photo import Pixels
from understudy.pictures.tensors import to_tensor
from understudy.vision.encoders import network_of

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on [0, 1]


@dataclass(frozen=True)
class Sam:
    """A SAM 2 network. size: height and width of the pictures it reads."""

    network: Any
    size: tuple[int, int]

    @torch.no_grad()
    def mask(
        self,
        pixels: Pixels,
        points: Sequence[tuple[float, float]],
        box: tuple[float, float, float, float] | None,
    ) -> Float[np.ndarray, "h w"]:
        """The mask in [0, 1] that the network rates best, of the picture's size.

        points: x, y on the subject; box: x, y, width, height; in pixels of the picture.
        """
        height, width = pixels.shape[:2]
        down, across = self.size[0] / height, self.size[1] / width
        told: dict[str, Tensor] = {}
        if points:
            places = [[x * across, y * down] for x, y in points]
            told["input_points"] = torch.tensor([[places]], dtype=torch.float32)
            told["input_labels"] = torch.ones(1, 1, len(points), dtype=torch.int64)
        if box is not None:
            x, y, w, h = box
            corners = [x * across, y * down, (x + w) * across, (y + h) * down]
            told["input_boxes"] = torch.tensor([[corners]], dtype=torch.float32)
        device = self.network.device
        found = self.network(
            pixel_values=self._prepared(pixels).to(device, self.network.dtype),
            **{name: value.to(device) for name, value in told.items()},
        )
        best = int(found.iou_scores[0, 0].argmax())
        logits = found.pred_masks[:1, 0, best][None].float()
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return torch.sigmoid(logits)[0, 0].cpu().numpy()

    def _prepared(self, pixels: Pixels) -> Float[Tensor, "1 3 a b"]:
        share = (to_tensor(pixels) + 1) / 2
        share = F.interpolate(share, self.size, mode="bilinear", antialias=True)
        mean, deviation = (torch.tensor(v)[None, :, None, None] for v in (MEAN, DEVIATION))
        return (share - mean) / deviation


def load_sam(folder: Path) -> Sam:
    """A Sam2Model's folder. Raises ModelError when it is none, or incomplete."""
    from transformers import Sam2Model

    if not (folder / "config.json").is_file():
        raise ModelError(
            f"--sam {folder} is no folder of a SAM 2 model (it has no config.json). Download one, "
            "like facebook/sam2.1-hiera-tiny, and give its folder."
        )
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ("sam2", "sam2_video"):
        raise ModelError(f"{folder} is a {kind!r} model. Wanted one of type 'sam2'.")
    refuse_foreign(folder / "config.json", config)
    entries(folder)
    network = network_of(Sam2Model, folder)
    side = network.config.prompt_encoder_config.image_size
    return Sam(network, (int(side), int(side)))
