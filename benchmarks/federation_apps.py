"""The no-op round of benchmarks/federation.py: the same ServerApp and ClientApp on both sides."""

from __future__ import annotations

import json
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

server = ServerApp()
client = ClientApp()


@server.main()
def _main(grid: Grid, context: Context) -> None:
    """Drive ``rounds`` rounds of one message per site and write how long each took."""
    config = context.run_config
    if config["prompt"]:
        from collegium.server._flwr_pace import fetch_promptly

        fetch_promptly()
    sites, rounds = int(config["sites"]), int(config["rounds"])
    poll_s, size = float(config["poll"]), int(config["bytes"])
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    while len(nodes := list(grid.get_node_ids())) < sites:
        time.sleep(0.1)
    took: list[float] = []
    for number in range(rounds):
        payload = _array(data ^ np.uint8(number % 256))  # another model each round
        began = time.monotonic()
        content = RecordDict({"v": ArrayRecord({"p": payload})})
        messages = [Message(content, dst_node_id=n, message_type="train") for n in nodes]
        waiting = set(grid.push_messages(messages))
        while waiting:
            for reply in grid.pull_messages(list(waiting)):
                if reply.has_error():
                    raise RuntimeError(reply.error)
                waiting.discard(reply.metadata.reply_to_message_id)
            if waiting:
                time.sleep(poll_s)
        took.append(time.monotonic() - began)
    Path(str(config["out"])).write_text(json.dumps(took), encoding="utf-8")


@client.train()
def _train(message: Message, context: Context) -> Message:
    """Return as many other bytes; torch is imported, as any real client's is."""
    import torch  # the stock executor pays for it in every process

    del context, torch
    data = message.content.array_records["v"]["p"].numpy()
    # other bytes in every chunk: what the SuperLink holds already would not travel
    content = RecordDict({"v": ArrayRecord({"p": _array(data ^ np.uint8(0x5A))})})
    return Message(content, reply_to=message)


def _array(data: NDArray[np.uint8]) -> Array:
    """Return random bytes as one flat array: nothing of it can be compressed away."""
    stream = BytesIO()
    np.save(stream, data)
    return Array(dtype="uint8", shape=data.shape, stype="numpy.ndarray", data=stream.getvalue())


def _site(port: int, app: str, grid_s: float) -> None:
    """Be a site process that answers with ``client`` through Collegium's executor."""
    import torch

    torch.set_num_threads(1)
    from collegium.client._flwr_runtime import RuntimeAddress, RuntimeLink
    from collegium.client.executor import Executor

    with RuntimeLink(RuntimeAddress(port=port)) as link:
        Executor(link, client, apps=[app], grid_s=grid_s).run(threading.Event())


if __name__ == "__main__":
    _site(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
