"""The one training loop: every method trains through it.

`Trainable` says what is trained, `Batches` on what. This module does not know photos, priors,
methods or concepts.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.device_copies import sent
from understudy.diffusion.text import Text
from understudy.errors import UnderstudyError
from understudy.learn.batches import Batches
from understudy.learn.distributed import Distributed
from understudy.learn.loss import Rows, part_means, row_losses
from understudy.learn.optimiser import adamw, optimiser_state, restore
from understudy.learn.trainable import Trainable, average
from understudy.models.interface import DiffusionModel

PATIENCE = 20  # half-precision steps in a row that may overflow while the scale is found


@dataclass(frozen=True)
class TrainStep:
    """One optimiser step: what was minimised, and the mean loss of photos and of class pictures
    before weighting (NaN without any)."""

    loss: float
    photo_loss: float
    prior_loss: float
    gradient_norm: float


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train. clip: the largest norm of the whole gradient, 0 for any. accumulate: in how
    many pieces a step's rows pass the network. snr_gamma: of Min-SNR, 0 for none. average: decay of
    the weights' EMA, 0 for none. autocast: computes forward and backward in it, over
    weights that stay as they are."""

    learning_rate: float
    weight_decay: float = 1e-2
    clip: float = 1.0
    accumulate: int = 1
    snr_gamma: float = 0.0
    average: float = 0.0
    eight_bit: bool = False
    autocast: torch.dtype | None = None


