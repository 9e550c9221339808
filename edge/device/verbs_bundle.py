"""``verify`` and ``predict``: what a device does with one bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .envelope import canonical_key
from .errors import DeviceError
from .home import Home, is_home
from .inputs import Batch, Reading, read_inputs, read_texts
from .names import SIMULATED
from .predicting import Verified
from .store import SETTINGS_FILE
from .tables import DELIMITERS
from .verbs import Outcome, Verb, shown, trust_arguments, trusted_keys
from .verify import verify_bundle


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="folder of a signed bundle, or HOME"
    )
    _trust(parser)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="folder of a signed bundle, or HOME"
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT",
                        help="file or folder of records; - for standard input")  # fmt: skip
    parser.add_argument("--text", action="append", default=[], metavar="TEXT",
                        help="a text, for a model of texts; may be given again")  # fmt: skip
    parser.add_argument("--delimiter", choices=tuple(DELIMITERS), default="",
                        help="what separates the fields of a table in UTF-8 (default: by its name, "
                        "else comma)")  # fmt: skip
    parser.add_argument("--missing", action="append", default=[], metavar="MARK",
                        help="what stands for a missing value, as an empty cell does, in every "
                        "column of a table; a mark of one column cannot be named")  # fmt: skip
    _trust(parser)


def _trust(parser: argparse.ArgumentParser) -> None:
    trust_arguments(parser)
    parser.add_argument("--allow-withdrawn", action="store_true",
                        help="in a home: use a version that its publisher took back")  # fmt: skip


def _opened(options: argparse.Namespace) -> Verified:
    """Verify a bundle with the keys that were given, or a home's with those of the home."""
    if is_home(options.bundle):
        if options.key or options.revoked or options.threshold != 1:
            reason = (
                f"a home trusts the keys in its {SETTINGS_FILE}, and no other; with --key, name "
                "the bundle itself: HOME/bundles/FOLDER"
            )
            raise DeviceError("USAGE", reason, 64)
        return Home(options.bundle).load(
            allow_simulated=options.allow_simulated,
            allow_expired=options.allow_expired,
            allow_withdrawn=options.allow_withdrawn,
        )
    return verify_bundle(
        options.bundle,
        trusted_keys(options),
        threshold=options.threshold,
        allow_simulated=options.allow_simulated,
        revoked=options.revoked,
        expired="warn" if options.allow_expired else "refuse",
    )


def _believed(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return whose keys were believed and who named them, as fields and as a line."""
    own = is_home(options.bundle)
    given = tuple(canonical_key(text) for text in options.key)
    keys = Home(options.bundle).trusts() if own else given
    line = f"trusted: {', '.join(keys)}, as --key says"
    if own:
        line = (
            f"trusted: {', '.join(keys)}, as this home's own {SETTINGS_FILE} says; for a folder "
            "that you did not make, check HOME/bundles/FOLDER with --key"
        )
    return {"trusted_keys": list(keys), "trusted_by": SETTINGS_FILE if own else "--key"}, line


def _verify(options: argparse.Namespace) -> Outcome:
    answer, lines = told(_opened(options))
    believed, line = _believed(options)
    return Outcome(answer=answer | believed, lines=(*lines, line))


def _predict(options: argparse.Namespace) -> Outcome:
    if not options.inputs and not options.text:
        raise DeviceError("USAGE", "name an INPUT, or give --text", 64)
    verified = _opened(options)
    answer, lines = told(verified)
    believed, line = _believed(options)
    answer.update(believed)
    reading = Reading(
        form=verified.form,
        tokenizer=verified.tokenizer,
        delimiter=options.delimiter,
        marks=tuple(options.missing),
    )
    answer.update(records=[], labels=[], probabilities=[])
    found = [*lines, line]
    if options.text:
        found += _answer(verified, read_texts(options.text, reading), answer)
    for batch in read_inputs(options.inputs, reading):
        found += _answer(verified, batch, answer)
    return Outcome(answer=answer, lines=tuple(found))


def _answer(verified: Verified, batch: Batch, answer: dict[str, Any]) -> list[str]:
    """Add the answers for one file to the object; return its lines."""
    labels, chances = verified.predict(batch.x)
    answer["notes"] += batch.notes
    answer["records"] += batch.called
    answer["labels"] += labels
    answer["probabilities"] += [[round(float(p), 6) for p in row] for row in chances]
    lines = [
        f"{shown(label)}\t{max(row):.4f}\t{shown(called)}"
        for label, row, called in zip(labels, chances, batch.called, strict=True)
    ]
    return [*batch.notes, *lines]


def told(verified: Verified) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what a verified bundle is, as an object and as lines."""
    predicate = verified.predicate
    note = SIMULATED if predicate["simulated"] is not False else ""
    notes = [*verified.notes, *([note] if note else [])]
    answer = {
        "ok": True,
        "name": predicate["name"],
        "version": predicate["version"],
        "digest": verified.digest,
        "expires": predicate["expires"],
        "simulated": predicate["simulated"],
        "selftest_agreement": verified.selftest_agreement,
        "note": note,
        "notes": notes,
    }
    lines = (
        f"verified: {answer['name']}, version {answer['version']}, until {answer['expires']}",
        f"self-test agreement {verified.selftest_agreement:.3f}",
        *notes,
    )
    return answer, lines


BUNDLE_VERBS = (
    Verb(
        name="verify",
        about="check a bundle: signature, expiry, files, self-test",
        example="bundle --key bundle.pub",
        arguments=_verify_arguments,
        run=_verify,
    ),
    Verb(
        name="predict",
        about="verify a bundle, then answer for records",
        example="bundle records.npy --key bundle.pub --json",
        arguments=_predict_arguments,
        run=_predict,
    ),
)
