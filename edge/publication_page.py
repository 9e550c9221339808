"""The publication for people: one page and one JSON file, which no device believes."""

from __future__ import annotations

import html
import json
from dataclasses import asdict

from .device.index import Index, Offer

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.3rem .8rem;text-align:left;"
    "border-bottom:1px solid #ccc}code{font-size:.85em;overflow-wrap:anywhere}"
)


def index_json(index: Index) -> bytes:
    """Return the index as readable JSON, without signatures."""
    table = asdict(index) | {
        "created": index.created.isoformat(),
        "expires": index.expires.isoformat(),
        "note": "for people; devices read index.sig",
    }
    return (json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def index_page(index: Index) -> bytes:
    """Return one self-contained HTML page: no script, nothing fetched, every text escaped."""
    offers = sorted(index.offers, key=lambda offer: -offer.version)
    rows = "".join(
        f"<tr><td>{offer.version}</td><td>{offer.size_bytes:,} bytes</td>"
        f'<td><a href="{html.escape(offer.folder)}/card.md">card</a></td>'
        f"<td>{_promise(offer)}</td>"
        f"<td><code>{html.escape(offer.digest)}</code></td></tr>"
        for offer in offers
    )
    gone = "".join(
        f"<li>version {each.version}: {html.escape(each.reason)}</li>" for each in index.withdrawn
    )
    name = html.escape(index.name)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{name}</title><style>{_STYLE}</style><h1>{name}</h1>"
        f"<p>Index {index.sequence} of {index.created:%Y-%m-%d %H:%M} UTC, valid until "
        f"{index.expires:%Y-%m-%d}. Devices trust <code>index.sig</code> and their own keys, "
        "never this page.</p>"
        f"<table><tr><th>version<th>files<th>about<th>privacy<th>digest</tr>{rows}</table>"
        + (f"<h2>Withdrawn</h2><ul>{gone}</ul>" if gone else "")
        + "<h2>On a device</h2><p>With Python 3.11, numpy, onnxruntime and cryptography, and two "
        "things that the publisher gives you <b>by another way than this page</b>: the public "
        "key, and <code>device.py</code>, which checks all the rest and which nothing checks. "
        'This <a href="device.py">device.py</a> is the same file if its SHA-256 '
        "(<code>sha256sum device.py</code>) is the one that you were told; what stands here does "
        "not count:</p>"
        "<pre>python device.py init home --from URL --key PEM\n"
        "python device.py pull home\npython device.py predict home INPUT</pre></html>\n"
    )
    return page.encode()


def _promise(offer: Offer) -> str:
    return "<b>simulated: no guarantee</b>" if offer.simulated else "as its card says"
