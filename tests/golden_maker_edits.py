"""The edits of a golden folder in the making: Photoswap, prompt-to-prompt, pnp, HiPer, blends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from golden_maker import LENGTH, PROMPTS, Arrays, Maker, Sampler, aligned, tokens_of
from plain_edit import Plain, PlainProcessor, found, plain_pnp, refining, replacing, weighing
from understudy.diffusion.text import Text
from understudy.transfer.blend import Blend

Window = float | tuple[float, float]
LAYERS = [
    f"up_blocks.{block}.attentions.{n}.transformer_blocks.0.attn1"
    for block, numbers in ((1, (1, 2)), (2, (0, 1, 2)), (3, (0, 1, 2)))
    for n in numbers
]
CONVOLUTION = "up_blocks.1.resnets.1.conv2"


def places(prompt: str, *words: str) -> list[int]:
    """Places of words that stand between blanks, several tokens each or one."""
    found_, place = list[int](), 1
    for word in prompt.split(" "):
        count = len(tokens_of(word))
        found_ += range(place, place + count) if word in words else ()
        place += count
    return found_


def windows_of(
    steps: int, targets: Sequence[str], every: Window, named: dict[str, Window]
) -> Tensor:
    """1 where a token of a target takes the source's map, of steps + 1 rows."""
    rows = torch.zeros(steps + 1, len(targets), LENGTH)
    for n, target in enumerate(targets):
        for word, window in {"": every, **named}.items():
            first, end = window if isinstance(window, tuple) else (0.0, window)
            columns = places(target, word) if word else [*range(LENGTH)]
            rows[:, n, columns] = 0
            rows[int(first * (steps + 1)) : int(end * (steps + 1)), n, columns] = 1
    return rows


@torch.no_grad()
def walk(
    sampler: Sampler,
    noise: Tensor,
    prompts: Sequence[str],
    plain: Plain,
    guidance: float,
    *,
    nulls: Sequence[Tensor] | None = None,
    path: Sequence[Tensor] | None = None,
    blend: Blend | None = None,
    cells: int = 0,
) -> tuple[list[Tensor], Tensor | None]:
    """Latents of source and targets after each step, and the last mask.

    path: the source's latents, noise first, put in its row before every step and after the last.
    """
    for name, module in sampler.unet.named_modules():
        if hasattr(module, "set_processor"):
            module.set_processor(PlainProcessor(plain, name))
    texts, count, mask = sampler.embed(prompts).tokens, len(prompts), None
    nulls = nulls or [sampler.embed([""]).tokens] * sampler.steps
    x, walked = noise.repeat(count, 1, 1, 1), list[Tensor]()
    for n, t in enumerate(sampler.timesteps):
        plain.step = n
        rows = torch.cat([nulls[n].repeat(count, 1, 1), texts])
        eps = sampler.predict_noise(x.repeat(2, 1, 1, 1), t, rows)
        eps = eps[:count] + guidance * (eps[count:] - eps[:count])
        x = sampler.move(x, eps, t, t - sampler.ratio)
        if path is not None:
            x[:1] = path[n + 1]
        if blend is not None and n >= blend.start:
            mask = found(plain.sums[cells], blend, x.shape[-2:])
            x = x[:1] + mask.to(x) * (x - x[:1])
        walked.append(x.clone())
    sampler.reset()
    return walked, mask


def refined(maker: Maker, source: str, target: str) -> Any:
    return refining(*aligned(maker.texts[source][1], maker.texts[target][1]))


