"""The ClientApp as a plain call: signed bytes in and out, and no exception's text ever leaves."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from collegium.client._flwr import pack, unpack
from collegium.client.app import make_app
from collegium.core.messages import Hello, Report, Sealed, Update
from collegium.simulations._flwr import become_server, context_of, stamp

CANARY = "canary-patient-4711"


def ask(app: Any, content: RecordDict, kind: str) -> Message:
    """One message to an app, as a Grid would hand it over."""
    become_server()
    message = Message(content, dst_node_id=2, message_type=kind)
    stamp(message, "m-1")
    reply = app(message, context_of(2, 0, 1))
    assert reply.metadata.reply_to_message_id == "m-1"
    return reply


def test_three_questions(make_counter: Any) -> None:
    counter = make_counter()
    app = make_app(counter.site)
    hello = Hello(job="0" * 32, site="", plan="p", nonce="n", ledger_head="").seal(counter.key)
    assert Hello.open(unpack(ask(app, pack(hello), "query.hello")), counter.public).nonce == "n"
    reply = unpack(ask(app, pack(counter.ask()), "train"))
    assert Update.open(reply, counter.public).round == 1
    reply = unpack(ask(app, pack(counter.ask()), "evaluate"))
    assert Report.open(reply, counter.public).site == "s0"


@pytest.mark.parametrize("kind", ["query.hello", "train", "evaluate"])
def test_no_exceptions_text_leaves(
    make_counter: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Flower would send the text of an exception to the coordinator."""
    counter = make_counter()

    def fail(*_: object, **__: object) -> Any:
        raise ValueError(f"could not convert '{CANARY}'")

    for target, name in (
        (counter.site._trainer, "train"),
        (counter.site._trainer, "evaluate"),
        (counter.site, "_metrics"),
        (Sealed, "size_bytes"),
        (counter.site, "hello"),
    ):
        monkeypatch.setattr(target, name, fail)
    question = counter.ask()
    if kind == "query.hello":
        question = Hello(job="0" * 32, site="", plan="p", nonce="n", ledger_head="").seal(
            counter.key
        )
    reply = ask(make_app(counter.site), pack(question), kind)
    assert CANARY not in str(reply)
    if reply.has_error():
        assert reply.error.code == 2
        assert CANARY not in str(reply.error)
    else:
        assert CANARY.encode() not in unpack(reply).header


@pytest.mark.parametrize("kind", ["query.hello", "train", "evaluate"])
@pytest.mark.parametrize("content", ["empty", "rubbish", "stranger"])
def test_strangers_get_one_fixed_error(make_counter: Any, kind: str, content: str) -> None:
    from collegium.core.signing import generate_key

    counter = make_counter()
    records = {
        "empty": RecordDict(),
        "rubbish": RecordDict({"seal": ConfigRecord({"header": CANARY})}),
        "stranger": pack(counter.ask(key=generate_key())),
    }[content]
    reply = ask(make_app(counter.site), records, kind)
    assert reply.has_error()
    assert not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (2, "the site did not answer")
    assert counter.kinds == ["genesis"]
