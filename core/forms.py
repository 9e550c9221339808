"""How single words in plan and site files must be written: names, digests, keys, model names."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
import unicodedata

MAX_TEXT = 200
MAX_NAME = 63
FAMILIES = (
    "collegium", "torchvision", "timm", "hf", "tabular", "text", "segmentation", "cifar", "plugin",
)  # fmt: skip
METRICS = (
    "accuracy",
    "macro_accuracy",
    "balanced_accuracy",
    "auc",
    "average_precision",
    "dice",
    "c_index",
    "calibration_error",
    "brier",
    "sensitivity",
    "specificity",
    "positive_rate",
    "rmse",
    "mae",
    "r2",
)

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COUNTED = re.compile(r"(lora|last):([1-9][0-9]{0,5})")
_PLUGIN = re.compile(r"plugin:[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_EVERY = re.compile(r"every:([1-9][0-9]{0,8})")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Windows opens a device instead of a file for these, with any extension.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))]
)


_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Printable to Python, nothing to the eye: default-ignorables, Hangul fillers, blank Braille."""


def text_fault(value: str) -> str:
    """Return why a text cannot be shown safely on one line, or '' when it can."""
    if not value.strip():
        return "is empty"
    if len(value) > MAX_TEXT:
        return f"has {len(value)} characters, more than {MAX_TEXT}"
    if not value.isprintable():
        return "holds a line break or another character that cannot be printed"
    if _INVISIBLE.search(value):
        return "holds a character that nobody can see"
    return ""


def folded(value: str) -> str:
    """Return a text as people compare names: its letters and digits alone.

    Case, letter width, spaces, punctuation and loose marks do not count: names that look alike
    must not count as two.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    return "".join(character for character in plain if character.isalnum())


def name_fault(value: str) -> str:
    """Return why a name is not safe as a file name on every system, or ''."""
    if len(value) > MAX_NAME:
        return f"has {len(value)} characters, more than {MAX_NAME}"
    if value in _DEVICES:
        return "is the name of a device on Windows"
    return "" if _NAME.fullmatch(value) else "is not made of a-z, 0-9 and inner hyphens"


def digest_fault(value: str) -> str:
    """Return why a text is no SHA-256 digest of ours, or ''."""
    if _DIGEST.fullmatch(value):
        return ""
    if not value.startswith("sha256:"):
        return "does not begin with 'sha256:'"
    return "does not have 64 lower-case hexadecimal digits after 'sha256:'"


def key_fault(value: str) -> str:
    """Return why a text is no public key of the form ``ed25519:BASE64(32 bytes)``, or ''."""
    head, _, body = value.partition(":")
    if head != "ed25519":
        return "does not begin with 'ed25519:'"
    try:
        size = len(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        return "is not valid base64 after 'ed25519:'"
    return "" if size == 32 else f"holds {size} bytes of key, not 32"


def model_fault(value: str) -> str:
    """Return why a text is no model name of the form ``FAMILY:NAME``, or ''."""
    family, colon, name = value.partition(":")
    if not colon:
        return "has no family before the name"
    if family not in FAMILIES:
        return f"names the unknown family '{family}'"
    return "" if name.strip() else "has no name after the family"


def plugin_fault(value: str) -> str:
    """Return why a text is no name of a plug-in, ``plugin:NAME``, or ''."""
    return "" if _PLUGIN.fullmatch(value) else "is not of the form plugin:NAME"


def trainable_fault(value: str) -> str:
    """Return why a text does not say what of a model trains, or ''."""
    if value in {"head", "bias", "norm", "all"} or _COUNTED.fullmatch(value):
        return ""
    return "is not a known choice of what trains"


def evaluation_fault(value: str) -> str:
    """Return why a text does not say after which rounds to evaluate, or ''."""
    if value == "last" or _EVERY.fullmatch(value):
        return ""
    return "is neither 'last' nor 'every:N' with N of at least 1"


def split_fault(value: str) -> str:
    """Return why a text does not say how a data set is split over the sites, or ''."""
    if value == "iid":
        return ""
    head, _, alpha = value.partition(":")
    if head != "dirichlet":
        return "is neither 'iid' nor 'dirichlet:ALPHA'"
    if not _DECIMAL.fullmatch(alpha):
        return "has no plain number after 'dirichlet:'"
    strength = float(alpha)
    in_range = math.isfinite(strength) and 1e-3 <= strength <= 1e6
    return "" if in_range else "has an ALPHA outside 0.001 to 1000000"


def split_address(value: str) -> tuple[str, int]:
    """Return host (without brackets) and port of ``HOST:PORT``; raises ``ValueError``."""
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port):
        raise ValueError(value)
    bracketed = host.startswith("[") and host.endswith("]")
    return (host[1:-1] if bracketed else host), int(port)


def address_fault(value: str) -> str:
    """Return why a text is no ``HOST:PORT`` with a DNS name or IP address, or ''."""
    try:
        host, port = split_address(value)
    except ValueError:
        return "does not end with a colon and a port number"
    if port > 65535:
        return "has a port above 65535"
    if value.startswith("["):
        return "" if _is_ip(host, 6) else "has no IPv6 address in its brackets"
    if ":" in host:
        return "has an IPv6 address without brackets"
    if re.fullmatch(r"[0-9.]+", host):
        return "" if _is_ip(host, 4) else "has no IPv4 address before the port"
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "has no host name of a-z, 0-9, hyphens and dots before the port"
    return ""


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version and "%" not in host
    except ValueError:
        return False


def device_fault(value: str) -> str:
    """Return why a text names no compute device, or ''."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", value):
        return ""
    return "is not a known device"