def make_swaps(maker: Maker) -> None:
    """Photoswap: three step counts, two guidances for one source, with and without a blend."""
    from benchmarks.plain import Plain as Swap
    from benchmarks.plain import plain_swap
    from understudy.diffusion.words import Alignment
    from understudy.transfer.schedule import SwapSchedule

    arrays: Arrays = {}
    cases: dict[str, Any] = {}
    fractions = ((0.4, 0.3, 0.7), (-0.2, 0.6, 0.55), (0.0, 0.0, 0.0), (0.25, 0.35, 0.45))
    for n, (steps, guidance, side) in enumerate(
        ((6, 3, 16), (8, 7.5, 24), (6, 2.5, 16), (5, 5.0, 16))
    ):
        key, case = f"V{n // 3}" if side == 16 else "V9", f"swap{n}"
        (source, target), (phi, maps, cross) = PROMPTS[0], fractions[n]
        words = ("cat", "sks")
        sampler = Sampler(maker, steps)
        x_t = arrays.setdefault(f"{key}/x_T", maker.noise(4, side, side))
        counts = int(phi * steps) + 1, int(steps * (maps + phi)), int(cross * (steps + 1))
        ranges = [range(max(count, 0)) for count in counts]
        mapper, alphas = aligned(maker.texts[source][1], maker.texts[target][1])
        alignment = Alignment(tuple(mapper), tuple(map(float, alphas)))
        blends = n in (0, 3)
        start = int((0.2 if n else 0.5) * steps)
        spots = [tuple(places(p, w)) for p, w in zip((source, target), words, strict=True)]
        nulls = [maker.text("")] * steps
        if n == 3:
            tuned = [
                maker.text("") + 0.1 * maker.noise(1, LENGTH, 16).double() for _ in range(steps)
            ]
            nulls = [null.float().double() for null in tuned]
            arrays[f"{key}/null_embeddings"] = torch.cat(nulls).float()
        walked = plain_swap(
            sampler,
            x_t.double()[None],
            [Text(null) for null in nulls],
            (source, target),
            Swap(SwapSchedule(steps, *ranges), alignment, 1024),
            guidance=guidance,
            times=sampler.times,
            blend=(start, side**2, *spots) if blends else None,
        )
        sampler.reset()
        prefix = f"{key}/source_steps{steps}_cfg{guidance}"
        arrays[f"{prefix}/final"] = walked[-1][0].float()
        arrays[f"{case}/target_final"] = walked[-1][1]
        arrays[f"{case}/target_after_step_01_sub2"] = walked[1][1, :, ::2, ::2].float()
        cases.setdefault(
            f"source/{key}",
            {"prompt": source} | ({"null": f"{key}/null_embeddings"} if n == 3 else {}),
        )
        cases[case] = {
            "source": key,
            "source_prompt": source,
            "target_prompt": target,
            "steps": steps,
            "self_output_replace_steps": phi,
            "self_map_replace_steps": maps,
            "cross_map_replace_steps": cross,
            "guidance": guidance,
        } | ({"mapper": mapper, "alphas": alphas} if n == 1 else {})
        if blends:
            cases[case] |= {"local_blend": True, "source_word": words[0], "target_word": [words[1]]}
            cases[case]["local_blend_settings"] = (
                {} if n else {"start_blend": 0.5, "threshold": 0.3}
            )
    maker.save("c_photoswap_small", arrays)
    maker.write("c_photoswap", cases)


def make_p2p(maker: Maker) -> None:
    """Replace, refine, reweight; windows; one and two targets; a blend."""
    arrays: Arrays = {}
    cases: dict[str, Any] = {}

    def record(
        name: str, pair: int, steps: int, side: int, guidance: float, edits: Any, **how: Any
    ) -> None:
        source = PROMPTS[pair][0]
        targets = how.pop("targets", [PROMPTS[pair][1]])
        every, named = how.pop("every", 0.6), how.pop("named", {})
        share, tokens = how.pop("share", 0.5), how.pop("tokens", 1024)
        blend = how.pop("blend", None)
        first, end = share if isinstance(share, tuple) else (0.0, share)
        sampler = Sampler(maker, steps)
        x_t = arrays.setdefault(f"Q{side}/x_T", maker.noise(4, side, side))
        windows = windows_of(steps, targets, every, named)
        plain = Plain(edits, windows, range(int(first * steps), int(end * steps)), tokens)
        walked, mask = walk(
            sampler, x_t.double()[None], (source, *targets), plain, guidance,
            blend=blend, cells=side**2,
        )  # fmt: skip
        arrays[f"{name}/targets_final"] = walked[-1][1:]
        arrays[f"{name}/targets_after_step_0_sub2"] = walked[0][1:, :, ::2, ::2].float()
        if mask is not None:
            arrays[f"{name}/mask_last"] = mask[:, 0].to(torch.uint8)
        cases[name] = {
            "steps": steps, "source": f"Q{side}", "prompts": [source, *targets],
            "self_replace_steps": share, "guidance": guidance,
            "cross_replace_steps": {"default_": every, **named} if named else every,
        } | how | ({} if tokens == 1024 else {"self_map_max_tokens": tokens})  # fmt: skip

    fox, rhino = torch.eye(LENGTH), torch.eye(LENGTH)
    rhino[5, 5:8], rhino[6, 6], rhino[7, 7] = 1 / 3, 0, 0
    record("replace", 5, 5, 16, 3, [replacing(fox)], kind="replace", named={"wolf": (0.2, 0.5)})
    record("replace_several", 2, 4, 16, 7.5, [replacing(rhino)], kind="replace", tokens=64)
    cheese = refined(maker, *PROMPTS[3])
    record("refine", 3, 6, 24, 4.5, [cheese], kind="refine", every=(0.1, 0.9), share=(0.2, 0.7))
    both = [PROMPTS[0][1], "a bird in a tree"]
    edits = [refined(maker, PROMPTS[0][0], target) for target in both]
    record("two_targets", 0, 4, 16, 2, edits, kind="refine", targets=both, self_map_max_tokens=1024)
    same = refining([*range(LENGTH)], [1] * LENGTH)
    weights = {place: 2.5 for place in places(PROMPTS[0][0], "mat")}
    record(
        "reweight", 0, 5, 16, 5, [weighing(same, weights)], targets=[PROMPTS[0][0]],
        kind="reweight", eq={"words": ["mat"], "values": [2.5]},
    )  # fmt: skip
    swapped = refined(maker, *PROMPTS[0])
    spots = [tuple(places(prompt, "cat")) for prompt in PROMPTS[0]]
    record(
        "blend", 0, 5, 16, 3.5, [weighing(swapped, {2: 0.5})], kind="reweight", prev="refine",
        eq={"words": ["sks", "zebra"], "values": [0.5, 9.0]},
        blend=Blend(2, spots[0], (spots[1],), 0.4, None, (), 0.4),
    )  # fmt: skip
    cases["blend"]["blend"] = {"words": ["cat", "cat"], "start_blend": 0.4, "th": 0.4}
    maker.save("d_p2p", arrays, cases)


