"""How near a picture is to the right answer: pure functions of batches, one number per picture.

Pictures are RGB in [-1, 1], masks 1 inside, points (x, y) in pixels. Features are unit vectors
from whatever looks at the pictures: the recogniser's identity embedding in the toy world, DINO or
CLIP for photographs. The functions know nothing of models, scenes or files.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import InputError

PEAK = 2.0  # from -1 to 1
Distance = Callable[[Tensor, Tensor], Tensor]  # of two batches of pictures, a number a pair


def psnr(
    ours: Float[Tensor, "b 3 h w"],
    truth: Float[Tensor, "b 3 h w"],
    where: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / MSE), the error weighted by `where`.

    Equal pictures give infinity; a `where` that is empty gives NaN: there is nothing to compare.
    """
    _same_shape(ours, truth)
    error = (ours - truth).double().square().mean(dim=1, keepdim=True)
    weight = torch.ones_like(error) if where is None else where.to(error)
    mse = (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    return (10 * torch.log10(PEAK**2 / mse)).float()


def background_psnr(
    edited: Float[Tensor, "b 3 h w"],
    source: Float[Tensor, "b 3 h w"],
    changed: Float[Tensor, "b 1 h w"],
) -> Float[Tensor, " b"]:
    """PSNR in dB outside the region that the edit was allowed to change (1 in `changed`).

    Its ceiling is the same number for the autoencoder's own rebuilding of the source: no edit
    that passes through the latent can be expected to keep more.
    """
    return psnr(edited, source, 1 - changed)


def region_error(
    ours: Float[Tensor, "b 3 h w"],
    truth: Float[Tensor, "b 3 h w"],
    where: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Root of the mean squared error in the region `where`, black to white being 1.

    0 = equal there; a `where` that is empty gives NaN.
    """
    return 10 ** (-psnr(ours, truth, where) / 20)


def ssim(
    ours: Float[Tensor, "b 3 h w"],
    truth: Float[Tensor, "b 3 h w"],
    where: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Structural similarity (Wang et al. 2004, eq. 13), mean over pixels and colour channels.

    Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, windows wholly inside the
    picture only, as the authors' code does. The side must be at least 11 pixels. With `where`, the
    mean is weighted by its value at each window's centre; an empty one gives NaN.
    """
    _same_shape(ours, truth)
    if min(ours.shape[-2:]) < 11:
        raise InputError(f"ssim needs pictures of 11 pixels a side or more. Got {ours.shape}.")
    x, y = ours.double() + 1, truth.double() + 1  # in [0, PEAK]: the luminance term wants no sign
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = _window(x), _window(y)
    var_x = _window(x * x) - mean_x**2
    var_y = _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    likeness = likeness * (2 * covariance + c2) / (var_x + var_y + c2)
    likeness = likeness.mean(dim=1, keepdim=True)
    weight = torch.ones_like(likeness) if where is None else where[..., 5:-5, 5:-5].to(likeness)
    return ((likeness * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))).float()


def _window(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
    g = torch.exp(-((torch.arange(11, device=x.device) - 5.0) ** 2) / (2 * 1.5**2)).to(x)
    g = (g / g.sum()).expand(x.shape[1], 1, 1, 11)
    x = F.conv2d(x, g, groups=x.shape[1])
    return F.conv2d(x, g.transpose(2, 3), groups=x.shape[1])


def identity_score(ours: Float[Tensor, "b d"], theirs: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Cosine of two features, row by row, in [-1, 1]: 1 = the same toy, as far as they can see."""
    return F.cosine_similarity(ours, theirs, dim=1)


def subject_fidelity(
    generated: Float[Tensor, "n d"], photos: Float[Tensor, "m d"]
) -> Float[Tensor, ""]:
    """Mean cosine over all pairs of a generated picture and a photo (DreamBooth, section 4.2).

    With DINO features the paper's DINO score, with CLIP's its CLIP-I. For "real images" against
    themselves use `self_fidelity`, which leaves out each picture's pair with itself.
    """
    return _cosines(generated, photos).mean()


def self_fidelity(photos: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Mean cosine over all pairs of two different photos: what a perfect copyist could score."""
    if len(photos) < 2:
        raise InputError(f"self_fidelity needs two photos or more. Got {len(photos)}.")
    pairs = _cosines(photos, photos)
    return (pairs.sum() - pairs.diagonal().sum()) / (len(photos) * (len(photos) - 1))


def class_drift(plain: Float[Tensor, "n d"], photos: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """PRES (DreamBooth, section 4.4): mean cosine of samples of the *plain* class prompt, drawn
    by the tuned model, with the subject's photos. Lower is better: high means that the class has
    collapsed onto the subject."""
    return subject_fidelity(plain, photos)


def diversity(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean of 1 - cosine over all pairs of pictures of one prompt; higher is more diverse.

    DreamBooth's DIV (section 4.4) with these features in the place of LPIPS.
    """
    return 1 - self_fidelity(features)


def pair_diversity(pictures: Float[Tensor, "n 3 h w"], distance: Distance) -> Float[Tensor, ""]:
    """DIV (DreamBooth, section 4.4): mean distance, the paper's being LPIPS, over all pairs of
    pictures of one subject and one prompt; higher is more diverse."""
    if len(pictures) < 2:
        raise InputError(f"DIV needs two pictures or more of a prompt. Got {len(pictures)}.")
    pairs = list(combinations(range(len(pictures)), 2))
    a, b = (pictures[[pair[k] for pair in pairs]] for k in (0, 1))
    return distance(a, b).mean()


def copy_score(
    generated: Float[Tensor, "n 3 h w"], photos: Float[Tensor, "m 3 h w"]
) -> Float[Tensor, " n"]:
    """The highest SSIM of each generated picture with any training photo: near 1, it is a copy.

    Read it beside subject fidelity: a model that only repeats its photos scores high in both.
    """
    pairs = [ssim(generated, photo.expand_as(generated)) for photo in photos]
    return torch.stack(pairs).amax(dim=0)


def frechet_distance(ours: Float[Tensor, "n d"], theirs: Float[Tensor, "m d"]) -> float:
    """FID (Heusel et al. 2017, eq. 6) on the features of any network; lower is nearer.

    |mu - mu'|^2 + tr(C + C' - 2 (C C')^(1/2)), covariances over n - 1. It shrinks with more
    pictures, so compare only at equal numbers. Raises InputError for fewer than two a side.
    """
    if min(len(ours), len(theirs)) < 2:
        raise InputError(f"FID needs two pictures a side. Got {len(ours)} and {len(theirs)}.")
    a, b = ours.double(), theirs.double()
    root = _root(torch.cov(a.T).reshape(a.shape[1], -1))
    other = torch.cov(b.T).reshape(b.shape[1], -1)
    crossed = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    spread = (root @ root).trace() + other.trace() - 2 * crossed
    return ((a.mean(dim=0) - b.mean(dim=0)).square().sum() + spread).item()


def _root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def subject_size(mask: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """Square root of the subject's area, in pixels: the scale of COCO's key-point similarity."""
    return mask.sum(dim=(1, 2, 3)).sqrt()


def pose_error(
    ours: Float[Tensor, "b k 2"],
    truth: Float[Tensor, "b k 2"],
    shared: Bool[Tensor, "b k"],
    size: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Mean distance of the key points visible in both pictures, as a share of the subject's size.

    0 = the same pose in the same place. A picture without a shared point gives NaN.
    """
    distance = (ours - truth).norm(dim=2).masked_fill(~shared, 0)
    return distance.sum(dim=1) / shared.sum(dim=1) / size


def overlap(ours: Float[Tensor, "b 1 h w"], truth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """Intersection over union of two masks cut at 0.5; two empty masks overlap wholly."""
    _same_shape(ours, truth)
    a, b = ours > 0.5, truth > 0.5
    union = (a | b).sum(dim=(1, 2, 3))
    return torch.where(union > 0, (a & b).sum(dim=(1, 2, 3)) / union.clamp(min=1), 1.0)


def _cosines(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def _same_shape(ours: Tensor, truth: Tensor) -> None:
    if ours.shape != truth.shape:
        raise InputError(
            f"wanted two batches of one shape, got {tuple(ours.shape)} and {tuple(truth.shape)}"
        )
