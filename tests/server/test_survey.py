"""Common statistics and calibration: lies refused, durable before the rounds, never asked twice."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message

from collegium.client import spool
from collegium.client._flwr import pack, unpack
from collegium.client.app import make_app
from collegium.core import files
from collegium.core.digest import canonical_bytes, sha256_hex
from collegium.core.errors import Interrupted, InvalidInput, Refused
from collegium.core.messages import CALIBRATION, ONCE, STATISTICS, Sealed
from collegium.core.plan import Plan
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.core.signing import generate_key, pae
from collegium.models.fitted import MEAN, OFFSET, SCALE, TEMPERATURE
from collegium.privacy.ledger import Ledger
from collegium.server import disk, store
from collegium.server.survey_result import fitted_entries, fitted_of
from collegium.simulations.grid import LocalGrid

MakePlan = Callable[..., Any]


def fitting(plan: Plan, **changes: Any) -> Plan:
    """The plan with common statistics and calibration."""
    wanted = {"statistics": Statistics(share=0.3), "calibration": Calibration(bins=8)}
    return replace(plan, **(wanted | changes))


def constants(lab: Any, vector: Any) -> dict[str, Any]:
    """The fitted constants of a released model, by name."""
    return lab.consortium.fitted.split(vector[lab.consortium.layout.size :])


def test_exact_sums_give_the_pooled_statistics(make_lab: Any, make_plan: MakePlan) -> None:
    plan = fitting(make_plan(3, rounds=1, privacy={"enabled": False}), calibration=None)
    lab = make_lab(plan)
    found = constants(lab, lab.run())
    x = np.concatenate([site.records.train_x for site in lab.sites.values()]).astype(np.float64)
    np.testing.assert_allclose(found[MEAN], x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[SCALE], x.std(axis=0), rtol=1e-5)


def test_every_round_has_the_statistics_and_only_the_release_the_threshold(
    make_lab: Any, make_plan: MakePlan
) -> None:
    lab = make_lab(fitting(make_plan(3, rounds=3)))
    seen: list[Any] = []
    vector = lab.run(evaluate=lambda each: seen.append(each.copy()) or {})
    size, e = lab.consortium.layout.size, lab.consortium.fitted.size
    assert vector.shape == (size + e,)
    before = [constants(lab, each) for each in seen]
    assert len(seen) == 3
    for each in before:
        assert np.array_equal(each[MEAN], constants(lab, vector)[MEAN])
        assert np.array_equal(each[SCALE], constants(lab, vector)[SCALE])
        assert each[TEMPERATURE].tolist() == [1.0] and each[OFFSET].tolist() == [0.0, 0.0]
    answers = lab.store.recall("statistics")["answers"]
    assert set(answers) == set(lab.sites)
    for name in lab.sites:
        kinds = [
            (entry.kind, entry.round, entry.attempt)
            for entry in lab.consortium.ledgers[name].entries()
            if entry.kind == "reserve"
        ]
        rounds = [("reserve", number, 1) for number in (1, 2, 3)]
        once = [("reserve", ONCE, question) for question in (STATISTICS, CALIBRATION)]
        assert kinds == [once[0], *rounds, once[1]]


def test_a_shifted_logit_is_repaired(make_lab: Any, make_plan: MakePlan) -> None:
    """Without noise the threshold undoes a shift of the scores, whatever moved them."""
    plan = fitting(make_plan(2, rounds=1, privacy={"enabled": False}), statistics=None)
    lab = make_lab(plan)
    opened = lab.consortium.opened.copy()
    opened[:3], opened[3:6], opened[7] = [-4.0, 0, 0], [4.0, 0, 0], 3.0
    from collegium.server.courier import Courier
    from collegium.server.grid_post import GridPost
    from collegium.server.roll import Roll
    from collegium.server.survey import Surveyor

    with LocalGrid([make_app(site) for site in lab.sites.values()]) as grid:
        task, post = lab.task(), GridPost(grid)
        roll = Roll(task, post, {})
        surveyor = Surveyor(task, Courier(task, post, roll), roll.look)
        found = constants(lab, surveyor.calibrated(opened, roll.heads))
    assert found[OFFSET][0] == 0 and abs(found[OFFSET][1] + 3.0) <= 24 / 8


# --- lies -----------------------------------------------------------------------------------


def signed(key: Any, values: dict[str, Any], payload: bytes) -> Sealed:
    header = canonical_bytes(values | {"payload_sha256": sha256_hex(payload)})
    message = pae("application/vnd.collegium.survey+json", header)
    return Sealed(header=header, signature=key.sign(message), payload=payload)


def with_sums(change: Callable[[Any], Any]) -> Any:
    def lie(key: Any, honest: Sealed) -> Sealed:
        sums = change(np.frombuffer(honest.payload, dtype="<f4").copy())
        return signed(key, json.loads(honest.header), sums.astype("<f4").tobytes())

    return lie


def with_header(**changes: Any) -> Any:
    def lie(key: Any, honest: Sealed) -> Sealed:
        return signed(key, json.loads(honest.header) | changes, honest.payload)

    return lie


def another_key(_: Any, honest: Sealed) -> Sealed:
    return signed(generate_key(), json.loads(honest.header), honest.payload)


DIGEST = "sha256:" + "5" * 64
LIES: dict[str, tuple[Any, str]] = {
    "too few sums": (with_sums(lambda s: s[:-1]), "shape"),
    "too many sums": (with_sums(lambda s: np.append(s, s)), "shape"),
    "NaN": (with_sums(lambda s: s * np.float32("nan")), "nonfinite"),
    "infinite": (with_sums(lambda s: s / np.float32(0)), "nonfinite"),
    "huge": (with_sums(lambda s: np.full_like(s, 1e6)), "norm"),
    "another key": (another_key, "signature"),
    "another job": (with_header(job="1" * 32), "round"),
    "another site": (with_header(site="s0"), "round"),
    "another question": (with_header(attempt=CALIBRATION), "round"),
    "another mechanism": (with_header(spec=DIGEST), "round"),
    "about a model": (with_header(base_sha256=DIGEST), "round"),
    "no ledger head": (with_header(ledger_head="none"), "schema"),
    "another field": (with_header(note="hello"), "schema"),
}


def lying(lab: Any, lie: Any, *, question: int = STATISTICS) -> Callable[[str, Any], Any]:
    """Site s1 tells the lie in the place of its honest answer to one question."""

    def wrap(name: str, app: Any) -> Any:
        def told(message: Message, context: Context) -> Message:
            reply = app(message, context)
            if name != "s1" or message.metadata.message_type != "evaluate":
                return reply
            asked = json.loads(unpack(message).header)
            if (asked["round"], asked["attempt"]) != (ONCE, question):
                return reply
            return Message(pack(lie(lab.sites[name]._key, unpack(reply))), reply_to=message)

        return told

    return wrap


@pytest.mark.parametrize("name", sorted(LIES))
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_lie_is_refused_and_the_others_count(
    make_lab: Any, make_plan: MakePlan, name: str
) -> None:
    lie, code = LIES[name]
    lab = make_lab(fitting(make_plan(2, rounds=1), calibration=None))
    lab.run(lying(lab, lie))
    found = lab.store.recall("statistics")
    assert found["refused"] == {"s1": code}
    assert set(found["answers"]) == {"s0"}


def test_a_lie_about_scores_is_refused(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(fitting(make_plan(2, rounds=1), statistics=None))
    lab.run(lying(lab, LIES["huge"][0], question=CALIBRATION))
    assert lab.store.recall("calibration")["refused"] == {"s1": "norm"}


def test_nobody_admitted_is_refused(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(fitting(make_plan(2, rounds=1), calibration=None))
    for site in lab.sites.values():
        site.brake.paused = True
    with pytest.raises(Refused, match="cancelled"):
        lab.run()
    assert lab.store.recall("statistics") is None
    for site in lab.sites.values():
        site.brake.paused = False
    assert lab.run().shape == (8 + 6,)


def without(absent: str) -> Callable[[str, Any], Any]:
    """One site cannot be reached."""

    def wrap(name: str, app: Any) -> Any:
        def gone(message: Message, context: Context) -> Message:
            del context
            return Message(Error(code=8, reason="not there"), reply_to=message)

        return gone if name == absent else app

    return wrap


def test_short_of_the_quorum_it_stops_and_goes_on_later(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(fitting(make_plan(3, rounds=1, deadline_s=3.0), calibration=None))
    with pytest.raises(Interrupted, match="2 of 3 needed sites"):
        lab.run(without("s2"))
    assert lab.store.recall("statistics") is None
    lab.run()
    assert set(lab.store.recall("statistics")["answers"]) == {"s0", "s1", "s2"}
    assert lab.reserves("s0") == 2  # it has repeated its bytes


def test_a_quorum_is_enough(make_lab: Any, make_plan: MakePlan) -> None:
    plan = fitting(make_plan(3, rounds=1, deadline_s=3.0, quorum=0.6), calibration=None)
    lab = make_lab(plan)
    lab.run(without("s2"))
    assert set(lab.store.recall("statistics")["answers"]) == {"s0", "s1"}


def test_a_site_that_is_elsewhere_is_named_by_feature_alone(
    make_lab: Any, make_plan: MakePlan, make_records: Any
) -> None:
    plan = fitting(make_plan(4, rounds=1, privacy={"enabled": False}), calibration=None)
    records = make_records(plan)
    moved = records["s3"].train_x.copy()
    moved[:, 1] = 0.9
    records["s3"] = replace(records["s3"], train_x=moved)
    lab = make_lab(plan, records=records)
    lab.run()
    assert lab.store.recall("statistics")["drift"] == [{"site": "s3", "feature": "dose"}]


# --- kills ----------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@contextmanager
def killed_at(number: int) -> Iterator[list[str]]:
    """Raise at the write of that number, before or after it; then nothing is written at all."""
    seen: list[str] = []
    patch = pytest.MonkeyPatch()

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) > number or (len(seen) == number and number % 2):
                raise Killed(name)
            done = real(*arguments, **options)
            if len(seen) == number:
                raise Killed(name)
            return done

        return write

    patch.setattr(disk, "write_atomic", wrap("store", files.write_atomic))
    patch.setattr(spool, "write_atomic", wrap("spool", files.write_atomic))
    patch.setattr(Ledger, "_append", wrap("ledger", Ledger._append))
    for name in ("remember", "commit", "keep_update"):
        patch.setattr(store.Store, name, wrap(name, getattr(store.Store, name)))
    try:
        yield seen
    finally:
        patch.undo()


def run_until_killed(lab: Any, number: int) -> list[str]:
    """Run with a kill at that write; return the writes that there were."""
    dead: list[str] = []

    def wrap(name: str, app: Any) -> Any:
        def dying(message: Message, context: Context) -> Message:
            try:
                return app(message, context)
            except Killed:
                dead.append(name)
                return Message(Error(code=8, reason="killed"), reply_to=message)

        return dying

    class Heard:
        """Dies with the first site that does, at its next look at the time."""

        def __init__(self) -> None:
            from collegium.server.clock import SystemClock

            self._real = SystemClock()

        def __getattr__(self, name: str) -> Any:
            if dead:
                raise Killed
            return getattr(self._real, name)

    with killed_at(number) as seen, suppress(Killed):
        lab.run(wrap, workers=1, clock=Heard())
    return seen


@pytest.mark.slow
def test_killed_at_every_write_it_ends_with_the_same_model(
    make_lab: Any, make_plan: MakePlan
) -> None:
    plan = fitting(make_plan(2, rounds=1))
    whole = make_lab(plan, folder="whole")
    wanted = whole.run(workers=1)
    count = len(run_until_killed(make_lab(plan, folder="count"), 10**6))
    assert count > 20
    for number in range(1, count + 1, 2 if count > 30 else 1):
        lab = make_lab(plan, folder=f"killed-{number}")
        run_until_killed(lab, number)
        lab.close()
        again = make_lab(plan, folder=f"killed-{number}")
        assert np.array_equal(again.run(workers=1), wanted), number
        assert {again.reserves(name) for name in again.sites} == {3}, number


def test_what_is_durable_is_not_asked_again(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(fitting(make_plan(2, rounds=2)))
    vector = lab.run()
    before = {name: lab.consortium.ledgers[name].entries() for name in lab.sites}
    asked: list[str] = []

    def wrap(name: str, app: Any) -> Any:
        def counted(message: Message, context: Context) -> Message:
            asked.append(message.metadata.message_type)
            return app(message, context)

        return counted

    assert np.array_equal(lab.run(wrap), vector)
    assert set(asked) <= {"query.hello"}
    assert {name: lab.consortium.ledgers[name].entries() for name in lab.sites} == before


def test_a_calibration_of_another_model_is_not_believed(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(fitting(make_plan(2, rounds=1)))
    lab.run()
    with lab.store._db:
        lab.store._db.execute(
            'UPDATE run SET value = replace(value, \'"base_sha256":"sha256:\', '
            "'\"base_sha256\":\"sha256:0') WHERE key = 'once.calibration'"
        )
    with pytest.raises(InvalidInput, match="another model"):
        lab.run()


def test_what_result_json_says(make_lab: Any, make_plan: MakePlan) -> None:
    plan = fitting(make_plan(2, rounds=1))
    plan = replace(plan, model=replace(plan.model, bounds={"age": (0.0, 10.0), "dose": (-1.0, 1.0),
                                                           "mass": (-1.0, 1.0)}))  # fmt: skip
    lab = make_lab(plan)
    lab.run()
    told = fitted_entries(plan, fitted_of(lab.store))
    found = constants(lab, lab.run())
    assert told["statistics"]["features"] == ["age", "dose", "mass"]
    assert told["statistics"]["mean"]["age"] == pytest.approx(5 + 5 * found[MEAN][0])
    assert told["statistics"]["deviation"]["age"] == pytest.approx(5 * found[SCALE][0])
    assert 0.8 < told["statistics"]["epsilon_alone"] <= 0.3 * plan.privacy.epsilon
    assert told["calibration"]["criterion"] == "youden"
    assert told["calibration"]["temperature"] == pytest.approx(found[TEMPERATURE][0])
    json.dumps(told, allow_nan=False)
    bare = fitted_entries(make_plan(2), {"statistics": None, "calibration": None})
    assert bare == {"statistics": None, "calibration": None}


def test_thresholds_are_told_as_a_chance(make_plan: MakePlan) -> None:
    values = {OFFSET: [0.0, -np.log(3.0)], TEMPERATURE: [2.0]}
    found = {"values": values, "sites": ["s0"], "refused": {}}
    told = fitted_entries(fitting(make_plan(1)), {"calibration": found})["calibration"]
    assert told["threshold"] == pytest.approx(0.75)  # odds 3 to 1
    assert told["temperature"] == 2.0
