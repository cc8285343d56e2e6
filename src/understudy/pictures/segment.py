"""A rough map of a subject refined to the edges of the picture, in NumPy.

The energy is that of GrabCut (Rother et al. 2004): colour models of subject and background, a prior
from the rough map, and a boundary that is cheap along edges. In place of a graph cut its convex
relaxation is minimised (Chan, Esedoglu and Nikolova 2006) by the primal-dual algorithm of Chambolle
and Pock (2011): thresholding a minimiser of the relaxation minimises the binary energy.
A guided filter (He et al. 2010) brings the result to the photo's size. Knows pixels only; where the
rough map comes from does not matter here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

Plane = Float[np.ndarray, "_ _"]
Colours = Float[np.ndarray, "_ _ 3"]
Pixels = UInt8[np.ndarray, "_ _ 3"]
FINE = 512  # pixels of the longer side at which the guided filter works
FAINT = 0.05  # less than this is what the filter leaves of the background
SAMPLE = 2000  # colours that a model is fitted to


@dataclass(frozen=True)
class Cut:
    """The constants of the energy; chosen on rendered scenes outside the benchmark.

    Attributes:
        side: pixels of the longer side at which the energy is minimised.
        rounds: how often colour models are fitted and the energy minimised.
        components: Gaussians of a colour model (GrabCut: 5).
        prior, colour: weights of the prior's log-odds and of the colours' log-ratio.
        limit: nats: a single pixel's colour is no stronger evidence than this.
        boundary: cost of a boundary's pixel without an edge.
        edge: difference of neighbouring colours (of 0 to 1) that counts as an edge.
        iterations: of the minimisation, each round.
    """

    side: int = 128
    rounds: int = 3
    components: int = 5
    prior: float = 1.0
    colour: float = 0.6
    limit: float = 4.0
    boundary: float = 3.0
    edge: float = 0.06
    iterations: int = 120


def segmented(
    pixels: Pixels,
    prior: Plane,
    fixed: Plane | None = None,
    cut: Cut = Cut(),  # noqa: B008
) -> Plane:
    """The mask in [0, 1], of the picture's size, of the subject that a prior roughly shows.

    prior: log-odds of subject against background, any size; it is scaled to the picture's. fixed:
    likewise; positive where the subject is for certain, negative where it is not, 0 elsewhere.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, cut.side / max(height, width))
    size = max(2, round(height * scale)), max(2, round(width * scale))
    colours = oklab(_resized(pixels, size))
    odds = scaled(prior, size)
    hard = None if fixed is None else np.sign(np.rint(scaled(fixed, size)))
    mask = _minimised(colours, odds, hard, cut)
    found = np.clip((guided(pixels, mask) - 0.5) * 1.6 + 0.5, 0, 1).astype(np.float32)
    return np.where(found < FAINT, 0, found)


