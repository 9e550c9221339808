"""Every loss by hand, and the features that a hint compares."""

import math

import pytest
import torch
from torch import nn

from collegium.core.errors import InvalidInput
from collegium.core.plan_edge import Distillation
from collegium.edge.hints import Hint, hint_between, with_features
from collegium.edge.losses import loss_of, soft_loss, standardised_loss
from collegium.models.heads import Headed


def test_soft_loss_by_hand() -> None:
    """T=2: teacher softmax(ln 3, 0) = (3/4, 1/4), student (1/2, 1/2); times T^2 = 4."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert soft_loss(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)
    assert soft_loss(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-7)


def test_standardised_loss_by_hand() -> None:
    """(0, 3, 6) has mean 3 and deviation sqrt 6: -a, 0, a with a = 3 / sqrt 6; T = 1.

    The student's (1, 1, 1) has no deviation and stays 0, 0, 0: chances of a third each.
    """
    a = 3 / math.sqrt(6)
    total = math.exp(-a) + 1 + math.exp(a)
    chances = [math.exp(-a) / total, 1 / total, math.exp(a) / total]
    expected = sum(p * math.log(3 * p) for p in chances)
    found = standardised_loss(torch.ones(1, 3), torch.tensor([[0.0, 3.0, 6.0]]), 1.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_standardised_logits_forget_scale_and_shift() -> None:
    teacher = torch.tensor([[0.3, -1.2, 2.0], [4.0, 0.1, 0.2]])
    student = 7 * teacher + 3
    assert standardised_loss(student, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert soft_loss(student, teacher, 2.0).item() > 0.1


def test_equal_logits_have_a_gradient_that_is_a_number() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    standardised_loss(logits, torch.tensor([[1.0, 2.0, 3.0]]).expand(2, 3), 1.0).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_the_recipe_names_the_loss_and_its_temperature() -> None:
    one, two = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[2.0, 0.0, 0.5]])
    for name, loss in (("kl", soft_loss), ("logit-std", standardised_loss)):
        found = loss_of(Distillation(loss=name, temperature=3.0), 3)  # type: ignore[arg-type]
        assert found(one, two).item() == loss(one, two, 3.0).item()


def test_two_standardised_classes_are_refused() -> None:
    """They are -1 and 1 whatever the answer is: the loss of any two in one order is 0."""
    near, far = torch.tensor([[0.0, 0.1]]), torch.tensor([[0.0, 9.0]])
    assert standardised_loss(near, far, 1.0).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(InvalidInput, match="-1 and 1"):
        loss_of(Distillation(loss="logit-std"), 2)


def test_hint_by_hand() -> None:
    """Unit map: (3, 4) against (1, 0) is (0.6 - 1)^2 + 0.8^2 = 0.8; the same direction 0."""
    hint = Hint(2, 2)
    with torch.no_grad():
        hint.map.weight.copy_(torch.eye(2))
        hint.map.bias.zero_()
    seen = torch.tensor([[3.0, 4.0]])
    assert hint(seen, torch.tensor([[5.0, 0.0]])).item() == pytest.approx(0.8, rel=1e-6)
    assert hint(seen, torch.tensor([[6.0, 8.0]])).item() == pytest.approx(0, abs=1e-6)
    both = hint(seen.repeat(2, 1), torch.tensor([[5.0, 0.0], [-3.0, -4.0]]))
    assert both.item() == pytest.approx((0.8 + 4) / 2, rel=1e-6)


def test_features_are_what_the_head_reads() -> None:
    model = Headed(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    x = torch.arange(8.0).reshape(2, 2, 2)
    answers, features = with_features(model, x)
    assert torch.equal(answers, model(x)) and torch.equal(features, model.features(x))
    other = Headed(nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2))
    found = hint_between(other, model, x)
    assert (found.map.in_features, found.map.out_features) == (5, 3)


def test_a_model_without_features_says_so() -> None:
    per_place = Headed(nn.Identity(), nn.Identity(), nn.Linear(4, 2))
    for model in (nn.Linear(4, 2), per_place):
        with pytest.raises(InvalidInput, match="features"):
            with_features(model, torch.zeros(2, 3, 4))
