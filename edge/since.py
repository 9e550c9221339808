"""A new model against the bundle in the field, on the same public test part: no worse one ships."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from ..core.errors import ACCEPT, GateFailed, InvalidInput, MissingInput, Refused, Verdict, refuse
from ..data.public import PublicSet
from ..models.evaluate import finite_outputs
from ..privacy.origin import require_releasable
from .device import DeviceError, Verified, open_session, verify_bundle
from .device.forms import parse_form
from .device.names import FORM_FILE, LABELS_FILE, VOCABULARY_FILE
from .parity import AT_ONCE, answers, together
from .parity_figures import figures_of
from .parity_gate import Interval
from .parity_intervals import accuracy_difference, auc_difference, has_auc, resampled_auc
from .uses import about

TOLERANCE = 0.01  # of accuracy and AUC, that a point estimate may be lower


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The bundle in the field as a device verified it, and what the next one is called."""

    verified: Verified

    @property
    def digest(self) -> str:
        """Return the digest of its signed statement: ``previous`` of the next bundle."""
        return self.verified.digest

    @property
    def version(self) -> int:
        """Return its version."""
        return int(self.verified.predicate["version"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The new model beside the one in the field, on ``n`` records of the same public set.

    ``field_digest`` is what the new bundle names as the one before.
    Gains are new minus field, each with its 95 % interval; None where undefined. ``verdict`` says
    whether it may ship.
    """

    field_digest: str
    field_version: int
    test: dict[str, Any]
    n: int
    agreement: float
    accuracy: float | None
    field_accuracy: float | None
    accuracy_gain: float | None
    accuracy_gain_ci: Interval | None
    auc: float | None
    field_auc: float | None
    auc_gain: float | None
    auc_gain_ci: Interval | None
    tolerance: float
    verdict: Verdict

    def row(self) -> dict[str, Any]:
        """Return the comparison as plain values, for parity.json and result.json."""
        values = asdict(self)
        for key in ("accuracy_gain_ci", "auc_gain_ci"):
            values[key] = None if values[key] is None else list(values[key])
        return values


def open_field(
    bundle: Path,
    trusted: Sequence[Ed25519PublicKey],
    *,
    threshold: int = 1,
    allow_simulated: bool = False,
) -> Field:
    """Return the bundle in the field, verified as a device does; one that expired still compares.

    Raises ``Refused`` with the device's reason, for what is not verified is not run, and
    ``MissingInput`` when it is not there.
    """
    try:
        verified = verify_bundle(
            bundle, trusted, threshold=threshold, allow_simulated=allow_simulated, expired="warn"
        )
    except DeviceError as error:
        if error.exit_code == MissingInput.exit_code:
            raise MissingInput(f"the bundle in the field is not there: {error.reason}") from None
        raise Refused(
            f"the bundle in the field is refused: {error.code}",
            why=error.reason,
            cure="name the bundle that devices have, and the key that signed it",
        ) from None
    return Field(verified=verified)


def compare(
    new_model: bytes,
    field: Field,
    test: PublicSet,
    *,
    files: Mapping[str, bytes],
    tolerance: float = TOLERANCE,
    recipe: str = "",
    at_once: int = AT_ONCE,
) -> Comparison:
    """Return how the new model's answers stand beside the field's on the public test part.

    ``files`` holds the new bundle's input.json, labels.json and, for texts, vocab.txt (bytes by
    name), ``recipe`` says how the new model is quantized; ``at_once`` records, at most, go through
    a session together. Raises ``Refused`` when the files say
    another thing than the field's: devices would read or name records otherwise without being
    told. Pass the result to ``require_not_worse``.
    """
    require_releasable(test.origin, "the comparison with the bundle in the field")
    require_same_form(field.verified, files)
    if len(test) == 0:
        raise InvalidInput("the comparison needs a public test part", why="this one is empty")
    old_recipe = str(field.verified.predicate.get("gate", {}).get("recipe", ""))
    new = _outputs(open_session(new_model), test, recipe, at_once)
    old = _outputs(field.verified.session, test, old_recipe, at_once)
    if new.shape != old.shape:
        raise Refused(
            "the new model answers in another form than the one in the field",
            why=f"{new.shape[1:]} outputs, {old.shape[1:]} in the field",
            cure="publish it under another name, as a bundle of its own",
        )
    own, other = figures_of(new, test.y), figures_of(old, test.y)
    accuracy, accuracy_ci = _accuracy_gain(new, old, test.y)
    auc, auc_ci = _auc_gain(new, old, test.y, own, other)
    return Comparison(
        field_digest=field.digest,
        field_version=field.version,
        test=about(test),
        n=len(test),
        agreement=float((new.argmax(axis=1) == old.argmax(axis=1)).mean()),
        accuracy=own.get("accuracy"),
        field_accuracy=other.get("accuracy"),
        accuracy_gain=accuracy,
        accuracy_gain_ci=accuracy_ci,
        auc=own.get("auc"),
        field_auc=other.get("auc"),
        auc_gain=auc,
        auc_gain_ci=auc_ci,
        tolerance=tolerance,
        verdict=judge(
            {"accuracy": (accuracy, accuracy_ci), "AUC": (auc, auc_ci)}, tolerance=tolerance
        ),
    )


def judge(
    gains: Mapping[str, tuple[float | None, Interval | None]], *, tolerance: float = TOLERANCE
) -> Verdict:
    """Return whether gains over the bundle in the field, by figure, let the new one ship.

    It is worse when a figure is lower by more than ``tolerance``, or lower at all with its whole
    interval below 0. An undefined figure says nothing; when all are, there is nothing to go by.
    """
    known = {name: found for name, found in gains.items() if found[0] is not None}
    if not known:
        return refuse(
            "no figure",
            "nothing can be said of it: the test part has no labels",
            "give a public test part with labels",
        )
    for name, (gain, interval) in known.items():
        low, high = interval or (-1.0, 1.0)
        if gain is None or not (gain >= -tolerance and high >= 0):
            return refuse(
                "worse",
                f"its {name} is {-(gain or 0.0):.3f} below that of the bundle in the field (95 % "
                f"interval of the difference {low:+.3f} to {high:+.3f}; {tolerance} is allowed, "
                "and an interval wholly below 0 is not)",
                "train it longer or on more data, or keep the bundle in the field; a withdrawal "
                "needs no better model",
            )
    return ACCEPT


def require_not_worse(found: Comparison) -> None:
    """Raise ``GateFailed`` with the figures when the new model is worse than the field's."""
    if found.verdict.ok:
        return
    raise GateFailed(
        f"this model may not follow version {found.field_version}",
        why=f"on {found.n} records of '{found.test['name']}' {found.verdict.reason}",
        cure=found.verdict.cure,
    )


def require_same_form(field: Verified, files: Mapping[str, bytes]) -> None:
    """Raise ``Refused`` unless the new bundle reads the same records and names the same classes.

    ``files`` as for ``compare``; without input.json, as a bundle from before that file, the
    classes alone are compared. Raises ``InvalidInput`` for files that no device could read.
    """
    try:
        labels = tuple(json.loads(files[LABELS_FILE])["classes"])
        form = parse_form(files[FORM_FILE]) if FORM_FILE in files else field.form
    except (DeviceError, KeyError, TypeError, ValueError):
        raise InvalidInput(
            f"the new bundle has no {LABELS_FILE} or {FORM_FILE} that a device could read"
        ) from None
    vocabulary = files.get(VOCABULARY_FILE)
    digest = None if vocabulary is None else hashlib.sha256(vocabulary).hexdigest()
    differences = {
        "other classes": labels != field.labels,
        "other records": form != field.form,
        "another vocabulary": digest != field.subjects.get(VOCABULARY_FILE),
    }
    if found := [what for what, differs in differences.items() if differs]:
        raise Refused(
            f"the new model has {', '.join(found)} than the bundle in the field",
            why="an update would change, unseen, what devices read or what an answer means",
            cure="publish it under another name, as a bundle of its own",
        )


def _outputs(
    session: ort.InferenceSession, test: PublicSet, recipe: str, at_once: int
) -> NDArray[Any]:
    return finite_outputs(answers(session, test.x, together(recipe, test.x, at_once)))


def _accuracy_gain(
    new: NDArray[Any], old: NDArray[Any], y: NDArray[np.int64] | None
) -> tuple[float | None, Interval | None]:
    if y is None:
        return None, None
    found = accuracy_difference(new.argmax(axis=1) == y, old.argmax(axis=1) == y)
    return found.value, found.interval


def _auc_gain(
    new: NDArray[Any],
    old: NDArray[Any],
    y: NDArray[np.int64] | None,
    own: Mapping[str, float],
    other: Mapping[str, float],
) -> tuple[float | None, Interval | None]:
    if y is None or "auc" not in own or "auc" not in other or not has_auc(y, new.shape[1]):
        return None, None
    found = auc_difference(own["auc"] - other["auc"], resampled_auc(new, y), resampled_auc(old, y))
    return found.value, found.interval