def guided(pixels: Pixels, mask: Plane) -> Plane:
    """A small mask brought to a picture's size along the picture's edges.

    The guided filter's coefficients are computed at no more than FINE pixels a side and scaled up
    (He and Sun 2015, arXiv:1505.00996).
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, FINE / max(height, width))
    size = max(2, round(height * scale)), max(2, round(width * scale))
    radius = max(2, round(1.5 * max(size) / max(mask.shape)))
    guide = _resized(pixels, size).astype(np.float32) / 255
    slope, offset = guided_filter(guide, scaled(mask, size).astype(np.float32), radius, 1e-4)
    found = scaled(offset, (height, width)).copy()
    for channel in range(3):
        level = pixels[..., channel].astype(np.float32) / 255
        found += scaled(slope[..., channel], (height, width)) * level
    return found


def _minimised(colours: Colours, odds: Plane, hard: Plane | None, cut: Cut) -> Plane:
    """The relaxed minimiser in [0, 1] after all rounds."""
    weights = _edge_weights(colours, cut)
    flat = colours.reshape(-1, 3)
    belief = 1 / (1 + np.exp(-odds))
    u = belief
    for _ in range(cut.rounds):
        share = np.clip(0.5 * u + 0.5 * belief, 0, 1) if hard is None else _pinned(u, hard)
        inside = Mixture.fitted(flat, share.ravel(), cut.components)
        outside = Mixture.fitted(flat, 1 - share.ravel(), cut.components)
        ratio = (inside.log_density(flat) - outside.log_density(flat)).reshape(odds.shape)
        data = cut.prior * odds + cut.colour * np.clip(ratio, -cut.limit, cut.limit)
        if hard is not None:
            data = data + 50 * hard
        u = total_variation(data, weights, cut.boundary, cut.iterations, u)
    return u


def _pinned(u: Plane, hard: Plane) -> Plane:
    return np.where(hard > 0, 1.0, np.where(hard < 0, 0.0, u))


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians in a space of colours."""

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k 3"]
    factors: Float[np.ndarray, "k 3 3"]  # inverse Cholesky factors of the covariances

    @classmethod
    def fitted(
        cls, colours: Float[np.ndarray, "n 3"], share: Float[np.ndarray, " n"], count: int
    ) -> Mixture:
        """By k-means from spread-out colours; share: how much each colour counts."""
        chosen = share > 0.5
        if int(np.count_nonzero(chosen)) < 8 * count:
            chosen = share >= np.sort(share)[-8 * count]
        kept, weight = colours[chosen], share[chosen]
        every = max(1, len(kept) // SAMPLE)
        kept, weight = kept[::every], weight[::every]
        means = _spread(kept, count)
        near = _nearest(kept, means)
        for _ in range(6):
            for k in range(count):
                mine = near == k
                if mine.any():
                    means[k] = np.average(kept[mine], axis=0, weights=weight[mine])
            near = _nearest(kept, means)
        weights, factors = np.full(count, 1e-4), np.zeros((count, 3, 3))
        for k in range(count):
            mine = near == k
            spread = np.eye(3) * 2e-4
            if int(np.count_nonzero(mine)) > 3:
                apart = kept[mine] - means[k]
                spread = spread + (apart * weight[mine, None]).T @ apart / weight[mine].sum()
                weights[k] = weight[mine].sum()
            factors[k] = np.linalg.inv(np.linalg.cholesky(spread))
        return cls(weights / weights.sum(), means, factors)

    def log_density(self, colours: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """The logarithm of the density at each colour."""
        terms = np.stack(
            [
                np.log(weight)
                + np.log(np.diag(factor)).sum()
                - 0.5 * (((colours - mean) @ factor.T) ** 2).sum(-1)
                for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True)
            ]
        )
        top = terms.max(0)
        return top + np.log(np.exp(terms - top).sum(0))


def _nearest(colours: Float[np.ndarray, "n 3"], means: Float[np.ndarray, "k 3"]) -> np.ndarray:
    """The number of the nearest mean."""
    return ((colours[:, None] - means[None]) ** 2).sum(-1).argmin(1)


def _spread(colours: Float[np.ndarray, "n 3"], count: int) -> Float[np.ndarray, "k 3"]:
    """Colours far from each other: the first is nearest to the mean, each next the farthest from
    those taken, among a sample without rare ones."""
    some = colours[:: max(1, len(colours) // 400)]
    taken = [some[((some - some.mean(0)) ** 2).sum(1).argmin()]]
    while len(taken) < count:
        apart = ((some[:, None] - np.array(taken)[None]) ** 2).sum(-1).min(1)
        taken.append(some[np.argsort(apart)[int(0.97 * (len(some) - 1))]])
    return np.array(taken)


def total_variation(
    data: Plane, weights: tuple[Plane, Plane], boundary: float, iterations: int, start: Plane
) -> Plane:
    """The u in [0, 1] with the least boundary * |weighted gradient of u| - data * u, summed.

    weights: of the steps to the right and down, 0 to 1. Primal-dual with step sizes 1 / sqrt(8).
    """
    right, down = weights
    step = 1 / np.sqrt(8)
    u = start.astype(np.float32)
    ahead, p, q = u.copy(), np.zeros_like(u), np.zeros_like(u)
    limit_p, limit_q = (boundary * right).astype(np.float32), (boundary * down).astype(np.float32)
    data = data.astype(np.float32)
    for _ in range(iterations):
        p[:, :-1] += step * (ahead[:, 1:] - ahead[:, :-1])
        q[:-1] += step * (ahead[1:] - ahead[:-1])
        np.clip(p, -limit_p, limit_p, out=p)
        np.clip(q, -limit_q, limit_q, out=q)
        flow = p + q
        flow[:, 1:] -= p[:, :-1]
        flow[1:] -= q[:-1]
        before = u
        u = np.clip(u + step * (flow + data), 0, 1)
        ahead = 2 * u - before
    return u


def _edge_weights(colours: Colours, cut: Cut) -> tuple[Plane, Plane]:
    """1 where neighbours to the right and below have one colour, towards 0.05 across an edge."""
    found: list[Plane] = []
    for axis in (1, 0):
        apart = np.zeros(colours.shape[:2])
        difference = np.sqrt((np.diff(colours, axis=axis) ** 2).sum(-1))
        apart[(slice(None), slice(-1)) if axis else (slice(-1),)] = difference
        found.append(0.05 + 0.95 * np.exp(-((apart / cut.edge) ** 2) / 2))
    return found[0], found[1]


def guided_filter(guide: Colours, plane: Plane, radius: int, eps: float) -> tuple[Colours, Plane]:
    """He, Sun and Tang 2010: a plane as a local linear function of the guide's colours.

    Returns its slope and offset at each pixel: the filtered plane is slope . colour + offset.
    """
    mean = _box(guide, radius)
    covariance = _box(guide[..., :, None] * guide[..., None, :], radius)
    covariance = covariance - mean[..., :, None] * mean[..., None, :]
    level = _box(plane[..., None], radius)
    cross = _box(guide * plane[..., None], radius) - mean * level
    eye = np.eye(3, dtype=guide.dtype) * eps
    slope = np.linalg.solve(covariance + eye, cross[..., None])[..., 0]
    offset = level[..., 0] - (slope * mean).sum(-1)
    return _box(slope, radius), _box(offset[..., None], radius)[..., 0]


def _box(values: np.ndarray, radius: int) -> Float[np.ndarray, "_ _ ..."]:
    """The mean over squares of side 2 radius + 1, cut off at the picture's border."""
    found = values.astype(np.float64)
    for axis in (0, 1):
        length = found.shape[axis]
        sums = np.concatenate([np.zeros_like(found.take([0], axis)), found.cumsum(axis)], axis)
        low = np.maximum(np.arange(length) - radius, 0)
        high = np.minimum(np.arange(length) + radius + 1, length)
        shape = [1] * found.ndim
        shape[axis] = length
        found = (sums.take(high, axis) - sums.take(low, axis)) / (high - low).reshape(shape)
    return found


def oklab(pixels: Pixels) -> Colours:
    """sRGB to Oklab (Ottosson 2020): lightness 0 to 1, opponent colours about -0.4 to 0.4."""
    levels = pixels.astype(np.float64) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(_TO_CONES).T
    return np.cbrt(cones) @ np.array(_TO_LAB).T


_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))


def scaled(
    plane: Plane, size: tuple[int, ...], box: tuple[float, float, float, float] | None = None
) -> Plane:
    """A plane at another size (height, width), bicubic; of `box` (left, top, right, bottom) alone
    where it is given."""
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box))