def make_inversions(maker: Maker) -> None:
    """Direct and negative-prompt inversion under refinement."""
    arrays: Arrays = {}
    cases: dict[str, Any] = {}
    for n, (method, steps, side) in enumerate(
        (
            ("direct inversion", 5, 16),
            ("negative-prompt inversion", 4, 8),
            ("negative-prompt", 6, 16),
        )
    ):
        name, (source, target), guidance = f"inv{n}", PROMPTS[n * 2 % 5], (3, 7.5, 2.0)[n]
        sampler, x0 = Sampler(maker, steps), 0.5 * maker.noise(4, side, side)
        path = sampler.invert(x0[None], maker.text(source))
        how = {"cross_replace_steps": 0.7, "self_replace_steps": 0.4, "self_map_max_tokens": 64}
        windows = windows_of(steps, [target], 0.7, {})
        plain = Plain([refined(maker, source, target)], windows, range(int(0.4 * steps)), 64)
        cases[name] = {
            "method": method, "source_prompt": source, "target_prompt": target,
            "steps": steps, "guidance": guidance,
        }  # fmt: skip
        arrays[f"{name}/x0"] = x0
        if n == 0:
            cases[name] |= how
            walked, _ = walk(sampler, path[-1], (source, target), plain, guidance, path=path[::-1])
            arrays[f"{name}/refine_target_final"] = walked[-1][1]
            arrays[f"{name}/refine_target_after_02_steps"] = walked[1][1]
            continue
        nulls = [maker.text(source)] * steps
        walked, _ = walk(sampler, path[-1], (source, target), plain, guidance, nulls=nulls)
        cases[name] |= {"refine": how} | ({"npi_interp": 0.0} if n == 1 else {})
        arrays[f"{name}/refine_final"] = walked[-1]
        arrays[f"{name}/reconstruction_final"] = walked[-1][0]
    maker.save("f_direct_npi", arrays, cases)


def make_pnp(maker: Maker) -> None:
    arrays: Arrays = {}
    cases: dict[str, Any] = {}
    for n, (steps, side) in enumerate(((6, 16), (5, 24))):
        name, target, guidance = f"pnp{n}", PROMPTS[n][1], (3.0, 6)[n]
        sampler, x0 = Sampler(maker, steps, offset=n), 0.5 * maker.noise(4, side, side)
        inverted = PROMPTS[n][0] if n else ""
        path = torch.cat(sampler.invert(x0[None], maker.text(inverted))[::-1])
        negative = PROMPTS[3][0] if n else ""
        walked = plain_pnp(
            sampler, path, tuple(Text(maker.text(p)) for p in ("", negative, target)), LAYERS,
            CONVOLUTION, guidance=guidance, times=sampler.times,
            map_steps=int(0.5 * steps), feature_steps=int((0.8 - n * 0.8) * steps),
        )  # fmt: skip
        sampler.reset()
        cases[name] = {
            "target_prompt": target, "target_emb": maker.name(target), "steps_offset": n,
            "sampling_steps": steps, "pnp_f_t": 0.8 - n * 0.8, "pnp_attn_t": 0.5,
            "guidance": guidance, "latent_indices": [1, steps],
        }  # fmt: skip
        if n:
            named = {"negative_emb": maker.name(negative), "inversion_emb": maker.name(inverted)}
            cases[name] |= named | {"source_indices": [0, 3]}
            arrays[f"{name}/source_latents"] = path[[0, 3]]
        arrays[f"{name}/x0"] = x0
        arrays[f"{name}/latents"] = torch.cat([walked[0], walked[-1]])
    maker.save("f_pnp", arrays, cases)


