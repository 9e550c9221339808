"""``collegium plan``: more than a hundred spoilt plans, each answered by its key and exit 65."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.cli.main import run
from collegium.core.plan import Plan
from collegium.models import registry

TEMPLATE = Path(__file__).resolve().parents[2] / "cli" / "templates" / "plan.toml"
GOOD = "\n".join(
    line.split("  #")[0].rstrip()
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)

# (table, key, value in the good file, spoilt values)
VALUES: list[tuple[str, str, str, list[str]]] = [
    ("consortium", "name", '"four-hospitals"', ["4", '""', '"a\\nb"', "[]", f'"{"x" * 201}"']),
    ("[sites]] 1", "name", '"north"', ["7", '"North"', '"a/b"', '"nul"', '"-a"', f'"{"x" * 64}"']),
    ("model", "task", '"classification"', ["1", '"clasification"', '"ranking"']),
    ("model", "trainable", '"head"', ["true", '"heads"', '"lora:"', '"lora:0"', '"last:-1"']),
    ("rounds", "count", "60", ['"60"', "60.0", "true", "0", "-60", "100001", f"{10**30}"]),
    ("rounds", "local_steps", "1", ['"1"', "0", "-1", "1.5", "999999"]),
    ("rounds", "deadline_s", "600.0", ['"600"', "0", "-1.0", "inf", "1e9"]),
    ("rounds", "quorum", "1.0", ['"all"', "0.0", "1.01", "-0.5", "nan", "true"]),
    ("strategy", "server_learning_rate", "8.0", ['"8"', "0", "-8.0", "nan", "1e7"]),
    ("strategy", "iterate_average", "0.5", ['"half"', "1.0", "-0.1", "nan"]),
    ("evaluation", "origin", '"public"', ["true", '"pubic"', '"secret"']),
    (
        "evaluation",
        "rounds",
        '"last"',
        ["5", '"every"', '"every:0"', '"every:-1"', '"every:1.5"', '"every:61"', '"evry:2"'],
    ),
    ("privacy", "enabled", "true", ['"true"', "1", "0"]),
    ("privacy", "unit", '"record"', ["1", '"records"', '"household"']),
    ("privacy", "relation", '"add-or-remove-one"', ["1", '"add-remove"', '"zero-out"']),
    ("privacy", "epsilon", "3.0", ['"3"', "0", "-3.0", "nan", "inf", "101", "1e308", "false"]),
    ("privacy", "delta", "1e-4", ['"1e-4"', "0.0", "1.0", "-1e-4", "0.01", "1e-13", "nan"]),
    ("privacy", "clip_norm", "1.0", ['"1"', "0", "-1.0", "inf", "1e7"]),
    ("privacy", "sampling_rate", "0.3", ['"0.3"', "0.0", "-0.3", "1.5", "nan"]),
    ("privacy", "batch_cap", "0", ['"0"', "-1", "0.5", "true", "10"]),
    ("edge", "min_agreement", "0.95", ['"95%"', "95", "-0.1", "nan"]),
    ("edge", "max_accuracy_drop", "0.02", ['"2%"', "2", "-0.02"]),
    ("edge", "student", '"cnn:tiny"', ["1", '""']),
    ("simulation", "dataset", '"sklearn:digits"', ["1", '"sklearn:digit"', '"mnist"']),
    (
        "simulation",
        "split",
        '"dirichlet:0.5"',
        ["0.5", '"dirichlet"', '"dirichlet:0"', '"dirichlet:-1"', '"dirichlet:nan"', '"idd"'],
    ),
    ("simulation", "seed", "7", ['"7"', "-1", "7.0", f"{2**64}"]),
    ("simulation", "baselines", "true", ['"no"', "1"]),
]


def spoilt_values() -> list[tuple[str, str]]:
    """Return (key as it is named in the message, text of the whole plan)."""
    plans: list[tuple[str, str]] = []
    for table, key, good, values in VALUES:
        head = "[[sites]]" if table.startswith("[") else f"[{table}]"
        start = GOOD.index(head + "\n")
        place = GOOD.index(f"{key} = {good}", start)
        for value in values:
            line = f"{key} = {good}"
            text = GOOD[:place] + f"{key} = {value}" + GOOD[place + len(line) :]
            plans.append((f"[{table}{'' if table.startswith('[') else ']'} {key}", text))
    return plans


def swap(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


CLASSES = 'classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'
SPOILT: list[tuple[str, str]] = [
    *spoilt_values(),
    # schema
    ("schema", swap("schema = 1", "")),
    ("schema", swap("schema = 1", "schema = 2")),
    ("schema", swap("schema = 1", 'schema = "1"')),
    ("schema", swap("schema = 1", "schema = 1.0")),
    # missing keys
    ("[consortium] name", swap('name = "four-hospitals"', "")),
    ("[[sites]] 1 name", swap('name = "north"', "")),
    ("[[sites]] 1 public_records", swap("public_records = 700", "")),
    ("[model] name", swap('name = "collegium:glyph-cnn"', "")),
    ("[model] task", swap('task = "classification"', "")),
    ("[model] classes", swap(CLASSES, "")),
    ("[rounds] count", swap("count = 60", "")),
    ("[simulation] dataset", swap('dataset = "sklearn:digits"', "")),
    # missing tables
    ("[consortium]", swap('[consortium]\nname = "four-hospitals"', "")),
    ("[[sites]]", GOOD[: GOOD.index("[[sites]]")] + GOOD[GOOD.index("[model]") :]),
    ("[model]", GOOD[: GOOD.index("[model]")] + GOOD[GOOD.index("[rounds]") :]),
    ("[rounds]", GOOD[: GOOD.index("[rounds]")] + GOOD[GOOD.index("[strategy]") :]),
    # unknown keys and tables
    ("[rounds] cuont", swap("count = 60", "cuont = 60")),
    ("[rounds] epsilon", swap("count = 60", "count = 60\nepsilon = 3.0")),
    ("[privacy] noise_multiplier", swap("epsilon = 3.0", "epsilon = 3.0\nnoise_multiplier = 1.0")),
    ("[privacy] secure_mode", swap("epsilon = 3.0", "epsilon = 3.0\nsecure_mode = true")),
    ("[[sites]] 1 records", swap('name = "north"', 'name = "north"\nrecords = 5')),
    ("[privcay]", swap("[privacy]", "[privcay]")),
    ("[extra]", GOOD + "\n[extra]\na = 1\n"),
    ("[model.extra]", swap("[rounds]", "[model.extra]\na = 1\n[rounds]")),
    ("rounds_total", "rounds_total = 9\n" + GOOD),
    # tables of another kind
    ("[[sites]]", swap("[[sites]]", "[sites]").replace("[[sites]]", "[x]", 1).partition("[[")[0]),
    ("[rounds]", swap("[rounds]", "[[rounds]]")),
    (
        "[codec]",
        swap('[codec]\nname = "bf16"', "").replace("schema = 1", 'schema = 1\ncodec = "bf16"'),
    ),
    ("[codec] name", swap('name = "bf16"', 'name = "bf61"')),
    ("[codec] name", swap('name = "bf16"', "name = 16")),
    # sites
    ("[[sites]] 1 public_records", swap("public_records = 700", "public_records = 0")),
    ("[[sites]] 1 public_records", swap("public_records = 700", "public_records = -700")),
    ("[[sites]] 1 public_records", swap("public_records = 700", "public_records = 7e2")),
    ("[[sites]] 1 public_records", swap("public_records = 700", f"public_records = {10**12}")),
    ("[[sites]] 1 weight", swap("public_records = 700", "public_records = 700\nweight = 0")),
    ("[[sites]] 1 weight", swap("public_records = 700", "public_records = 700\nweight = -1")),
    ("[[sites]] weight", swap("public_records = 700", "public_records = 700\nweight = 1")),
    (
        "[[sites]] 1 public_key",
        swap("public_records = 700", 'public_records = 700\npublic_key = "x"'),
    ),
    ("[[sites]] 1 and 2", swap('name = "south"', 'name = "north"')),
    # model
    ("[model] name", swap("collegium:glyph-cnn", "glyph-cnn")),
    ("[model] name", swap("collegium:glyph-cnn", "colegium:glyph-cnn")),
    ("[model] name", swap("collegium:glyph-cnn", "collegium:glyf-cnn")),
    ("[model] name", swap('"collegium:glyph-cnn"', "[]")),
    ("[model] weights", swap(CLASSES, CLASSES + '\nweights = "sha256:abc"')),
    ("[model] weights", swap(CLASSES, CLASSES + '\nweights = "md5:abc"')),
    ("[model] weights", swap(CLASSES, CLASSES + f'\nweights = "sha256:{"0" * 64}"')),
    ("[model] classes", swap(CLASSES, "classes = []")),
    ("[model] classes", swap(CLASSES, 'classes = ["0"]')),
    ("[model] classes", swap(CLASSES, 'classes = "0123"')),
    ("[model] classes", swap(CLASSES, 'classes = ["0", "1"]')),
    ("[model] classes 2", swap('"1", "2"', "1, 2")),
    ("[model] classes 2", swap('"1", "2"', '"", "2"')),
    ("[model] classes", swap('"1", "2"', '"1", "1"')),
    ("[model.bounds]", swap("[rounds]", '[model.bounds]\n"a" = [0, 1]\n[rounds]')),
    ("[model.bounds] a", swap("[rounds]", '[model.bounds]\n"a" = [1, 0]\n[rounds]')),
    ("[model.bounds] a", swap("[rounds]", '[model.bounds]\n"a" = [0, inf]\n[rounds]')),
    ("[model.bounds] a", swap("[rounds]", '[model.bounds]\n"a" = [0]\n[rounds]')),
    ("[model.bounds] a", swap("[rounds]", '[model.bounds]\n"a" = "0-1"\n[rounds]')),
    ("[model.bounds]", swap("collegium:glyph-cnn", "tabular:linear")),
    # strategy
    ("[strategy] name", swap('name = "mean"', 'name = "fedadm"')),
    ("[strategy] name", swap('name = "mean"', "name = 1")),
    ("[strategy] beta1", swap('name = "mean"', 'name = "mean"\nbeta1 = 0.5')),
    ("[strategy] beta2", swap('name = "mean"', 'name = "fedadam"\nbeta2 = 1.0')),
    ("[strategy] tau", swap('name = "mean"', 'name = "fedadam"\ntau = 0')),
    # contradictions
    (
        "[evaluation] rounds",
        swap('origin = "public"', 'origin = "private"').replace('"last"', '"every:2"'),
    ),
    ("[rounds] local_steps", swap("count = 60", "count = 90000").replace("steps = 1", "steps = 9")),
    ("[privacy] epsilon", swap("epsilon = 3.0\ndelta = 1e-4", "epsilon = 1e-4\ndelta = 1e-12")),
    # broken TOML
    ("line 1", "schema == 1\n" + GOOD),
    ("line 1", "= 1\n" + GOOD),
    ("line", swap("[rounds]", "[rounds")),
    ("line", swap('name = "north"', 'name = "north')),
    ("line", swap("count = 60", "count = sixty")),
    ("line", swap("count = 60", "count = 60\ncount = 61")),
    ("line", swap("count = 60", "count 60")),
    ("line", GOOD + "\n[rounds]\ncount = 1\n"),
    ("line", swap(CLASSES, 'classes = ["0", ')),
    ("line", "<plan><rounds>60</rounds></plan>"),
    ("line", '{"schema": 1}'),
    ("line", "schema: 1\nrounds:\n  count: 60\n"),
    ("schema", ""),
]


def test_there_are_more_than_a_hundred() -> None:
    assert len(SPOILT) > 100
    assert len({text for _, text in SPOILT}) == len(SPOILT)


@pytest.mark.parametrize(("where", "text"), SPOILT)
def test_a_spoilt_plan_is_named_by_its_key_and_answers_65(
    where: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    assert run(["plan", "check", str(path)]) == 65
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and "Traceback" not in captured.err
    assert lines[0].startswith(f"Error: {path}: ") and "in this plan" in lines[0]
    assert any(line.startswith(f"  - {where}") and "Cure: " in line for line in lines[1:])
    assert all(line.startswith("  - ") for line in lines[1:])


@pytest.mark.parametrize("number", range(0, len(SPOILT), 40))
def test_a_real_process_answers_the_same(number: int, tmp_path: Path) -> None:
    where, text = SPOILT[number]
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "collegium", "plan", "explain", str(path)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (65, "")
    assert where in done.stderr and "Traceback" not in done.stderr


def test_all_problems_are_printed_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        swap("count = 60", "count = 0").replace('"mean"', '"men"').replace("0.3", "3"),
        encoding="utf-8",
    )
    assert run(["plan", "check", str(path), "--json"]) == 65
    captured = capsys.readouterr()
    found = json.loads(captured.err)["error"]["problems"]
    assert captured.out == ""
    assert [problem["where"] for problem in found] == [
        "[rounds] count",
        "[strategy] name",
        "[privacy] sampling_rate",
    ]
    assert all(problem["cure"] and problem["why"] for problem in found)


def test_a_good_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert run(["plan", "check", str(path)]) == 0
    assert "no problems (four-hospitals, 4 sites, 60 rounds, epsilon 3)" in capsys.readouterr().out
    assert run(["plan", "check", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"ok": True, "plan_sha256": Plan.load(path).digest, "problems": []}


def test_explain_says_what_is_spent_sent_and_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert run(["plan", "explain", str(path)]) == 0
    total = registry.total_parameters(Plan.load(path).model)
    page = " ".join(capsys.readouterr().out.split())
    for text in (
        f"650 of {total:,} parameters",
        "3.0222",
        "60: 3.00",
        "1.3 kB up (bf16)",
        "936 kB",
        "north",
    ):
        assert text in page
    assert run(["plan", "explain", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes_total"] == 936_000 and facts["sites"][0]["normaliser"] == 210.0
    assert facts["plan"]["privacy"]["epsilon"] == 3.0 and len(facts["leaves_a_site"]) == 3


def test_explain_without_privacy_shows_no_epsilon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(swap("enabled = true", "enabled = false"), encoding="utf-8")
    assert run(["plan", "explain", str(path)]) == 0
    page = capsys.readouterr().out
    assert "no guarantee" in page and "Epsilon by round" not in page
    assert run(["plan", "explain", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["epsilon"] is None and facts["sites"][0]["epsilon"] is None


def test_a_plug_in_that_is_not_installed_is_69(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(swap('"collegium:glyph-cnn"', '"plugin:nobodys"'), encoding="utf-8")
    assert run(["plan", "check", str(path)]) == 69
    assert "plugin:nobodys" in capsys.readouterr().err


def test_explain_names_the_noised_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(swap('origin = "public"', 'origin = "private"'), encoding="utf-8")
    assert run(["plan", "explain", str(path)]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "two noised counts" in page and "60: 3.00" in page


def test_a_missing_plan_is_66_and_a_folder_65(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "check", str(tmp_path / "none.toml")]) == 66
    assert "collegium init" in capsys.readouterr().err
    assert run(["plan", "check", str(tmp_path)]) == 65
    assert "is a folder" in capsys.readouterr().err
