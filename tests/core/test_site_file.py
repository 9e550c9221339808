"""site.toml: the site's own words, checked as strictly as a plan."""

from pathlib import Path

import pytest

from collegium.core.errors import InvalidSiteFile, MissingInput
from collegium.core.mechanism import Budget
from collegium.core.site_file import SiteFile

KEY = "ed25519:" + "Q" * 43 + "="
GOOD = f"""
schema = 1
[site]
name = "north"
mode = "real"
[data]
asset = "cardiology-2019-2025"
reader = "csv"
path = "records.csv"
label = "outcome"
unit = "patient_id"
test_share = 0.2
[policy]
max_epsilon = 8.0
delta = 1e-5
unit = "patient"
relation = "add-or-remove-one"
max_steps = 5000
max_sampling_rate = 0.5
max_clip_norm = 1.0
models = ["torchvision:resnet18"]
plans = ["sha256:{"0a" * 32}"]
signers = ["{KEY}"]
signatures = 1
min_sites = 3
metrics = ["accuracy", "auc"]
[ledger]
path = "ledger/cardiology.sqlite"
anchor = "/another/volume/cardiology.anchor"
[hardware]
device = "cuda:0"
"""


def load(tmp_path: Path, text: str) -> SiteFile:
    path = tmp_path / "site.toml"
    path.write_text(text, encoding="utf-8")
    return SiteFile.load(path)


def test_the_file_of_the_schema_is_read(tmp_path: Path) -> None:
    site = load(tmp_path, GOOD)
    assert site.site.name == "north" and site.site.mode == "real"
    assert site.policy.budget == Budget(
        epsilon=8.0, delta=1e-5, unit="patient", relation="add-or-remove-one"
    )
    assert site.data_path == tmp_path / "records.csv"
    assert site.ledger_path == tmp_path / "ledger" / "cardiology.sqlite"
    assert site.anchor_path == Path("/another/volume/cardiology.anchor")
    assert site.policy.metrics == ("accuracy", "auc") and site.hardware.device == "cuda:0"


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("schema = 1", "schema = 9", "schema"),
        ("schema = 1", "", "schema"),
        ('name = "north"', 'name = "North Hospital"', "[site] name"),
        ('name = "north"', 'name = "con"', "[site] name"),
        ('name = "north"', 'name = "../x"', "[site] name"),
        ('mode = "real"', 'mode = "reel"', "[site] mode"),
        ('mode = "real"', 'moode = "real"', "[site] moode"),
        ('reader = "csv"', 'reader = "xls"', "[data] reader"),
        ('label = "outcome"', "", "[data] label"),
        ('unit = "patient_id"', "", "[data] unit"),
        ("test_share = 0.2", "test_share = 1.0", "[data] test_share"),
        ("test_share = 0.2", "test_share = 0.0", "[policy] metrics"),
        ("max_epsilon = 8.0", "max_epsilon = -8.0", "[policy] max_epsilon"),
        ("max_epsilon = 8.0", "max_epsilon = inf", "[policy] max_epsilon"),
        ("max_epsilon = 8.0", "", "[policy] max_epsilon"),
        ("delta = 1e-5", "delta = 0", "[policy] delta"),
        ("max_steps = 5000", "max_steps = 5e3", "[policy] max_steps"),
        ("max_sampling_rate = 0.5", "max_sampling_rate = 1.5", "[policy] max_sampling_rate"),
        ('models = ["torchvision:resnet18"]', 'models = ["resnet18"]', "[policy] models 1"),
        (f'signers = ["{KEY}"]', 'signers = ["ed25519:AAAA"]', "[policy] signers 1"),
        (f'signers = ["{KEY}"]', f'signers = ["{KEY}", "{KEY}"]', "[policy] signers"),
        ("signatures = 1", "signatures = 2", "[policy] signatures"),
        ('metrics = ["accuracy", "auc"]', 'metrics = ["acuracy"]', "[policy] metrics 1"),
        ("/another/volume/", "ledger/", "[ledger] anchor"),
        ('device = "cuda:0"', 'device = "gpu"', "[hardware] device"),
        ("[hardware]", "[federation]\nport = 1\n[hardware]", "[federation] port"),
        ("[hardware]", "[federation]\nruntime_port = 0\n[hardware]", "[federation] runtime_port"),
        (
            "[hardware]",
            "[federation]\nreply_grid_s = 0.0\n[hardware]",
            "[federation] reply_grid_s",
        ),
        ("[hardware]", "[federation]\npoll_s = 0.0\n[hardware]", "[federation] poll_s"),
        ("[ledger]", "[legder]", "[legder]"),
        ("[data]", "[[data]]", "[data]"),
    ],
)
def test_each_fault_is_named_by_its_key(tmp_path: Path, old: str, new: str, where: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidSiteFile) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert [problem.where for problem in caught.value.problems] == [where]
    assert caught.value.exit_code == 65


def test_where_kit_keys_and_state_lie(tmp_path: Path) -> None:
    site = load(tmp_path, GOOD)
    assert (site.federation.runtime_port, site.federation.poll_s) == (9094, 1.0)
    assert (site.kit_path, site.keys_path) == (tmp_path, tmp_path / "keys")
    own = '[federation]\nkit = "kit"\nkeys = "/secret"\nstate = "s"\nreply_grid_s = 0.25\n'
    site = load(tmp_path, GOOD + own)
    assert (site.kit_path, site.keys_path) == (tmp_path / "kit", Path("/secret"))
    assert site.state_path == tmp_path / "s" and site.federation.reply_grid_s == 0.25


def test_a_real_site_trusts_somebody_by_name(tmp_path: Path) -> None:
    open_door = GOOD.replace("signatures = 1", "signatures = 0")
    for plans in (f'plans = ["sha256:{"0a" * 32}"]', "plans = []"):
        door = open_door.replace(f'plans = ["sha256:{"0a" * 32}"]', plans)
        with pytest.raises(InvalidSiteFile, match="would train for anyone") as caught:
            load(tmp_path, door)
        (problem,) = caught.value.problems
        assert "signers" in problem.cure and "digest" not in problem.cure
    lab = load(tmp_path, open_door.replace('mode = "real"', 'mode = "simulation"'))
    assert lab.site.mode == "simulation"


def test_a_signer_has_one_spelling(tmp_path: Path) -> None:
    """Two spellings of one key would count as two signers."""
    twin = "ed25519:" + "Q" * 42 + "R="
    with pytest.raises(InvalidSiteFile, match="unusual spelling"):
        load(tmp_path, GOOD.replace(f'["{KEY}"]', f'["{KEY}", "{twin}"]'))


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidSiteFile) as caught:
        load(tmp_path, 'schema = 1\n[site]\nname = "A B"\n[policy]\ndelta = 2\n')
    assert [problem.where for problem in caught.value.problems] == [
        "[site] name",
        "[data]",
        "[policy] max_epsilon",
        "[policy] delta",
        "[ledger]",
        "[policy] signatures",
    ]


def test_a_missing_file_is_66(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        SiteFile.load(tmp_path / "site.toml")
