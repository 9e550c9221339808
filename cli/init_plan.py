"""The plan and site file that ``collegium init --model`` writes: measured numbers, your columns."""

from __future__ import annotations

from ..core.errors import InvalidInput
from .recipes import Kind, Recipe, recipe_for

_CLASSES = {
    "classification": 'classes = ["negative", "positive"]  # names of the classes, in label order',
    "multilabel": 'classes = ["finding-a", "finding-b"]    # each is a column of 0 and 1',
    "segmentation": 'classes = ["background", "lesion"]      # values 0, 1, ... of the masks',
    "regression": "target = [0.0, 100.0]             # public lowest and highest value",
    "survival": "target = [0.0, 90.0, 180.0, 365.0]  # public times that cut the baseline hazard",
}
_INPUTS: dict[Kind, str] = {
    "table": """
# Public bounds of each number, in column order: never fitted on records.
[model.bounds]
"age" = [0.0, 100.0]
"dose" = [0.0, 50.0]

# [model.categories]              # public list of the categories of each other column
# "sex" = ["female", "male"]

# [statistics]                    # a common mean and deviation of every number, noised and charged
# normalise = true
""",
    "image": "",
    "text": "",
}
_READERS: dict[Kind, str] = {"table": "csv", "image": "images", "text": "text"}


def first_task(model: str) -> str:
    """Return what a model learns where nobody says it; raises as ``plan_text``."""
    from ..models import registry

    return registry.card(model).tasks[0]


def plan_text(model: str, trainable: str, task: str) -> str:
    """Return a commented plan of this model with the measured recipe.

    Raises ``InvalidInput`` for a model or task that this version does not know.
    """
    if task not in _CLASSES:
        raise InvalidInput(
            f"'{task}' is no task",
            why="a plan says what the model learns to answer",
            cure="write " + ", ".join(_CLASSES),
        )
    kind, weights = _known(model)
    recipe = recipe_for(kind, trainable)
    lines = [f'name = "{model}"', f'task = "{task}"', _CLASSES[task], f'trainable = "{trainable}"']
    if weights:
        lines.append(weights)
    if kind == "image" and model != "collegium:glyph-cnn":
        lines.append("image = [224, 224, 3]             # height, width, channels of your images")
    return _HEAD + "\n".join(lines) + "\n" + _INPUTS[kind] + _tail(recipe, trainable)


def site_text(template: str, model: str) -> str:
    """Return the site file's template for this model: its reader, and the policy that names it."""
    kind, _ = _known(model)
    changes = {
        'reader = "csv"  ': f'reader = "{_READERS[kind]}"  ',
        '["collegium:glyph-cnn"]': f'["{model}"]',
    }
    if kind == "text":
        changes['label = "outcome"'] = 'text = "message"\nlabel = "outcome"'
    for old, new in changes.items():
        if old not in template:
            raise KeyError(old)
        template = template.replace(old, new)
    return template


def _known(model: str) -> tuple[Kind, str]:
    """Return what the model reads, and the plan's line on its weights, if it has one."""
    from ..models import registry

    card = registry.card(model)
    kind: Kind = "table" if card.input_kind == "other" else card.input_kind
    if card.weights:
        return kind, f'weights = "{card.weights}"'
    asked = '# weights = "sha256:..."         # what sha256sum prints of the file of open weights'
    return kind, asked if card.pinned else ""


def _tail(recipe: Recipe, trainable: str) -> str:
    if recipe.measured:
        origin = f"# Measured on {recipe.measured} (docs/recipes.md): a start, not a promise."
    else:
        origin = (
            f'# Nothing like it with trainable = "{trainable}" was measured: these are the numbers '
            "of the\n# nearest recipe (docs/recipes.md). Try them on public data first."
        )
    return f"""
# ---- the recipe ----
{origin}
# Never search better numbers on private records: each try costs epsilon.
[rounds]
count = {recipe.rounds}
local_steps = 1                   # noisy steps per round and site

[strategy]
name = "mean"
server_learning_rate = {recipe.learning_rate}
iterate_average = {recipe.iterate_average}             # release the average of the last half

[privacy]
enabled = true
unit = "record"                   # or "patient", with [data] unit in the site files
relation = "add-or-remove-one"
epsilon = {recipe.epsilon}                     # most that each site spends on this plan
delta = 1e-4                      # stay well below 1 / public_records of the largest site
clip_norm = {recipe.clip_norm}
sampling_rate = {recipe.sampling_rate}
batch_cap = 0

[codec]
name = "bf16"

[evaluation]
origin = "public"                 # the test parts may be shown to everyone
rounds = "last"

# Read by the simulator alone: deals the records of one site file to all sites.
[simulation]
dataset = "files"
files = "site.toml"
split = "dirichlet:0.5"
seed = 7
baselines = true
"""


_HEAD = """# The consortium's agreement. Everything but [simulation] is what its members sign.
# Check it:    collegium plan check plan.toml
# Its cost:    collegium plan explain plan.toml
# Try it:      collegium simulate plan.toml --out run
schema = 1

[consortium]
name = "my-consortium"

# public_records is a public upper bound of the site's size; batch normaliser and weight come
# from it, never from the records.
[[sites]]
name = "north"
public_records = 1000

[[sites]]
name = "south"
public_records = 1000

[[sites]]
name = "east"
public_records = 1000

[model]
"""
