"""The privacy page of a run: every figure from result.json, the audit once there is one."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.statement import Circumstances, SiteAccount, statement
from collegium.server.privacy_page import PAGE, STATEMENT, write_privacy_page
from collegium.server.result import write_result

SPEC = MechanismSpec(
    unit="patient", relation="replace-one", clip_norm=0.5, noise_multiplier=4.0,
    sampler="truncated-poisson", sampling_rate=0.1, public_records=100, normaliser=10.0, steps=2,
    batch_cap=60, delta=1e-4, trainable_digest="sha256:t",
)  # fmt: skip


class Text(HTMLParser):
    """What a reader sees, and the tags that make up the page."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


COUNT = replace(
    SPEC, clip_norm=2.0, noise_multiplier=5.5, sampler="poisson", sampling_rate=1.0,
    normaliser=1.0, steps=1, batch_cap=0, trainable_digest="sha256:u",
)  # fmt: skip


def values(name: str = "north", *, seeded: bool = False, **changes: Any) -> dict[str, Any]:
    rows = [(SPEC, 6), (COUNT, 1)]
    account = SiteAccount(spec=SPEC, run=rows, jobs={"j": rows}, ledger_head="h")
    told = Circumstances(
        rounds=3,
        released=("the trainable vector of every round (noised)",),
        base_model="tabular:linear",
        base_model_trained_on="nothing: it starts at zero",
        evaluation="private",
        reproducible_noise=seeded,
        once={"common statistics": COUNT},
    )
    return {
        "schema": 1, "consortium": "four hospitals", "simulated": seeded, "seeds": [1],
        "plan_sha256": "sha256:0123456789abcdef", "privacy": statement({name: account}, told),
    } | changes  # fmt: skip


def page(folder: Path, **changes: Any) -> Text:
    write_result(folder, values(**changes))
    path = write_privacy_page(folder)
    assert path == folder / PAGE
    found = Text()
    found.feed(path.read_text())
    return found


def test_a_reader_finds_every_part(tmp_path: Path) -> None:
    text = page(tmp_path).text
    stated = json.loads((tmp_path / STATEMENT).read_text())
    assert stated == values()["privacy"]
    for part in (
        "patient", "replace one", "at most 60 in a step", stated["detection"]["reads"],
        "if no person is in two sites", "if one person may be in every site", "noised counts",
        "nothing: it starts at zero", "Not run.", "Mironov", "truncated-poisson",
        "Once: common statistics", "L2 sensitivity 2, multiplier 5.5, deviation of the noise 11",
    ):  # fmt: skip
        assert part in text, part
    assert "no privacy guarantee" not in text.lower()


def test_a_statement_of_an_earlier_version_has_a_page(tmp_path: Path) -> None:
    old = values()
    del old["privacy"]["mechanism"]["once"]
    assert "Once:" not in page(tmp_path, privacy=old["privacy"]).text


def test_seeded_noise_stands_above_everything(tmp_path: Path) -> None:
    text = page(tmp_path, seeded=True).text
    assert "No privacy guarantee: noise reproducible." in text
    assert text.index("No privacy guarantee") < text.index("What is promised")


def test_the_audit_is_added(tmp_path: Path) -> None:
    attack = {"one_run": 0.5, "f_dp": 0.63, "gdp": 1.91, "auroc": 0.6, "contradicts_claim": False}
    audit = {
        "passed": False,
        "attests": "what the software did",
        "significance": 1e-6,
        "tests": [
            {"name": "noise size", "site": site, "statistic": "298 units", "p_value": 0.123456,
             "verdict": verdict}
            for site, verdict in (("north", "passed"), ("south", "failed"))
        ],
        "leakage": {
            "canaries": 1000, "claimed_epsilon": 4.51, "delta": 1e-5, "confidence": 0.95,
            "strict": "one run", "passed": True, "attacks": {"updates": attack},
        },
    }  # fmt: skip
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    text = page(tmp_path).text
    assert "Not passed" in text and "what the software did" in text and "1.91" in text
    stated = (tmp_path / STATEMENT).read_text()
    assert json.loads(stated)["audit"]["tests"] == {"noise size": "failed"}
    for secret in ("298 units", "0.123456"):  # what depends on records stays in audit.json
        assert secret not in text + stated


@pytest.mark.parametrize("broken", ["[", "[]", "{}", '{"tests": [{}]}'])
def test_what_is_no_audit_is_refused(tmp_path: Path, broken: str) -> None:
    page(tmp_path)
    (tmp_path / "audit.json").write_text(broken)
    with pytest.raises(InvalidInput):
        write_privacy_page(tmp_path)


def test_names_are_text_never_markup(tmp_path: Path) -> None:
    found = page(tmp_path, name="<script>alert(1)</script>")
    assert "script" not in found.tags
    assert "<script>alert(1)</script>" in found.text


@pytest.mark.parametrize("changes", [{"privacy": None}, {"seeds": [1, 2]}])
def test_no_statement_no_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_result(tmp_path, values() | changes)
    assert write_privacy_page(tmp_path) is None
    assert not (tmp_path / PAGE).exists() and not (tmp_path / STATEMENT).exists()
