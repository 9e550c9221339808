"""``make_app(site)``: the Flower ClientApp that answers for one site."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from ._flwr import pack, unpack
from .site import Site


def make_app(site: Site) -> ClientApp:
    """Return a ClientApp bound to ``site``; the simulator and the site process call the same."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        del context
        return Message(pack(site.hello(unpack(message))), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        return Message(pack(site.train(unpack(message))), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        del context
        return Message(pack(site.evaluate(unpack(message))), reply_to=message)

    del hello, train, evaluate
    return app