class Trainer:
    """The state of a training: parameters, optimiser, and the random draws so far.

    generator: of all draws of rows. distributed: the processes that share the rows of each step.
    `done`: steps taken. Equal arguments give equal weights, bit for bit, on the same machine.
    """

    def __init__(
        self,
        model: DiffusionModel,
        trainable: Trainable,
        batches: Batches,
        options: TrainOptions,
        generator: torch.Generator,
        distributed: Distributed = Distributed(),  # noqa: B008
    ) -> None:
        self.model, self.trainable, self.batches, self.options = model, trainable, batches, options
        self.generator, self.distributed = generator, distributed
        self.done = self.overflows = 0
        self._drawn = generator.get_state()  # before the step at hand
        self.optimiser = adamw(
            trainable.parameters,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            eight_bit=options.eight_bit,
            rates=trainable.rates,
        )
        # Only float16 needs loss scaling: bfloat16 has the range of float32.
        half = options.autocast is torch.float16
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=half)
        self.averages: dict[str, Tensor] | None = None
        if options.average:
            self.averages = {n: p.detach().clone() for n, p in trainable.parameters.items()}
        self._still: Text | None = None  # text that does not train, embedded once
        self._base: Text | None = None  # what the untrained text encoder makes of the prompts
        prior = batches.prior
        if prior is not None and prior.by_output and trainable.trains_text and trainable.base:
            with torch.no_grad(), trainable.base():
                self._base = trainable.embed(batches.prompts)
        self._text_trains = trainable.trains_text

    def step(self) -> TrainStep:
        """One step. Raises UnderstudyError, before any weight moves, when loss or gradient is not
        finite."""
        self._drawn = self.generator.get_state()
        # By the number of steps alone, so that a resumed run is in the same stage.
        self._text_trains = self.trainable.at(self.done)
        groups = self.batches.draw(self.generator)
        losses = torch.cat([self._backward(rows) for rows in groups])
        weights = torch.cat([rows.weights for rows in groups])
        part = torch.cat([rows.part for rows in groups])

        # Gradients and losses of all processes, then one transfer of the numbers.
        gradients = self._gradients()
        # Every process has computed some rows of the same batch; the sums are those of one process.
        self.distributed.sum([*gradients, losses])
        # Before the norm is taken, or clipping would act on scaled gradients.
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.get_total_norm(gradients)
        # All numbers in one transfer: each would make the host wait for the device.
        numbers = torch.stack([losses @ weights.to(losses), norm.to(losses)])
        numbers = torch.cat([numbers, losses]).cpu()
        loss, size = numbers[:2].tolist()
        self._check(loss, size)

        # Step.
        if self.options.clip:
            nn.utils.clip_grads_with_norm_(
                self.trainable.parameters.values(), self.options.clip, norm.to(gradients[0])
            )
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        if self.averages is not None:
            average(self.averages, self.trainable.parameters, self.options.average, self.done)
        return TrainStep(loss, *part_means(numbers[2:], part), size)

    def rewind(self) -> None:
        """Undo what a step that failed half-way left behind: its gradients and its draws."""
        self.optimiser.zero_grad(set_to_none=True)
        self.generator.set_state(self._drawn)

    def text(self, which: Int[Tensor, " r"]) -> Text:
        """What each row reads: the prompts among them pass the text encoder once."""
        if not self._text_trains:
            if self._still is None:
                with torch.no_grad():
                    self._still = self.trainable.embed(self.batches.prompts)
            return self._still[sent(which, self._still.device)]
        # A batch has few different prompts: each passes the text encoder once, and its gradient is
        # the sum over the rows that read it.
        numbers, place = which.unique(return_inverse=True)
        text = self.trainable.embed([self.batches.prompts[number] for number in numbers.tolist()])
        return text[sent(place, text.device)]

    def losses(self, rows: Rows, text: Text) -> Float[Tensor, " r"]:
        """The losses of rows that read `text`; see `row_losses`."""
        base = self._base
        if base is not None:
            base = base[sent(rows.prompts, base.device)]
        return row_losses(self.model, rows, text, self.trainable.base, base)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors."""
        tensors = {f"parameter.{n}": p.detach() for n, p in self.trainable.parameters.items()}
        tensors |= {f"optimiser.{k}": v for k, v in optimiser_state(self.optimiser).items()}
        tensors |= {f"average.{name}": value for name, value in (self.averages or {}).items()}
        tensors["generator"] = self.generator.get_state()
        tensors["done"] = torch.tensor(self.done)
        if self.scaler.is_enabled():
            scaler: dict[str, Any] = self.scaler.state_dict()
            pair = [scaler["scale"], scaler["_growth_tracker"]]
            tensors["scaler"] = torch.tensor(pair, dtype=torch.float64)
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`, bit for bit."""
        for name, parameter in self.trainable.parameters.items():
            parameter.copy_(state[f"parameter.{name}"])
        kept = {k.partition(".")[2]: v for k, v in state.items() if k.startswith("optimiser.")}
        restore(self.optimiser, kept)
        for name in self.averages or {}:
            assert self.averages is not None
            self.averages[name].copy_(state[f"average.{name}"])
        self.generator.set_state(state["generator"])
        self.done = int(state["done"])
        if self.scaler.is_enabled():
            scale, tracker = state["scaler"].tolist()
            whole: dict[str, Any] = self.scaler.state_dict()
            self.scaler.load_state_dict({**whole, "scale": scale, "_growth_tracker": int(tracker)})

    def _backward(self, rows: Rows) -> Float[Tensor, " r"]:
        """The losses of this process's share of the rows, zero elsewhere; gradients are left in the
        parameters."""
        pieces = self.options.accumulate
        wide = torch.promote_types(rows.latents.dtype, torch.float32)
        losses = torch.zeros(len(rows), dtype=wide, device=self.model.device)
        for piece in range(pieces):
            # Rows are dealt out in turn over processes and pieces, so that each share has photos
            # and class images.
            number, count = (
                piece * self.distributed.size + self.distributed.rank,
                pieces * self.distributed.size,
            )
            share = rows.share(number, count)
            if len(share):
                with torch.enable_grad(), autocasting(self.model.device, self.options.autocast):
                    text = self.text(share.prompts)
                    found = self.losses(share, text) * self._emphasis(share)
                    total = found @ share.weights.to(found)
                # Gradients add up over the pieces; weights of rows are those of the whole batch.
                self.scaler.scale(total).backward()
                losses[number::count] = found.detach()
        return losses

    def _gradients(self) -> list[Tensor]:
        """The gradients that any process has; zeros where no row of this one's share reached."""
        parameters = list(self.trainable.parameters.values())
        if self.distributed.size > 1:
            reached = torch.tensor([float(p.grad is not None) for p in parameters])
            self.distributed.sum([reached])
            for parameter, count in zip(parameters, reached.tolist(), strict=True):
                # all_reduce needs the same tensors in every process, also where this share did not
                # reach a parameter.
                if count and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in parameters if p.grad is not None]

    def _emphasis(self, rows: Rows) -> Tensor | float:
        if not self.options.snr_gamma:
            return 1.0
        return self.model.schedule.min_snr(rows.times, self.options.snr_gamma)

    def _check(self, loss: float, norm: float) -> None:
        finite = math.isfinite(loss) and math.isfinite(norm)
        self.overflows = 0 if finite else self.overflows + 1
        # float16: the scaler tries large scales first and skips steps that overflow.
        searching = self.scaler.is_enabled() and math.isfinite(loss) and self.overflows < PATIENCE
        if not finite and not searching:
            self.rewind()
            rate = self.options.learning_rate
            raise UnderstudyError(
                f"Training diverged at step {self.done + 1}: the loss is {loss}, the gradient norm "
                f"{norm}. The model is unchanged. Try a learning rate below {rate:g}, or float32 "
                f"instead of half precision."
            )


def autocasting(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """torch.autocast in `dtype`, or nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
