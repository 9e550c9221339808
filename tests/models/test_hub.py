"""What people read when open weights cannot be fetched from a hub."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.core.errors import MissingInput
from collegium.core.plan_model import ModelRef
from collegium.models import registry

OTHER = "sha256:" + "0" * 64


CIFAR = "sha256:12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"


@pytest.mark.parametrize(
    ("name", "known"),
    [("cifar:resnet20", CIFAR), ("torchvision:resnet18", "sha256:f37072fd...")],
)
def test_the_cure_prints_the_digest_that_the_card_knows(
    name: str, known: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for setting in ("COLLEGIUM_WEIGHTS", "COLLEGIUM_DATA", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(setting, str(tmp_path))
    asked = ModelRef(
        name=name, task="classification", classes=("a", "b"), image=(32, 32, 3), weights=OTHER,
        hub=True,
    )  # fmt: skip
    with pytest.raises(MissingInput, match="lists no weights with the digest") as caught:
        registry.build(asked)
    assert f"whose digest is {known}" in caught.value.cure


def test_weights_on_no_hub_are_brought_by_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for setting in ("COLLEGIUM_WEIGHTS", "COLLEGIUM_DATA", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(setting, str(tmp_path))
    digest = registry.card("cifar:resnet20").weights
    asked = ModelRef(
        name="cifar:resnet20", task="classification", classes=("a", "b"), image=(32, 32, 3),
    )  # fmt: skip
    for ref in (replace(asked, hub=True), replace(asked, hub=True, weights=digest)):
        with pytest.raises(MissingInput, match="cannot be fetched") as caught:
            registry.build(ref)
        assert f"{digest} by hand from https://" in caught.value.cure
