"""``make_app(site)``: the Flower ClientApp that answers for one site."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from ..core.messages import BadMessage, Sealed
from ._flwr import pack, unpack
from .site import Site

logger = logging.getLogger(__name__)

NOT_ANSWERED = "the site did not answer"
CLIENT_APP_RAISED = 2  # Flower's code


def make_app(site: Site) -> ClientApp:
    """Return a ClientApp bound to ``site``; the simulator and the site process call the same."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        del context
        return _answer(site.hello, message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        return _answer(site.train, message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        del context
        return _answer(site.evaluate, message)

    del hello, train, evaluate
    return app


def _answer(ask: Callable[[Sealed], Sealed], message: Message) -> Message:
    """Return the site's signed answer, or one fixed error.

    Flower would send an exception's text, which may hold a record, to the coordinator.
    """
    try:
        return Message(pack(ask(unpack(message))), reply_to=message)
    except BadMessage as error:
        logger.warning("a %s message was refused: %s", message.metadata.message_type, error.code)
    except Exception:
        logger.exception("a %s message could not be answered", message.metadata.message_type)
    return Message(Error(code=CLIENT_APP_RAISED, reason=NOT_ANSWERED), reply_to=message)
