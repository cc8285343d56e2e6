"""Every loop over a U-Net on a stand-in for a GPU, its calls recorded and replayed; prints JSON.

The stand-in refuses to record what a GPU would refuse: numbers that the host reads, and copies
between host and device.
"""

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from benchmarks import training, waits
from benchmarks.stand_in_gpu import Replaying
from understudy.models.graphs import Graphs

METHODS = ("DreamBooth", "LoRA", "Textual Inversion")


def graphed(make: Callable[..., Any], made: list[Graphs]) -> Callable[..., Any]:
    """What makes a model, whose U-Net is recorded."""

    def replaying(*args: Any) -> Any:
        model = make(*args)
        model.denoiser.graphs = Graphs(model.unet, Replaying())
        made.append(model.denoiser.graphs)
        return model

    return replaying


def rows() -> list[dict[str, Any]]:
    found, made = list[dict[str, Any]](), list[Graphs]()

    def told(what: str) -> None:
        graphs = made[-1]
        found.append({"what": what, "graphs": len(graphs), "replays": graphs.replays,
                      "compared": graphs.compared, "failure": graphs.failure})  # fmt: skip

    with patch.object(waits, "on_stand_in", graphed(waits.on_stand_in, made)):
        for loop in waits.loops():
            told(loop.what)
    with patch.object(training.Task, "model", graphed(training.Task.model, made)):
        for method in METHODS:
            told(waits.trained(method).what)
    return found


if __name__ == "__main__":
    print(json.dumps(rows()))
