"""[federation] in a plan: optional, checked, signed, and without effect where it is absent."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.core import forms
from collegium.core.errors import InvalidPlan
from collegium.core.plan import Plan
from collegium.core.plan_federation import Federation
from collegium.core.plan_file import write_plan

TEMPLATE = Path(__file__).resolve().parents[2] / "cli" / "templates" / "plan.toml"
TABLE = """
[federation]
address = "fl.example.org:8000"
coordinator = "university-x"
signatures = 3
"""


def written(path: Path, table: str) -> Path:
    path.write_text(TEMPLATE.read_text(encoding="utf-8") + table, encoding="utf-8")
    return path


def test_a_plan_with_a_federation_reads_back(tmp_path: Path) -> None:
    plan = Plan.load(written(tmp_path / "plan.toml", TABLE))
    assert plan.federation == Federation(
        address="fl.example.org:8000", coordinator="university-x", signatures=3
    )
    assert (plan.federation.host, plan.federation.port) == ("fl.example.org", 8000)
    again = tmp_path / "again.toml"
    again.write_text(write_plan(plan), encoding="utf-8")
    assert Plan.load(again) == plan


def test_the_federation_is_signed_and_its_absence_changes_no_digest(tmp_path: Path) -> None:
    plain = Plan.load(TEMPLATE)
    assert "federation" not in plain.agreement()
    # the digest of this plan before the table, and [edge] prefer, existed
    known = "sha256:0f3180dc681198fac41ba748e22c56ba67f6d132e6e882eb062e78f9b0dbe339"
    assert replace(plain, edge=replace(plain.edge, prefer="speed")).digest == known
    plan = Plan.load(written(tmp_path / "plan.toml", TABLE))
    assert plan.federation is not None
    others = [
        replace(plan.federation, signatures=1),
        replace(plan.federation, address="fl.example.org:8001"),
        replace(plan.federation, coordinator="university-y"),
    ]
    digests = {replace(plan, federation=other).digest for other in (None, plan.federation, *others)}
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("table", "where"),
    [
        (TABLE.replace(":8000", ""), "[federation] address"),
        (TABLE.replace("fl.", "https://fl."), "[federation] address"),
        (TABLE.replace("signatures = 3", "signatures = 0"), "[federation] signatures"),
        (TABLE.replace("signatures = 3", 'signatures = "3"'), "[federation] signatures"),
        (TABLE.replace('"university-x"', '""'), "[federation] coordinator"),
        (TABLE.replace("address", "adress"), "[federation] adress"),
        ("[federation]\naddress = 7\n", "[federation] coordinator"),
    ],
)
def test_a_wrong_federation_is_named(tmp_path: Path, table: str, where: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        Plan.load(written(tmp_path / "plan.toml", table))
    assert where in [problem.where for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("fl.example.org:8000", "fl.example.org", 8000),
        ("localhost:1", "localhost", 1),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("[2001:db8::1]:8000", "2001:db8::1", 8000),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert forms.address_fault(address) == ""
    assert forms.split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "fl.example.org", ":8000", "fl:0", "fl:65536", "fl:08", "fl:8000\n", "fl:-1", "a b:1",
        "2001:db8::1:8000", "[127.0.0.1]:1", "[::1%eth0]:1", "1.2.3:4", "256.1.1.1:1", "-a:1",
        "a..b:1", "user@host:1", "host/path:1", "Ü.example:1", f"{'a' * 64}.example:1",
    ],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    assert forms.address_fault(address)
