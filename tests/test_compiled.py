"""Compiled networks give what the networks give, in every verb; what cannot be compiled still runs.

Also how a job chooses precision and compilation for its device.
"""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from apart import printed
from tiny import tiny_folder
from understudy.cli.app import app
from understudy.jobs.execution import network_calls, optimises, running, suited
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.models.compiled import PAYS_FROM, Compiled, compiling_pays
from understudy.models.graphs import Graphs
from understudy.settings import GenerateSettings, InvertSettings, RunSettings


@pytest.fixture(scope="session")
def found():
    """What `compiled_runs.py` finds, in a process without run-time type checks."""
    return printed("compiled_runs.py")


@pytest.mark.parametrize("run", ["null-text", "p2p", "pnp", "learn", "sd35", "flux"])
def test_a_compiled_network_gives_the_same(found, run):
    assert found[run] == {"equal": True, "failure": ""}


def test_a_network_that_cannot_be_compiled_runs_as_it_is(found):
    assert found["refused"]["right"] and found["refused"]["failure"]


@pytest.fixture
def graphs(found):
    """Of a compiled U-Net that samples, then swaps."""
    return found["graphs"]


def test_sampling_compiles_once(graphs):
    assert graphs["sampling graphs"] == 1  # not once a step
    assert graphs["sampling equal"]


def test_a_swap_compiles_once_for_each_kind_of_step(graphs):
    assert graphs["swap graphs"] <= graphs["swap kinds"]
    assert graphs["swap graphs again"] == graphs["swap graphs"]
    assert graphs["swap equal"]


def test_a_cpu_never_compiles_by_itself():
    assert not compiling_pays(torch.device("cpu"), 10 * PAYS_FROM)


def test_a_gpu_compiles_for_long_jobs_only():
    device = torch.device("cuda")
    assert compiling_pays(device, PAYS_FROM) and not compiling_pays(device, PAYS_FROM - 1)


def test_calls_of_the_network_count_inner_steps_and_gradients():
    plain = Job.of("generate", GenerateSettings(steps=50))
    tuned = Job.of("invert", InvertSettings(method="null-text", steps=50, inner_steps=10))
    assert network_calls(plain) == 50
    assert network_calls(tuned) == 50 * 21
    assert network_calls(Job(verb="evaluate swap")) > PAYS_FROM


@pytest.mark.parametrize(
    "job", [Job(verb="learn"), Job.of("swap", InvertSettings(method="null-text"))]
)
def test_jobs_with_gradients_keep_float32(job, monkeypatch):
    on_gpu(monkeypatch)
    assert optimises(job) and suited(RunSettings(), job).dtype == "float32"


def test_other_jobs_get_half_precision_on_a_gpu(monkeypatch):
    job = Job.of("generate", GenerateSettings())
    assert suited(RunSettings(), job).dtype == "float32"
    on_gpu(monkeypatch)
    assert suited(RunSettings(), job).dtype == "bfloat16"
    assert suited(RunSettings(dtype="float16"), job).dtype == "float16"


@pytest.mark.parametrize("verb", ["invert", "swap", "sweep", "explain", "edit"])
def test_what_follows_a_photo_keeps_float32(verb, monkeypatch, tmp_path):
    """bfloat16 moves a swap's background by more than .02 dB; large models keep it for memory."""
    on_gpu(monkeypatch)
    xl = tmp_path / "xl"
    xl.mkdir()
    (xl / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    file = tmp_path / "xl.safetensors"
    save_file({"conditioner.embedders.0.x": torch.zeros(1)}, file)
    hub = "stabilityai/stable-diffusion-xl-base-1.0"
    plain = ("toybox", "runwayml/stable-diffusion-v1-5", str(tmp_path / "there is none"))
    large = ("toybox-flow", "black-forest-labs/FLUX.1-dev", str(xl), str(file), hub)
    for models, wanted in ((plain, "float32"), (large, "bfloat16")):
        for model in models:
            assert suited(RunSettings(model=model), Job(verb=verb)).dtype == wanted, model


@pytest.mark.parametrize(
    ("command", "dtype"),
    [
        ("generate", "bfloat16"),
        ("swap", "float32"),
        ("learn", "float32"),
        ("evaluate swap", "float32"),
    ],
)
def test_the_plan_is_of_the_precision_that_runs(command, dtype, monkeypatch):
    on_gpu(monkeypatch)
    said = CliRunner().invoke(app, [*command.split(), "--show-plan", "--json"])
    assert json.loads(said.output)["dtype"] == dtype


def on_gpu(monkeypatch):
    """Pretend a GPU with bfloat16."""
    where, half = torch.device("cuda"), torch.bfloat16
    monkeypatch.setattr("understudy.models.registry.device_of", lambda device: where)
    monkeypatch.setattr("understudy.models.precision.half_precision", lambda device: half)


class OnGPU:
    """A model on a GPU that notes what it is asked to do."""

    device = torch.device("cuda")

    def __init__(self):
        self.asked = []

    def compile(self, on=True, *, backend=None):
        self.asked.append(("compile", on))
        return Compiled(torch.nn.Identity()) if on else None

    def graph(self, on=True, *, capturer=None):
        self.asked.append(("graph", on))
        return Graphs(torch.nn.Identity()) if on else None


@pytest.mark.parametrize(
    "compile, verb, kind",
    [
        ("auto", "generate", Graphs),
        ("auto", "evaluate swap", Compiled),
        ("on", "generate", Compiled),
        ("off", "evaluate swap", type(None)),
    ],
)
def test_a_gpu_replays_graphs_where_it_does_not_compile(compile, verb, kind):
    model, job = OnGPU(), Job(verb=verb)
    with running(model, RunSettings(device="cuda", dtype="float32", compile=compile), job) as found:
        assert type(found) is kind
        assert model.asked == [("compile", kind is Compiled), ("graph", kind is Graphs)]
    assert model.asked[-1] == ("graph", False)


def test_a_model_of_the_pool_is_compiled_for_the_job_that_asks_only():
    pool, job = Pool(), Job(verb="generate")
    run = RunSettings(model=str(tiny_folder()), device="cpu", compile="on")
    with pool.model(run) as model, running(model, run, job) as compiled:
        assert compiled is not None and model.denoiser.compiled is compiled
    plain = RunSettings(model=run.model, device="cpu")
    with pool.model(plain) as again, running(again, plain, job) as compiled:
        assert again is model and compiled is None and model.denoiser.compiled is None