def make_hiper(maker: Maker) -> None:
    arrays: Arrays = {}
    cases: dict[str, Any] = {}
    for n, (count, iterations, rate, scale) in enumerate(((4, 5, 2e-3, 0.7), (2, 3, 1e-2, 0.8))):
        name, (source, target), steps = f"hiper{n}", PROMPTS[n], 4 + n
        sampler = Sampler(maker, steps, n)
        z0, noise = 0.5 * maker.noise(1, 4, 8, 16), maker.noise(iterations, 1, 4, 8, 16)
        times = torch.from_numpy(maker.random.randint(0, 1000, (iterations, 1)))
        text = maker.text(source)
        tail = text[:, -count:].clone().requires_grad_()
        adam, tails, losses = torch.optim.Adam([tail], rate), list[Tensor](), list[float]()
        for draw, time in zip(noise.double(), times, strict=True):
            a = sampler.alpha(int(time))
            noised = a.sqrt() * z0.double() + (1 - a).sqrt() * draw
            rows = torch.cat([text[:, :-count], tail], 1)
            loss = F.mse_loss(sampler.predict_noise(noised, int(time), rows), draw)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
            tails.append(tail.detach().clone())
        used = torch.cat([maker.text(target)[:, :-count], scale * tails[-1]], 1)
        x_t = maker.noise(1, 4, 8, 16)
        drawn = sampler.sample(x_t.double(), used, [maker.text("")] * steps, 3 + n)
        arrays |= {f"{name}/{key}": value for key, value in {
            "z0": z0, "noise": noise, "timesteps": times, "tails": torch.cat(tails),
            "losses": torch.tensor(losses, dtype=torch.float64), "x_T": x_t, "sample": drawn[-1],
        }.items()}  # fmt: skip
        cases[name] = {
            "source_text": source, "target_text": target, "n_hiper": count, "lr": rate,
            "iterations": iterations,
            "sampling": {"steps": steps, "guidance": 3 + n, "steps_offset": n},
        } | ({} if scale == 0.8 else {"tail_scale": scale})  # fmt: skip
        if n:
            arrays[f"{name}/inference_emb"] = used
    maker.save("g_hiper", arrays, cases)


def make_blends(maker: Maker) -> None:
    """LocalBlend alone: three heads, maps of another shape, one word, several or none."""
    arrays: dict[str, np.ndarray] = {}
    cases: dict[str, Any] = {}
    shape = (3, 12, 8, 12)  # heads, tokens, height, width
    for count in (2, 3):
        drawn = maker.random.randint(0, 64, (4, count * shape[0], *shape[1:]))
        arrays[f"maps_u8_B{count}"] = drawn.astype(np.uint8)
    wanted = {
        "one": ([[2], [3]], [0.6]),
        "several": ([[2, 5], [3, 4, 7]], [0.55, 0.55]),
        "none": ([[], [3]], [0.7]),
        "three": ([[1], [2], [4, 5]], None),
    }
    for name, (spots, threshold) in wanted.items():
        maps = torch.from_numpy(arrays[f"maps_u8_B{len(spots)}"]).double() / 64
        maps = maps.unflatten(1, (len(spots), -1)).mean((0, 2))
        chosen = torch.stack([m[places_].sum(0) for m, places_ in zip(maps, spots, strict=True)])
        wide = F.max_pool2d(chosen[:, None], 3, 1, 1)[:, 0]
        mask = wide / wide.amax((1, 2), keepdim=True) > (threshold or [0.3])[0]
        arrays[f"{name}/target_keeps_own"] = (mask[:1] | mask)[1:].numpy().astype(np.uint8)
        cases[name] = {"token_positions": spots}
        if threshold:
            cases[name]["threshold"] = threshold
        if name != "one":
            arrays[f"{name}/aggregate"] = chosen.numpy()
    maker.write("c_local_blend_unit", cases)
    np.savez_compressed(maker.folder / "c_local_blend_unit.npz", **arrays)


def make_edits(maker: Maker) -> None:
    """Every kind of edit."""
    make_swaps(maker)
    make_p2p(maker)
    make_inversions(maker)
    make_pnp(maker)
    make_hiper(maker)
    make_blends(maker)
