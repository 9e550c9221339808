"""What Flower's own executor finds in the app bundle: an app that answers nothing.

A site answers through its own process (``executor``); where somebody starts Flower's stock
executor instead, no record is within its reach and every message is an error.
"""

from __future__ import annotations

from flwr.clientapp import ClientApp

app = ClientApp()
