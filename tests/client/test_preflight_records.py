"""Records before a site connects: every fault with its cure, nothing spent, no value said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client.preflight import Finding, preflight
from collegium.client.words import export_of, read_records
from collegium.core.errors import CollegiumError, InvalidInput
from collegium.core.site_file import (
    DataSection,
    LedgerSection,
    PolicySection,
    SiteFile,
    SiteSection,
)

Make = Callable[..., Any]
SECRET = "0.471125"
HEAD = "age,dose,mass,y"


@pytest.fixture
def look(make_town: Make) -> Make:
    """Put a csv at a site and return what preflight says of the records; nothing is spent."""
    town = make_town()
    text = (town.home / "site.toml").read_text()

    def act(*lines: str | bytes, path: str = "r.csv", more: str = "") -> dict[str, list[Finding]]:
        raw = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
        if lines:
            (town.home / "r.csv").write_bytes(raw + b"\n")
        now = text.replace('"npz"', '"csv"').replace('"x.npz"', f'"{path}"')
        (town.home / "site.toml").write_text(now.replace("[policy]", f"{more}\n[policy]"))
        found: dict[str, list[Finding]] = {}
        for finding in preflight(town.file, part="records"):
            found.setdefault(finding.check, []).append(finding)
        assert not (town.home / "ledger" / "ward.sqlite").exists()
        assert not (town.home / "state" / "spool").exists()
        said = [f"{f.text} {f.cure}" for findings in found.values() for f in findings]
        assert not any(SECRET in each for each in said)
        return found

    return act


def good(count: int = 30) -> list[str]:
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (count, 3)).round(6).tolist()
    return [",".join(map(str, [*row, int(row[0] > 0)])) for row in rows]


def test_what_people_see_and_what_the_site_does(look: Make) -> None:
    """One town for all: making one takes longer than reading from it."""
    row = f"{SECRET},0.1,0.2,1"
    short = row.rpartition(",")[0]
    cases: dict[str, tuple[list[Any], list[str]]] = {
        "a column too few": ([HEAD.replace("mass,", ""), short], [
            'r.csv, column "mass": is not in the header']),
        "text and an unlisted label": ([HEAD, row, f"{SECRET},old,0.2,7"], [
            'r.csv, column "dose", row 3: is not a finite number',
            'r.csv, column "y", row 3: the label is not a class of the plan']),
        "a question mark": ([HEAD, row, f"?,{SECRET},0.2,1"], [
            'r.csv, column "age", row 3: is not a finite number']),
        "another number of fields": ([HEAD, row, short], [
            "r.csv (4 columns), row 3: has 3 fields where the header names 4"]),
        "a header inside": ([HEAD, row, "age,0.5,0.5,1"], [
            'r.csv, column "age", row 3: repeats the name of the column']),
        "NUL bytes": ([HEAD, row + "\0"], ["r.csv holds NUL bytes."]),
        "an empty file": ([b""], ["r.csv holds no record", "r.csv is empty"]),
    }  # fmt: skip
    for case, (lines, texts) in cases.items():
        found = [finding for finding in look(*lines)["records"] if finding.state == "problem"]
        assert found and all(finding.cure for finding in found), case
        if case == "an empty file":
            continue
        assert len(found) == len(texts), case
        for finding, text in zip(found, texts, strict=True):
            assert finding.text.startswith(text), case
    (missing,) = look(path="none.csv")["records"]
    assert missing.state == "problem" and "there are no records at" in missing.text
    (unset,) = look(path="$NOT_SET_ANYWHERE/r.csv")["records"]
    assert "environment variable NOT_SET_ANYWHERE is not set" in unset.text


def test_findings_are_notes_with_a_cure(look: Make) -> None:
    rows = good()
    rows[:10] = [f"{n / 10},7,0.5,{n % 2}" for n in range(10)]
    found = look(HEAD + ",patient", *(f"{row},p{n}" for n, row in enumerate(rows)))
    assert {f.state for f in found["records"]} == {"ok"}
    notes = [*found["drift"], *found["parts"], *found["file"]]
    assert {f.state for f in notes} == {"warning"} and all(f.cure for f in notes)
    texts = " ".join(f.text for f in notes)
    assert 'column "dose": outside the plan\'s bounds' in texts
    assert 'columns that the plan does not read: "patient"' in texts


def test_texts_become_tokens_beside_the_records(tmp_path: Path, make_plan: Make) -> None:
    plan = make_plan(1)
    model = replace(plan.model, name="text:hashed", bounds={}, options={"tokens": 8.0})
    plan = replace(plan, model=model)
    lines = [f"{'ill' if n % 2 else 'well'}\tword{n} and more" for n in range(20)]
    (tmp_path / "r.txt").write_text("\n".join(lines))
    file = SiteFile(
        site=SiteSection(name="s0"),
        data=DataSection(
            asset="ward", reader="text", path="r.txt", label="l", text="t", delimiter="tab",
            columns=("l", "t"), test_share=0.4,
        ),
        policy=PolicySection(max_epsilon=1, delta=1e-5),
        ledger=LedgerSection(path="ledger.sqlite"),
        folder=tmp_path,
    )  # fmt: skip
    data = read_records(file, plan)
    x = np.concatenate([data.train_x, data.test_x])
    assert x.shape == (20, 8) and x.dtype == np.int32
    export = export_of(data, b"salt")
    assert export.found is not None and len(export.found) == len(export.encoded) == 20
    shorter = replace(plan, model=replace(model, options={"tokens": 3.0}))
    again = export_of(read_records(file, shorter), b"salt")  # another plan, the same records
    assert again.name.digest == export.name.digest and again.name.also != export.name.also
    other = read_records(file, plan, seed=1)
    assert not np.array_equal(data.test_x, other.test_x)
    none = read_records(replace(file, data=replace(file.data, test_share=0.0)), plan)
    assert none.test_x.shape == (0, 8)
    with pytest.raises(InvalidInput):
        read_records(file, make_plan(1))


def test_records_of_another_shape_are_refused(tmp_path: Path, make_plan: Make) -> None:
    plan = make_plan(1)
    model = replace(plan.model, name="collegium:glyph-cnn", bounds={}, classes=("a", "b"))
    plan = replace(plan, model=model)
    file = SiteFile(
        site=SiteSection(name="s0"),
        data=DataSection(asset="ward", reader="npz", path="x.npz", label="y"),
        policy=PolicySection(max_epsilon=1, delta=1e-5),
        ledger=LedgerSection(path="ledger.sqlite"),
        folder=tmp_path,
    )
    np.savez(tmp_path / "x.npz", x=np.ones((9, 64)), y=np.zeros(9, dtype=int))
    assert read_records(file, plan).train_x.shape[1:] == (8, 8)  # a row of pixels is a picture
    np.savez(tmp_path / "x.npz", x=np.ones((9, 63)), y=np.zeros(9, dtype=int))
    with pytest.raises(CollegiumError) as caught:
        read_records(file, plan)
    assert caught.value.exit_code == 65 and "shape" in caught.value.message()
