"""plan.toml: what is written reads back as the same plan, and each broken file says where."""

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core import plan as p
from collegium.core.errors import InvalidPlan, MissingInput, UsageError
from collegium.core.forms import text_fault
from collegium.core.plan_file import read_plan, with_overrides, write_plan
from collegium.core.plan_tables import examine
from collegium.core.toml_file import MAX_BYTES

GOOD = """
schema = 1
[consortium]
name = "four-hospitals"
[[sites]]
name = "north"
public_records = 300
[model]
name = "collegium:glyph-cnn"
task = "classification"
classes = ["0", "1"]
[rounds]
count = 60
[privacy]
delta = 1e-4
[simulation]
dataset = "sklearn:digits"
"""

names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
site_names = names.map(lambda name: f"s{name}0")
texts = st.text(min_size=1, max_size=20).filter(lambda text: not text_fault(text))


def floats(low: float, high: float, **open_ends: bool) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False, **open_ends)


@st.composite
def plans(draw: st.DrawFn) -> p.Plan:
    roster = draw(st.lists(site_names, min_size=1, max_size=4, unique=True))
    weighted = draw(st.booleans())
    tabular = draw(st.booleans())
    lows = draw(st.dictionaries(texts, floats(-1e6, 1e6), min_size=1, max_size=4))
    count = draw(st.integers(1, 1000))
    fedadam = draw(st.booleans())
    after = draw(st.sampled_from(["last", "every:1", f"every:{count}"]))
    return p.Plan(
        consortium=draw(texts),
        sites=tuple(
            p.SiteRef(
                name=name,
                public_records=draw(st.integers(1, 10_000)),
                weight=draw(floats(1e-6, 1e6)) if weighted else None,
            )
            for name in roster
        ),
        model=p.ModelRef(
            name="tabular:linear" if tabular else "collegium:glyph-cnn",
            task="classification",
            classes=tuple(draw(st.lists(texts, min_size=2, max_size=5, unique=True))),
            trainable=draw(st.sampled_from(["head", "bias", "norm", "all", "lora:4", "last:1"])),
            weights=draw(st.none() | st.just("sha256:" + "0a" * 32)),
            bounds={name: (low, low + 1.0) for name, low in lows.items()} if tabular else {},
        ),
        rounds=p.Rounds(
            count=count,
            local_steps=draw(st.integers(1, 100)),
            local_learning_rate=draw(floats(1e-6, 10)),
            deadline_s=draw(floats(0.1, 86_400)),
            quorum=draw(floats(0, 1, exclude_min=True)),
        ),
        strategy=p.StrategyConfig(
            name="fedadam" if fedadam else "mean",
            server_learning_rate=draw(floats(1e-6, 100)),
            iterate_average=draw(floats(0, 1, exclude_max=True)),
            beta1=draw(floats(0, 0.99)) if fedadam else 0.9,
        ),
        codec=p.CodecConfig(name=draw(st.sampled_from(["float32", "bf16", "int8"]))),
        evaluation=p.Evaluation(rounds=after),
        privacy=p.Privacy(
            enabled=draw(st.booleans()),
            epsilon=draw(floats(1e-3, 100)),
            delta=draw(floats(1e-12, 1e-5)),
            clip_norm=draw(floats(1e-6, 1e6)),
            sampling_rate=draw(floats(0, 1, exclude_min=True)),
        ),
        edge=p.EdgeConfig(
            student=draw(st.sampled_from(["auto", "cnn:tiny", "size:5000", "cifar:resnet20"])),
            min_agreement=draw(floats(0, 1)),
        ),
        simulation=draw(
            st.none()
            | st.builds(
                p.Simulation,
                dataset=texts,
                split=st.sampled_from(["iid", "dirichlet:0.5", "dirichlet:1e3"]),
                seed=st.integers(0, 2**53 - 1),
                baselines=st.booleans(),
            )
        ),
    )


@given(plans())
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_back_as_the_same_plan(plan: p.Plan) -> None:
    import tomllib

    again, problems = examine(tomllib.loads(write_plan(plan)))
    assert not problems
    assert again == plan
    assert again.digest == plan.digest
    assert list(again.model.bounds) == list(plan.model.bounds)


def read(tmp_path: Path, content: str | bytes) -> p.Plan:
    path = tmp_path / "plan.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_plan(path)


def test_a_file_reads_as_the_plan_built_by_hand(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) == p.Plan(
        consortium="four-hospitals",
        sites=(p.SiteRef(name="north", public_records=300),),
        model=p.ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
        rounds=p.Rounds(count=60),
        privacy=p.Privacy(delta=1e-4),
        simulation=p.Simulation(dataset="sklearn:digits"),
    )


@pytest.mark.parametrize("content", ["\ufeff" + GOOD, GOOD.replace("\n", "\r\n")])
def test_files_of_windows_editors_are_read(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == read(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("schema = \n", "line 1, column 10", "Invalid value"),
        ("schema = 1\nschema = 1\n", "line 2", "Cannot overwrite a value"),
        ("[rounds\ncount = 1", "line 1, column 8", "Expected ']'"),
        ("a = 'x", "line 1 (end of file)", "Expected"),
        (b"a = '\xff'", "line 1", "byte 0xff is not UTF-8"),
        ("schema = 1\n".encode("utf-16"), "line 1", "not UTF-8"),
        ("a = " + "[" * 5000, "file", "nested too deep"),
        ("a = " + "1" * 5000, "file", "too long to read"),
        (b"#" * (MAX_BYTES + 1), "file", "larger than 4 MiB"),
        (b"a = \x00", "line 1", "Invalid value"),
    ],
)
def test_a_broken_file_says_where(
    tmp_path: Path, content: str | bytes, where: str, what: str
) -> None:
    with pytest.raises(InvalidPlan) as caught:
        read(tmp_path, content)
    problem = caught.value.problems[0]
    assert problem.where.startswith(where) and what in problem.what


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match="is a folder"):
        read_plan(tmp_path)
    with pytest.raises(MissingInput) as caught:
        read_plan(tmp_path / "none.toml")
    assert caught.value.exit_code == 66
    with pytest.raises(MissingInput):
        read_plan(Path("nul\0byte"))


def test_flags_go_over_the_plan(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD + '[evaluation]\nrounds = "every:30"\n')
    changed = with_overrides(plan, rounds=2, epsilon=1.0, seed=5, privacy=False)
    assert changed.rounds.count == 2 and changed.evaluation.rounds == "last"
    assert changed.privacy.epsilon == 1.0 and not changed.privacy.enabled
    assert changed.simulation is not None and changed.simulation.seed == 5
    assert with_overrides(plan) == plan


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        ({"rounds": 0}, "[rounds] count"),
        ({"rounds": -3}, "[rounds] count"),
        ({"epsilon": 0.0}, "[privacy] epsilon"),
        ({"epsilon": float("nan")}, "[privacy] epsilon"),
        ({"seed": -1}, "[simulation] seed"),
    ],
)
def test_flags_are_checked_like_keys(tmp_path: Path, flags: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        with_overrides(read(tmp_path, GOOD), **flags)
    assert [problem.where for problem in caught.value.problems] == [where]


def test_a_seed_without_simulation_is_refused(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD.partition("[simulation]")[0])
    with pytest.raises(UsageError, match="--seed"):
        with_overrides(plan, seed=1)
