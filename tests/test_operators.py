"""How many kernels a step launches, and how often the host waits.

Counted on a CPU; the bounds hold for any size and any device.
"""

import pytest
import torch

from apart import printed
from benchmarks import training
from benchmarks.operators import counted
from benchmarks.stand_in_gpu import moved, stand_in, watched
from tiny import tiny_model
from understudy.device_copies import sent
from understudy.invert import null_text
from understudy.invert.inversion import ddim_inversion_steps
from understudy.invert.null_text import null_text_step
from understudy.settings import InvertSettings

PROMPT = "a photo of cat"


@pytest.fixture(scope="session")
def found():
    """What `operator_counts.py` finds, in a process whose functions check no types: the checks of
    the other tests ask for numbers themselves."""
    return printed("operator_counts.py")


def test_what_is_counted():
    x = torch.arange(6.0).reshape(2, 3)
    with counted() as count:
        y = (x.T @ x).relu()  # a view, two kernels
        y[y > 3]  # a comparison; a boolean index makes the host wait
        y.sum().item()
        y.tolist()
    assert dict(count.kernels) == {"mm": 1, "relu": 1, "gt": 1, "index": 1, "sum": 1,
                                   "_local_scalar_dense": 1}  # fmt: skip
    assert count.syncs == {"index": 1, "_local_scalar_dense": 1, "tolist": 1}


@pytest.mark.parametrize("which", ["first", "later"])
def test_a_swap_launches_half_as_much_as_the_plain_way(found, which):
    assert found["swap"][which]["share"] <= 0.5


@pytest.mark.parametrize("which", ["first", "later"])
def test_no_step_of_a_swap_waits_for_the_device(found, which):
    assert found["swap"][which]["syncs"] == 0


def test_null_text_launches_half_as_much_as_the_plain_way(found):
    assert found["null-text"]["share"] <= 0.5


@pytest.mark.parametrize("case", ["1 point", "3 points", "2 points, mask"])
def test_a_drag_launches_half_as_much_as_the_plain_way(found, case):
    assert found["drag"][case] <= 0.5


@pytest.mark.parametrize("method", training.METHODS)
def test_a_training_step_launches_no_more_than_the_plain_one(found, method):
    assert found["learn"][method] <= 1


@pytest.mark.parametrize("case", ["3 points", "2 points, mask"])
def test_a_drag_is_read_once_a_step(found, case):
    assert found["drag reads"][case] == 1


# On a stand-in for a GPU: copies in either direction count, which nobody sees on a CPU


@pytest.fixture(scope="session")
def waits(found):
    """What `benchmarks.waits` finds, by what was run."""
    return {one["what"]: one for one in found["waits"]}


LOOPS = (
    "sampling", "null-text: a timestep", "swap, first", "swap, later", "swap, blended",
    "sweep of 3", "edit, p2p", "edit, pnp", "flow: sampling", "flow: swap", "flow: edit, p2p",
    "flow: edit, flowedit",
)  # fmt: skip
READ_ONCE = (
    "learn, DreamBooth, Min-SNR and EMA", *(f"learn, {method}" for method in training.METHODS),
    "drag, 1 point", "drag, 20 points", "drag, 2 points, mask",
)  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_no_loop_makes_the_host_wait(waits, loop):
    assert waits[loop]["waits"] == {}


def test_null_text_reads_a_loss_for_each_inner_step(waits):
    """By events, a step later: the host does not wait for what was launched since."""
    assert waits["null-text: a timestep"]["read"] == 3


@pytest.mark.parametrize("loop", READ_ONCE)
def test_losses_and_points_are_read_once_a_step(waits, loop):
    """A loss that is not finite ends a training; points say where the next step looks."""
    assert waits[loop]["waits"] == {"copy to the host": 1}


def test_every_loop_on_the_stand_in_has_a_bound(waits):
    assert set(waits) == {*LOOPS, *READ_ONCE}


def test_what_waits_on_the_stand_in():
    with stand_in(), watched() as waits:
        x = torch.arange(6.0).to("cuda")  # a copy that the host waits for
        assert x.device.type == "cuda" and (x * 2).device.type == "cuda"
        sent(torch.ones(6), x.device)  # one that it does not wait for
        if (x > 3).any():  # a truth value
            x[x > 3]  # a boolean index
        x[[0, 1]]  # a list of indices is copied to the device
        torch.tensor([1.0], device="cuda")
        assert (x.cpu() + torch.ones(6)).sum().item() == 21  # on the host nothing waits
    assert waits.host == {"copy to the device": 3, "item": 1, "boolean index": 1,
                          "copy to the host": 1}  # fmt: skip
    assert waits.sent == 1


def test_two_devices_do_not_mix_on_the_stand_in():
    with stand_in(), pytest.raises(RuntimeError, match="one device"):
        torch.ones(2, device="cuda") + torch.ones(2)


def test_training_on_the_stand_in_gives_the_numbers_of_a_cpu():
    """What the stand-in computes is what a CPU computes, gradients and optimiser included."""
    task = training.Task("LoRA")
    with training.our_step(task, task.model()) as step:
        expected = [step() for _ in range(2)]
    model = task.model()
    with stand_in():
        moved(*task.networks(model))
        with training.our_step(task, model) as step:
            found = [step() for _ in range(2)]
    assert [one.loss for one in found] == pytest.approx([one.loss for one in expected], rel=1e-5)


@pytest.fixture
def inverted():
    model = tiny_model("sd15")
    photo = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    *_, last = ddim_inversion_steps(model, photo, PROMPT, steps=4)
    return model, last.inversion


def test_a_loss_read_late_changes_nothing(inverted, monkeypatch):
    model, inversion = inverted
    text, null = model.embed([PROMPT]), model.embed([""])

    def tuned(epsilon: float):
        return null_text_step(
            model, inversion.noise, inversion.trajectory[2:3], text, null,
            null_text.Moment(0, *inversion.times[:2]),
            InvertSettings(steps=4, inner_steps=6, epsilon=epsilon),
        )  # fmt: skip

    whole = tuned(0.0)
    between = sorted(whole.losses)[2]  # an early stop somewhere on the way
    at_once = tuned(between)
    monkeypatch.setattr(null_text, "reading_delay", lambda device: 1)
    late, unstopped = tuned(between), tuned(0.0)
    assert 1 <= len(at_once.losses) < 6
    assert late.losses == at_once.losses and unstopped.losses == whole.losses
    assert torch.equal(late.null.tokens, at_once.null.tokens)
    assert torch.equal(unstopped.null.tokens, whole.null.tokens)
