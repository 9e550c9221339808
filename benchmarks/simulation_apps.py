"""The one ClientApp and ServerApp that every engine of ``simulation.py`` runs, unchanged."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

if TYPE_CHECKING:
    from torch import nn

EMPTY_PARAMETERS = 1_000
CNN_PARAMETERS = 1_199_882
CNN_STEPS = 2  # with 32 images each: 0.057 s of one idle core, as in the notes' figures
CNN_BATCH = 32
PAUSE_S = 0.01  # between two looks at a Grid that does not wait by itself

Vector = np.ndarray[Any, np.dtype[np.float32]]
OnRound = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run: ``kind`` (empty or cnn), ``clients`` asked in every round, ``rounds``."""

    kind: str
    clients: int
    rounds: int

    @property
    def parameters(self) -> int:
        """Return how many float32 numbers travel each way."""
        return CNN_PARAMETERS if self.kind == "cnn" else EMPTY_PARAMETERS


app = ClientApp()


@app.train("empty")
def answer_empty(message: Message, context: Context) -> Message:
    """Return a fresh vector and do nothing else: what is measured is the engine."""
    client = int(context.node_config["partition-id"])
    return _reply(message, np.full(EMPTY_PARAMETERS, client, dtype=np.float32))


@app.train("cnn")
def answer_cnn(message: Message, context: Context) -> Message:
    """Return the received model after a few steps on this client's own images."""
    return _reply(message, train_cnn(_vector(message), int(context.node_config["partition-id"])))


def make_server(case: Case, on_round: OnRound) -> ServerApp:
    """Return a ServerApp that uses ``push_messages`` and ``pull_messages`` and nothing else."""
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        vector = first_model(case.parameters)
        for number in range(1, case.rounds + 1):
            vector = one_round(grid, case, vector)
            on_round(number)

    del main
    return server


def one_round(grid: Grid, case: Case, vector: Vector) -> Vector:
    """Send (d,) to every client, fold the replies as they arrive, and return their mean (d,)."""
    nodes = _all_nodes(grid, case.clients)
    content = RecordDict({"model": ArrayRecord([vector])})
    waiting = set(
        grid.push_messages(
            Message(content, dst_node_id=node, message_type=f"train.{case.kind}") for node in nodes
        )
    )
    total = np.zeros_like(vector)
    while waiting:
        replies = list(grid.pull_messages(list(waiting)))
        if not replies:
            time.sleep(PAUSE_S)
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"a client failed: {reply.error.code} {reply.error.reason}")
            waiting.discard(reply.metadata.reply_to_message_id)
            total += _vector(reply)
    return total / np.float32(len(nodes))


def train_cnn(vector: Vector, client: int) -> Vector:
    """Return (d,) after ``CNN_STEPS`` SGD steps of the resident model on synthetic images."""
    import torch
    from torch.nn import functional

    model = _resident_cnn(threading.get_ident())
    images, labels = _images(client)
    _load(model, vector)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(CNN_STEPS):
        batch = slice(step * CNN_BATCH, (step + 1) * CNN_BATCH)
        optimiser.zero_grad()
        functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimiser.step()
    return _flat(model)


@functools.cache
def _resident_cnn(thread: int) -> nn.Module:
    """Build this worker's model once, whether the worker is a thread or a process.

    One torch thread each: with more, workers fight for the cores.
    """
    del thread
    import torch
    from torch import nn

    torch.set_num_threads(1)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _images(client: int) -> tuple[Any, Any]:
    """Return a client's images (n, 1, 28, 28) and labels (n,), the same in every round."""
    import torch

    count = CNN_STEPS * CNN_BATCH
    chance = torch.Generator().manual_seed(client)
    images = torch.randn(count, 1, 28, 28, generator=chance)
    return images, torch.randint(0, 10, (count,), generator=chance)


def _load(model: nn.Module, vector: Vector) -> None:
    import torch
    from torch.nn.utils import vector_to_parameters

    with torch.no_grad():
        vector_to_parameters(torch.from_numpy(vector.copy()), model.parameters())


def _flat(model: nn.Module) -> Vector:
    from torch.nn.utils import parameters_to_vector

    return parameters_to_vector(model.parameters()).detach().numpy()


def first_model(size: int) -> Vector:
    """Return (size,) small numbers: an all-zero CNN would pass back no gradients."""
    return np.random.default_rng(0).normal(0.0, 0.02, size).astype(np.float32)


def _vector(message: Message) -> Vector:
    record = message.content.array_records["model"]
    return next(iter(record.values())).numpy()


def _reply(message: Message, vector: Vector) -> Message:
    return Message(RecordDict({"model": ArrayRecord([vector])}), reply_to=message)


def _all_nodes(grid: Grid, count: int) -> list[int]:
    """Return the nodes once all are connected: Ray registers them while the ServerApp starts."""
    while len(nodes := sorted(grid.get_node_ids())) < count:
        time.sleep(PAUSE_S)
    return nodes[:count]
