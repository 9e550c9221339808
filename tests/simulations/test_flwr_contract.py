"""What we rely on inside Flower: a new release that changes it fails here first."""

import subprocess
import sys
from importlib.metadata import version
from typing import Any

import flwr.app
import flwr.clientapp
import flwr.serverapp
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.client import _flwr as client_side
from collegium.core.messages import BadMessage, Sealed
from collegium.server import _flwr as server_side
from collegium.simulations._flwr import become_server, context_of, stamp
from collegium.simulations.grid import LocalGrid

MOST = 1 << 20


def unpack(side: Any, message: Message) -> Sealed:
    """The coordinator's side bounds what it copies, a site's takes the model that comes."""
    return side.unpack(message, MOST) if side is server_side else side.unpack(message)


SIDES = pytest.mark.parametrize("side", [client_side, server_side], ids=["client", "server"])
SEALED = Sealed(header=b'{"a":1}', signature=b"\x00\xff" * 32, payload=bytes(range(256)))


def test_the_range_that_we_support() -> None:
    major, minor = (int(part) for part in version("flwr").split(".")[:2])
    assert (1, 41) <= (major, minor) < (1, 43)


def test_names() -> None:
    for name in ("Array", "ArrayRecord", "ConfigRecord", "Context", "Error", "Message",
                 "MessageType", "MetricRecord", "RecordDict"):  # fmt: skip
        assert hasattr(flwr.app, name)
    assert hasattr(flwr.clientapp, "ClientApp")
    assert hasattr(flwr.serverapp, "ServerApp")
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

    assert Run.create_empty(run_id=1).run_id == 1
    assert {"task_id", "run_id", "node_id"} <= set(vars(type(TaskIdentity)))


def test_constants_that_supervision_relies_on() -> None:
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE, ErrorCode
    from flwr.supercore.exit import ExitCode

    assert (HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE) == (30, 2)
    assert ExitCode.SUPERNODE_CONNECTION_ERROR == 305
    assert ErrorCode.CLIENT_APP_RAISED_EXCEPTION == 2


def test_a_message_needs_an_identity() -> None:
    """In a process of its own: here somebody may have become the server already."""
    code = (
        "from flwr.app import Message, RecordDict\n"
        "try: Message(RecordDict(), dst_node_id=2, message_type='train')\n"
        "except RuntimeError: print('refused')\n"
        "from collegium.simulations._flwr import become_server\n"
        "become_server()\n"
        "m = Message(RecordDict(), dst_node_id=2, message_type='train')\n"
        "print(m.metadata.run_id, m.metadata.src_node_id, m.metadata.dst_node_id)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "1", "1", "2"]


def test_a_message_and_its_reply_keep_their_ids() -> None:
    become_server()
    question = Message(RecordDict(), dst_node_id=7, message_type="query.hello")
    stamp(question, "q-1")
    reply = Message(server_side.pack(SEALED), reply_to=question)
    stamp(reply, "r-1")
    assert question.metadata.message_id == "q-1"
    assert reply.metadata.message_id == "r-1"
    assert reply.metadata.reply_to_message_id == "q-1"
    assert reply.metadata.message_type == "query.hello"
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (7, 1)
    assert reply.has_content() and not reply.has_error()


def test_error_replies_have_no_content() -> None:
    become_server()
    question = Message(RecordDict(), dst_node_id=7, message_type="train")
    stamp(question, "q-1")
    reply = Message(Error(code=2, reason="no"), reply_to=question)
    assert reply.has_error() and not reply.has_content()
    with pytest.raises(ValueError):
        _ = reply.content


def test_our_grid_lacks_nothing() -> None:
    assert LocalGrid.__abstractmethods__ == frozenset()
    assert {"set_run", "run", "create_message", "get_node_ids", "push_messages",
            "pull_messages", "send_and_receive"} <= set(dir(flwr.serverapp.Grid))  # fmt: skip


def test_context() -> None:
    context = context_of(5, 3, 9)
    assert context.node_id == 5
    assert context.node_config == {"partition-id": 3, "num-partitions": 9}


@SIDES
def test_records_round_trip_between_both_sides(side: object) -> None:
    become_server()
    message = Message(client_side.pack(SEALED), dst_node_id=2, message_type="train")
    assert unpack(side, message) == SEALED
    message = Message(server_side.pack(SEALED), dst_node_id=2, message_type="train")
    assert unpack(side, message) == SEALED


def test_a_shared_array_is_the_same_message() -> None:
    become_server()
    shared = server_side.pack(SEALED, server_side.array_of(SEALED.payload))
    assert client_side.unpack(Message(shared, dst_node_id=2, message_type="train")) == SEALED


def test_our_array_is_one_that_flower_reads() -> None:
    """The real wire serialises these records; a stock peer would read the same bytes."""
    record = client_side.pack(SEALED).array_records["vector"]
    assert record["payload"].numpy().tobytes() == SEALED.payload


@SIDES
@given(data=st.data())
@settings(deadline=None, max_examples=80)
def test_any_records_are_read_or_refused(side: object, data: st.DataObject) -> None:
    """Whatever a peer puts into a RecordDict: signed bytes, or BadMessage; never another error."""
    become_server()
    scalars = st.one_of(st.integers(-9, 9), st.floats(), st.text(max_size=3), st.binary(max_size=9))
    configs = st.dictionaries(
        st.sampled_from(["header", "signature", "x"]), scalars, max_size=3
    ).map(ConfigRecord)
    arrays = st.dictionaries(
        st.sampled_from(["payload", "x"]),
        st.binary(max_size=200).map(
            lambda raw: Array(dtype="uint8", shape=(1,), stype="numpy.ndarray", data=raw)
        ),
        max_size=2,
    ).map(ArrayRecord)
    metrics = st.dictionaries(st.text(max_size=2), st.floats(), max_size=1).map(MetricRecord)
    records = data.draw(
        st.dictionaries(
            st.sampled_from(["seal", "vector", "more"]),
            st.one_of(configs, arrays, metrics),
            max_size=3,
        )
    )
    message = Message(RecordDict(records), dst_node_id=2, message_type="train")
    try:
        sealed = unpack(side, message)
    except BadMessage as error:
        assert error.code in {"schema", "payload"}
        return
    assert set(records) == {"seal", "vector"}
    assert isinstance(sealed.header, bytes)
