"""The exported file equals the module on raw records and says nothing of the build machine."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from collegium.core.errors import GateFailed
from collegium.edge import export
from collegium.edge.device import infer, open_session
from collegium.edge.export import INPUT, OUTPUT, export_onnx
from collegium.edge.merging import fold_batchnorm
from collegium.edge.students import build_student


@pytest.fixture(scope="module")
def student(teacher: nn.Module) -> nn.Module:
    """A student whose BatchNorm statistics are not the initial ones."""
    student = build_student("auto", teacher, shape=(8, 8), classes=10, seed=3)
    random = torch.Generator().manual_seed(0)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                assert values is not None
                values.data = torch.rand(values.shape, generator=random) + 0.5
    return student.eval()


@pytest.fixture(scope="module")
def exported(student: nn.Module, raw_digits: np.ndarray) -> bytes:
    return export_onnx(student, raw_digits)


def test_folding_keeps_the_function(student: nn.Module, raw_digits: np.ndarray) -> None:
    folded = fold_batchnorm(student)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.from_numpy(raw_digits)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), student(x), rtol=1e-4, atol=1e-4)


def test_export_equals_eager_on_raw_records_of_any_count(
    student: nn.Module, exported: bytes, raw_digits: np.ndarray
) -> None:
    session = open_session(exported)
    for count in (1, 2, 7, 64):
        with torch.no_grad():
            expected = student(torch.from_numpy(raw_digits[:count])).numpy()
        np.testing.assert_allclose(infer(session, raw_digits[:count]), expected, atol=1e-3)


def test_preprocessing_is_in_the_graph(
    student: nn.Module, exported: bytes, raw_digits: np.ndarray
) -> None:
    """Raw 0..16 pixels go in; the same pixels already scaled give another answer."""
    session = open_session(exported)
    scaled = student.preprocess(torch.from_numpy(raw_digits))  # (n, 1, 8, 8) in 0..1
    with torch.no_grad():
        expected = student.head(student.body(scaled)).numpy()
    np.testing.assert_allclose(infer(session, raw_digits), expected, atol=1e-3)
    assert not np.allclose(infer(session, raw_digits / 16), expected, atol=1e-3)


def test_nothing_of_the_build_machine_is_in_the_file(exported: bytes) -> None:
    words = (b"site-packages", b"stack_trace", b"torch", b".py", str(Path.home()).encode())
    here = str(Path(export.__file__).parent).encode()
    assert not [word for word in (*words, here) if len(word) > 2 and word in exported]
    model = onnx.load_from_string(exported)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == [INPUT]
    assert [value.name for value in model.graph.output] == [OUTPUT]
    assert not model.metadata_props and not model.graph.value_info
    assert not any(node.name or node.doc_string or node.metadata_props for node in model.graph.node)


def test_export_is_compact(exported: bytes, student: nn.Module) -> None:
    weights = 4 * sum(parameter.numel() for parameter in fold_batchnorm(student).parameters())
    assert len(exported) < weights + 2048


def test_a_file_that_differs_from_the_module_is_refused(
    student: nn.Module, exported: bytes, raw_digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> np.ndarray:
        return np.zeros((64, 10), np.float32)

    monkeypatch.setattr(export, "infer", wrong)
    with pytest.raises(GateFailed, match="differs"):
        export._check_against_eager(student, exported, raw_digits)
