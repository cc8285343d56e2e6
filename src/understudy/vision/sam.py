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
from understudy.files.spec import shown
from understudy.models.folder import read_json
from understudy.pictures.photo import Pixels
from understudy.pictures.tensors import to_tensor
from understudy.vision.network_configs import BACKBONE, SAM, used_config
from understudy.vision.weights import load_network

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
        if not logits.isfinite().all():
            raise ModelError("The SAM 2 model gives numbers that are not finite: damaged weights.")
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return torch.sigmoid(logits)[0, 0].cpu().numpy()

    def _prepared(self, pixels: Pixels) -> Float[Tensor, "1 3 a b"]:
        share = (to_tensor(pixels) + 1) / 2
        share = F.interpolate(share, self.size, mode="bilinear", antialias=True)
        mean, deviation = (torch.tensor(v)[None, :, None, None] for v in (MEAN, DEVIATION))
        return (share - mean) / deviation


def load_sam(folder: Path) -> Sam:
    """A Sam2Model's folder. Raises ModelError when it is none, or incomplete."""
    from transformers import Sam2Config, Sam2Model

    if not (folder / "config.json").is_file():
        raise ModelError(
            f"--sam {folder} is not a SAM 2 model folder (it has no config.json). Download one, "
            "like facebook/sam2.1-hiera-tiny, and give its folder."
        )
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ("sam2", "sam2_video"):
        raise ModelError(f"{folder} is a {shown(kind)} model. Expected one of type 'sam2'.")
    used = used_config(folder / "config.json", config, SAM)
    used["vision_config"]["backbone_config"]["model_type"] = BACKBONE  # the library asks for it
    side = int(used["prompt_encoder_config"].get("image_size", 1024))
    # One call with everything that mask() may tell the network.
    example = {
        "pixel_values": torch.zeros(1, 3, side, side, device="meta"),
        "input_points": torch.zeros(1, 1, 1, 2, device="meta"),
        "input_labels": torch.ones(1, 1, 1, dtype=torch.int64, device="meta"),
        "input_boxes": torch.zeros(1, 1, 4, device="meta"),
    }
    return Sam(load_network(Sam2Model, Sam2Config, used, folder, example), (side, side))
