"""What is studied of drags: DragGAN's Tables 1, 3 and 4, paired pictures, masks, and W versus W+.

Pan et al. 2023, arXiv:2305.10973, section 4. The built-in landmark finder stands where dlib's
model stands; faces are toys of 128 pixels, so that radii of Table 4 are pixels of these.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.drag.points import Pair
from understudy.evaluate.protocols.drag import (
    Column,
    DragCase,
    DragMethod,
    DragStudy,
    NoTracker,
    World,
    drawn_by_lot,
    handle_pairs,
)
from understudy.evaluate.results import Row
from understudy.toybox.faces import PARAMETERS

DISTANCE = Column("distance", "distance ↓")
LEFT = Column("left", "left, as tracked ↓")
TABLE = {
    "no-edit": DragMethod("the first face as it is", None),
    "no-tracking": DragMethod(
        "official, handles never followed", {"preset": "official"}, NoTracker()
    ),
    "paper": DragMethod("the paper's text", {"preset": "paper"}),
    "official": DragMethod("the authors' program", {"preset": "official"}),
    "official-rate": DragMethod(
        "official, at our learning rate", {"preset": "official"}, our_rate=True
    ),
    "best": DragMethod("our defaults", {}),
}
SIDES = ("left", "right")  # eyes, the toy's own
OPEN, CLOSED = 7.0, 1.0  # pixels of 128 between lids of open eyes at least, and of one to be shut
RESOLUTIONS, RADII = (16, 32, 64, 128), (1, 2, 3, 4, 5)
PULLED, FOLLOWED = "feature_resolution", "tracking_resolution"
FEATURES = {
    f"{what} {side}": DragMethod(
        f"features of {side} x {side} are {says}",
        {PULLED: 64, FOLLOWED: 64, **dict.fromkeys(knobs, side)},
    )
    for what, says, knobs in (
        ("supervision", "pulled, of 64 x 64 followed", (PULLED,)),
        ("tracking", "followed, of 64 x 64 pulled", (FOLLOWED,)),
        ("both", "pulled and followed", (PULLED, FOLLOWED)),
    )
    for side in RESOLUTIONS
}
RADIUS = {
    f"r1 = {pixels}": DragMethod(
        f"{pixels} pixels around a handle are pulled", {"r1": 4.0 * pixels}
    )
    for pixels in RADII
}
_OFFICIAL = {"preset": "official"}
MASKS = {
    "no mask": DragMethod("everything may change", {}),
    "mask": DragMethod("what is far from the way of the handle may not", {}, masked=True),
    "official": DragMethod("the authors' program without the mask", _OFFICIAL, our_rate=True),
    "official mask": DragMethod("and with it", _OFFICIAL, our_rate=True, masked=True),
}
SPACES = {
    "W": DragMethod("all layers alike", {"space": "w"}),
    "W+": DragMethod("every layer by itself", {"space": "w+"}),
}
SIGMA, FROM = 0.5, 0.3  # of paired pictures: share of the way to another w; truncation of the first
LOCAL = ("mouth", "left_eye", "right_eye", "ear_fold")  # numbers of a face that are changed alone
ROOM = 14.0  # pixels of 128 around a handle's way that a mask lets change


def landmark_case(world: World, number: int, count: str) -> DragCase:
    """The landmarks of one face to those of another: the faces of seeds 2 n and 2 n + 1."""
    latents = torch.cat([world.latent(2 * number + k) for k in (0, 1)])
    return _landmarks(world, number, count, latents)


def _landmarks(world: World, number: int, count: str, latents: Tensor) -> DragCase:
    pictures = world.pictures(latents)
    found = world.finder.find(pictures)
    rows = drawn_by_lot(world.seen(found), count, number)
    wanted = found.points[1, rows]

    def score(edited: Tensor) -> Row:
        return {"distance": world.distance(edited, rows, wanted)}

    return DragCase(number, latents[:1], pictures[:1], handle_pairs(found, rows), score)


def paired_case(world: World, number: int, count: str) -> DragCase:
    """A face and the same face with the layers that a drag moves gone part of the way to those of
    others, one a layer; all landmarks that are seen in both say how it moved."""
    generator = world.generator
    z = generator.draw_z(2 * number)
    first = generator.latents(z, truncation=FROM)
    moved = first.clone()
    for layer in range(6):
        z = generator.draw_z(1_000_000 + 16 * number + layer)
        moved[:, layer] += SIGMA * (
            generator.latents(z, truncation=1.0)[:, layer] - first[:, layer]
        )
    case = _landmarks(world, number, count, torch.cat([first, moved]))
    goal = world.pictures(moved)

    def score(edited: Tensor) -> Row:
        return {**case.score(edited), "squared": 100 * float(F.mse_loss(edited, goal))}

    return DragCase(number, case.latent, case.before, case.pairs, score, goal=goal)


def mask_case(world: World, number: int, count: str) -> DragCase:
    """A face and the same with its mouth, an eye or its ears changed, as the first coordinates of
    the built-in generator's z say them; the landmark that this moves most is dragged, and what is
    far from its way may not change."""
    generator, what = world.generator, PARAMETERS.index(LOCAL[number % len(LOCAL)])
    z = generator.draw_z(2 * number)
    other = z.clone()
    other[:, what] = -2.0 if z[:, what] > 0 else 2.0
    latents = generator.latents(torch.cat([z, other]), truncation=world.truncation)
    pictures = world.pictures(latents)
    found = world.finder.find(pictures)
    seen = world.seen(found)
    drawn_by_lot(seen, "1", number)  # or an error
    row = max(seen, key=lambda one: float((found.points[1, one] - found.points[0, one]).norm()))
    pairs, wanted = handle_pairs(found, [row]), found.points[1, [row]]
    mask = around(pairs, generator.picture_size)

    def score(edited: Tensor) -> Row:
        change = (edited - pictures[:1]).abs().mean(dim=1, keepdim=True) * 127.5
        outside, inside = (float((change * m).sum() / m.sum()) for m in (1 - mask, mask))
        gone = world.distance(edited, [row], wanted)
        return {"distance": gone, "outside": outside, "inside": inside}

    return DragCase(number, latents[:1], pictures[:1], pairs, score, mask=mask)


def around(pairs: list[Pair], size: tuple[int, int]) -> Tensor:
    """1 within some pixels of the straight ways of handles, (1, 1, h, w)."""
    rows, columns = torch.meshgrid(*(torch.arange(side).float() for side in size), indexing="ij")
    near = torch.full(size, torch.inf)
    for (x, y), (to_x, to_y) in pairs:
        along_x, along_y = to_x - x, to_y - y
        length = max(along_x**2 + along_y**2, 1e-6)
        share = (((columns - x) * along_x + (rows - y) * along_y) / length).clamp(0, 1)
        apart = ((columns - x - share * along_x) ** 2 + (rows - y - share * along_y) ** 2).sqrt()
        near = torch.minimum(near, apart)
    return (near <= ROOM * max(size) / 128).float()[None, None]


def eye_case(world: World, number: int, count: str) -> DragCase:
    """The n-th face whose eyes are both wide open: the lid of its left eye dragged shut."""
    names = world.finder.network.points
    lid = {s: [names.index(f"{s} eye {part}") for part in ("top", "bottom")] for s in SIDES}

    def openness(picture: Tensor) -> dict[str, float]:
        points = world.finder.find(picture).points[0]
        return {s: float(points[lid[s][1], 1] - points[lid[s][0], 1]) for s in SIDES}

    least = OPEN * max(world.generator.picture_size) / 128
    found, seed = -1, -1
    latent, before, opened = torch.empty(0), torch.empty(0), dict[str, float]()
    while found < number:
        seed += 1
        latent = world.latent(seed)
        before = world.pictures(latent)
        opened = openness(before)
        found += all(one > least for one in opened.values())
    points = world.finder.find(before).points[0] - 0.5
    (x, y), (to_x, to_y) = (points[row].tolist() for row in lid["left"])

    def score(edited: Tensor) -> Row:
        now = openness(edited)
        dragged, other = (now[side] / opened[side] for side in SIDES)
        change = (edited - before).abs().mean(dim=1, keepdim=True) * 127.5
        elsewhere = float((change * far).sum() / far.sum())
        return {"dragged": dragged, "other": other, "elsewhere": elsewhere, "seed": seed}

    pairs = [((x, y), (to_x, to_y - CLOSED))]
    far = 1 - around(pairs, world.generator.picture_size)
    return DragCase(number, latent, before, pairs, score)


STUDIES = {
    "table": DragStudy(
        "Table 1 of DragGAN on toy faces", "The landmarks of one face dragged to those of another.",
        TABLE, landmark_case, (DISTANCE, LEFT), "1,5,all", fid=True,
    ),
    "features": DragStudy(
        "Table 3 of DragGAN on toy faces",
        "Resolution of the features that pull handles, and of those that are followed.",
        FEATURES, landmark_case, (DISTANCE, LEFT), "1",
    ),
    "radius": DragStudy(
        "Table 4 of DragGAN on toy faces", "The radius of motion supervision, in pixels.",
        RADIUS, landmark_case, (DISTANCE, LEFT), "1",
    ),
    "paired": DragStudy(
        "Paired pictures",
        f"Each moving layer goes {SIGMA:g} of the way from a face (truncation {FROM:g}) to a w of "
        "its own; all landmarks seen in both pictures are dragged from the first to the second. "
        "Squared error (pixels in [-1, 1], times 100) and perceptual distance to the second.",
        TABLE, paired_case,
        (Column("squared", "squared error ↓"), Column("perceptual", "perceptual ↓"), DISTANCE),
    ),
    "masks": DragStudy(
        "Masks", "One landmark is dragged; a mask lets only what is near its way change. Mean "
        "change of pixels outside and inside of the mask, of 255.",
        MASKS, mask_case, (Column("outside", "outside ↓"), Column("inside", "inside"), DISTANCE),
        "1",
    ),
    "spaces": DragStudy(
        "W and W+", "The upper lid of the left eye is dragged to the lower one. How far open both "
        "eyes are then, as a share of before; mean change of pixels far from the eye, of 255.",
        SPACES, eye_case,
        (
            Column("dragged", "dragged eye ↓"), Column("other", "other eye ↑"),
            Column("elsewhere", "change elsewhere ↓"),
        ),
        "1",
    ),
}  # fmt: skip
