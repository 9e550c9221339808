"""The report: complete, self-contained, and safe whatever stands in result.json."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput, MissingInput
from collegium.server.report import render, write_report
from collegium.server.result import combine

VOID = {"meta", "br", "link", "img", "hr", "input"}
DIGEST = "sha256:" + "ab" * 32


def entry(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "model_sha256": DIGEST,
        "sites": ["north", "south"],
        "refused": [],
        "late": [],
        "bytes_up": 2000,
        "bytes_down": 3000,
        "seconds": 0.5,
        "epsilon": 0.9 * number,
        "metrics": {"accuracy": 0.5 + 0.1 * number, "majority": 0.3},
        "site_metrics": None,
    }


def result(seed: int = 7) -> dict[str, Any]:
    """Return a small complete result with made-up figures."""
    spent = {"epsilon": 2.9991, "epsilon_total": 2.9991, "normaliser": 210.0, "noisy_steps": 3}
    return {
        "schema": 1,
        "simulated": True,
        "custom": False,
        "consortium": "two-hospitals",
        "dataset": "sklearn:digits",
        "model": "collegium:glyph-cnn",
        "task": "classification",
        "plan_sha256": DIGEST,
        "model_sha256": DIGEST,
        "seeds": [seed],
        "rounds": 3,
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "epsilon_budget": 3.0,
        "sites": [
            {
                "name": name,
                "public_records": 700,
                "epsilon": 2.9991,
                "epsilon_total": 2.9991,
                "delta": 1e-5,
                "metrics": {"accuracy": 0.9125, "majority": 0.3},
            }
            for name in ("north", "south")
        ],
        "epsilon_max": 2.9991,
        "epsilon_if_shared": 4.5678,
        "privacy": {
            "guarantee": "no privacy guarantee: noise reproducible",
            "unit": "record",
            "relation": "add-or-remove-one",
            "delta": 1e-5,
            "epsilon_by_site": {
                name: spent | {"ledger_head": f"sha256:{name}"} for name in ("north", "south")
            },
            "epsilon_max": 2.9991,
            "epsilon_max_reads": "if no person is in two sites",
            "epsilon_if_shared": 4.5678,
            "mechanism": {
                "name": "subsampled Gaussian",
                "sampler": "poisson",
                "sampling_rate": 0.3,
                "clip_norm": 1.0,
                "noise_multiplier": 3.0223,
                "rounds": 3,
                "steps_per_round": 1,
                "noise": "AES-256-CTR",
            },
            "accountant": {"method": "PLD", "discretization": 0.001, "dp_accounting": "0.6.0"},
            "protects_against": {"coordinator": "sees noised updates"},
            "released": ["the trainable vector"],
            "not_covered": ["facts about the population"],
        },
        "global_bytes": 434_664,
        "global": {"accuracy": 0.941, "metrics": {"accuracy": 0.941, "majority": 0.3}},
        "open_model": {"accuracy": 0.66, "metrics": {"accuracy": 0.66, "majority": 0.3}},
        "local": {
            "note": "not a release",
            "accuracy_mean": 0.52,
            "metrics_mean": {"accuracy": 0.52},
            "by_site": {"north": {"accuracy": 0.5}, "south": {"accuracy": 0.54}},
        },
        "pooled": {"note": "not a release", "accuracy": 0.975, "metrics": {"accuracy": 0.975}},
        "history": [entry(number) for number in (1, 2, 3)],
        "edge": {
            "accuracy": 0.935,
            "agreement": 0.978,
            "recipe": "int8",
            "size_bytes": 14_210,
            "size_ratio": 30.6,
            "verified": True,
            "reason": "",
            "bundle_sha256": DIGEST,
            "candidates": [
                {
                    "candidate": "fp32",
                    "agreement": 0.99,
                    "metric_delta": -0.001,
                    "latency_ratio": 1.0,
                    "size_bytes": 40_000,
                    "verdict": {"ok": True, "code": "ok", "reason": "", "cure": ""},
                },
                {
                    "candidate": "int8",
                    "agreement": 0.978,
                    "metric_delta": -0.006,
                    "latency_ratio": 0.74,
                    "size_bytes": 14_210,
                    "verdict": {"ok": False, "code": "x", "reason": "below .95", "cure": ""},
                },
            ],
        },
        "seconds": 23.3,
        "peak_rss_bytes": 866_988_032,
    }


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read(values: dict[str, Any]) -> Page:
    page = Page(render(values))
    page.text = re.sub(r"\s+", " ", page.text)
    return page


def test_page_shows_the_figures_of_the_result() -> None:
    text = read(result()).text
    for figure in ("94.1%", "66.0%", "52.0%", "97.5%", "3.00", "4.568", "14.2 kB", "97.8%", "1e-5"):
        assert figure in text
    for fact in ("two-hospitals", "sklearn:digits", DIGEST, "sha256:north", "torch 2.15.0"):
        assert fact in text


def test_simulation_says_that_it_protects_nobody() -> None:
    text = read(result()).text
    assert "Simulation: no privacy guarantee." in text
    assert "no privacy guarantee: noise reproducible" in text


def test_real_run_carries_no_such_note() -> None:
    values = result() | {"simulated": False}
    values["privacy"]["guarantee"] = "differential privacy"
    assert "no privacy guarantee" not in read(values).text


def test_page_asks_for_nothing_outside_itself() -> None:
    html = render(result())
    page = Page(html)
    assert page.links == []
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert not re.search(r"https?://|@import|url\(|//[a-z]", html)
    assert "default-src 'none'" in html


def test_names_cannot_break_out_of_their_place() -> None:
    evil = "<script>alert('1')</script>\"><img src=x onerror=y>"
    values = result()
    values |= {"consortium": evil, "dataset": evil, "model": evil, "task": evil}
    values["sites"][0]["name"] = evil
    values["local"]["by_site"] = {evil: {"accuracy": 0.5}}
    values["history"][1] |= {"refused": [{"site": evil, "code": evil}], "late": [evil]}
    values["edge"] |= {"recipe": evil, "reason": evil, "verified": False}
    values["edge"]["candidates"][0]["candidate"] = evil
    values["privacy"]["not_covered"] = [evil]
    values["versions"] = {evil: evil}
    values["sites"][1]["metrics"] = {evil: 0.5}
    page = read(values)
    assert page.tags.isdisjoint({"script", "img"})
    assert page.text.count("<script>") >= 10


def test_page_without_privacy_edge_or_baselines() -> None:
    values = result()
    nothing = ("privacy", "epsilon_max", "epsilon_if_shared", "epsilon_budget", "edge", "local")
    values |= dict.fromkeys((*nothing, "pooled", "open_model", "dataset", "consortium"))
    for site in values["sites"]:
        site.update(dict.fromkeys(("epsilon", "epsilon_total", "delta", "metrics")))
    for done in values["history"]:
        done.update(epsilon=None, metrics=None)
    text = read(values).text
    assert "Privacy is switched off" in text
    assert "no edge model" in text
    assert "Round by round" not in text


def test_page_of_a_run_that_measured_nothing() -> None:
    values = result() | {"custom": True, "history": [], "open_model": None, "edge": None}
    values["global"] = {"accuracy": None, "metrics": {}}
    values |= {"local": None, "pooled": None}
    text = read(values).text
    assert "Custom, not provisionable" in text
    assert "holds no rounds" in text


def test_refused_and_late_sites_are_named() -> None:
    values = result()
    values["history"][1] |= {"refused": [{"site": "south", "code": "norm"}], "sites": ["north"]}
    values["history"][2] |= {"late": ["north"], "sites": ["south"]}
    text = read(values).text
    assert "2 of 3 rounds went on without every site" in text
    assert "south (norm)" in text


def test_failed_gate_is_said_with_its_reason() -> None:
    values = result()
    values["edge"] |= {"verified": False, "reason": "agreement .90 is below .95"}
    text = read(values).text
    assert "Not passed: agreement .90 is below .95. There is no bundle." in text
    assert "no candidate passed the gate" in text


def test_several_seeds_show_medians_and_each_seed() -> None:
    runs = [result(seed) for seed in (0, 1, 2)]
    for run, accuracy in zip(runs, (0.90, 0.94, 0.96), strict=True):
        run["global"]["metrics"]["accuracy"] = accuracy
        run["model_sha256"] = f"sha256:{accuracy}"
    values = combine(copy.deepcopy(runs))
    text = read(values).text
    assert "medians of 3 seeds" in text
    for figure in ("90.0%", "94.0%", "96.0%"):
        assert figure in text
    assert "sha256:north" not in text  # each seed has its own ledgers


def test_report_is_written_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result()))
    out = tmp_path / "elsewhere" / "study.html"
    assert write_report(tmp_path, out) == out
    assert out.read_text(encoding="utf-8") == render(result())


def test_report_without_a_result(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        write_report(tmp_path, tmp_path / "report.html")
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(InvalidInput):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
