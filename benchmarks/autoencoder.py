"""How well the built-in model's autoencoder rebuilds held-out pictures."""

from __future__ import annotations

import torch

from benchmarks import cases
from benchmarks.rows import Row
from understudy.evaluate import truth
from understudy.models.interface import DiffusionModel
from understudy.pictures import metrics

COLUMNS = ("PSNR, dB", "SSIM", "PSNR on the subject, dB")


def rebuilding(model: DiffusionModel, number: int) -> Row:
    """Encode and decode held-out picture `number`."""
    known = truth.shown(cases.scene(number))
    with torch.no_grad():
        rebuilt = model.decode(model.encode(known.picture))
    return {
        "PSNR, dB": metrics.psnr(rebuilt, known.picture).item(),
        "SSIM": metrics.ssim(rebuilt, known.picture).item(),
        "PSNR on the subject, dB": metrics.psnr(rebuilt, known.picture, known.mask).item(),
    }
