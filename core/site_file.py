"""The site's own words (site.toml): where its records are, what it allows, its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import forms
from .errors import InvalidSiteFile, Problem
from .fields import about, homes_of, shown
from .mechanism import Budget, Relation, Unit
from .plan import MAX_EPSILON, MIN_DELTA
from .public_keys import ed25519_key_fault
from .reading import Reader, apply_rules
from .site_data_section import DataSection, with_environment
from .toml_file import read_toml

__all__ = ["DataSection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSection:
    """Which site this is and whether its noise may be seeded."""

    name: str = field(
        metadata=about(
            "Name of the site, as in the plan's roster",
            fault=forms.name_fault,
            form='a name of a-z, 0-9 and inner hyphens, like "north"',
        )
    )
    mode: Literal["real", "simulation"] = field(
        default="real",
        metadata=about(
            '"simulation" seeds the noise and taints every output; only under `collegium up` or '
            "a lab roster"
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """What this site allows; a coordinator can ask for less and never for more."""

    max_epsilon: float = field(
        metadata=about(
            "All that the asset may ever spend, over all plans", above=0, high=MAX_EPSILON
        )
    )
    delta: float = field(
        metadata=about("Largest delta at which that is counted", low=MIN_DELTA, below=1)
    )
    unit: Unit = field(
        default="record", metadata=about("Whose presence is protected: one record or one patient")
    )
    relation: Relation = field(
        default="add-or-remove-one",
        metadata=about("Which data sets count as neighbours in the guarantee"),
    )
    max_steps: int = field(
        default=5000,
        metadata=about(
            "Most noisy steps of one plan in all, repeated rounds and further jobs included",
            low=1,
            high=10_000_000,
        ),
    )
    max_sampling_rate: float = field(
        default=0.5,
        metadata=about("Largest share of the records in one step's batch", above=0, high=1),
    )
    max_clip_norm: float = field(
        default=1.0, metadata=about("Largest clip norm of one record", above=0, high=1e6)
    )
    models: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Models that may be trained; empty: any",
            fault=forms.model_fault,
            form='a list of model names, like ["torchvision:resnet18"]',
        ),
    )
    plugins: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Installed plug-ins that may run here: models, readers, tasks, strategies; empty: none",
            fault=forms.plugin_fault,
            form='a list, like ["plugin:our-reader"]',
        ),
    )
    plans: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Digests of the plans that may run, signed all the same; empty: any signed plan",
            fault=forms.digest_fault,
            form='a list of "sha256:" digests',
        ),
    )
    signers: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Keys whose signatures count, obtained out of band",
            fault=ed25519_key_fault,
            form='a list of "ed25519:" keys',
        ),
    )
    signatures: int = field(
        default=0,
        metadata=about(
            "How many of the signers must have signed; at least 1 at a real site", low=0, high=1000
        ),
    )
    min_sites: int = field(
        default=1, metadata=about("Fewest sites in a plan", low=1, high=1_000_000)
    )
    metrics: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Metrics on the test part that may leave the site; empty: none",
            choices=forms.METRICS,
        ),
    )

    public_test: bool = field(
        default=False,
        metadata=about(
            "Whether the test part is public: only then may exact metrics of it leave, whatever "
            "a plan says"
        ),
    )
    open_data: bool = field(
        default=False,
        metadata=about(
            "Whether everybody may see these records already: only then may a simulation set some "
            "of them aside as public ones"
        ),
    )

    @property
    def budget(self) -> Budget:
        """Return what the asset may spend in all."""
        return Budget(
            epsilon=self.max_epsilon, delta=self.delta, unit=self.unit, relation=self.relation
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSection:
    """Where the asset's ledger lies, and the anchor that finds a rolled-back one."""

    path: str = field(metadata=about("File of the ledger, relative to this file"))
    anchor: str | None = field(
        default=None,
        metadata=about("File of the ledger's last head, on another volume than the ledger"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """On what the site trains."""

    device: str = field(
        default="auto",
        metadata=about(
            "Device that trains",
            fault=forms.device_fault,
            form='"auto", "cpu", "mps", "cuda" or "cuda:N"',
        ),
    )
    precision: Literal["float32", "bf16"] = field(
        default="float32",
        metadata=about("Arithmetic of the model; norms, sums and noise are always exact"),
    )
    micro_batch: int = field(
        default=0,
        metadata=about(
            "Most records that are computed at once; a step's batch is summed over as many parts "
            "as it needs; 0: as memory allows",
            low=0,
            high=1_000_000,
        ),
    )
    compile: bool = field(
        default=False, metadata=about("Whether the frozen part of the model is compiled")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLink:
    """Where a real federation's kit, keys and state lie, and how the site answers in it."""

    kit: str = field(
        default=".",
        metadata=about("Folder received from the coordinator, relative to this file"),
    )
    keys: str = field(
        default="keys",
        metadata=about("Folder with this site's own private keys, relative to this file"),
    )
    state: str = field(
        default="state",
        metadata=about(
            "Folder of the spool, the register of records, the approval, sockets and logs, "
            "relative to this file"
        ),
    )
    runtime_port: int = field(
        default=9094,
        metadata=about("Loopback port on which the SuperNode hands out tasks", low=1, high=65_535),
    )
    reply_grid_s: float = field(
        default=1.0,
        metadata=about(
            "Replies leave on multiples of this many seconds after the request came, so that how "
            "long the records took is not told",
            above=0,
            high=3600,
        ),
    )
    poll_s: float = field(
        default=1.0,
        metadata=about(
            "Seconds between two questions of the SuperNode for work", low=0.05, high=60
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTables:
    """The tables of site.toml, in order."""

    schema: int = field(metadata=about("Version of this file's format; 1 today"))
    site: SiteSection
    data: DataSection
    policy: PolicySection
    ledger: LedgerSection
    hardware: Hardware = field(default_factory=Hardware)
    federation: SiteLink = field(default_factory=SiteLink)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """A checked site.toml; ``folder`` is where it lies and what its paths are relative to."""

    site: SiteSection
    data: DataSection
    policy: PolicySection
    ledger: LedgerSection
    hardware: Hardware = field(default_factory=Hardware)
    federation: SiteLink = field(default_factory=SiteLink)
    folder: Path = Path()

    @classmethod
    def load(cls, path: str | Path) -> SiteFile:
        """Read ``site.toml``; raises ``InvalidSiteFile`` with all problems, or ``MissingInput``."""
        source = Path(path)
        tables, problems = examine(read_toml(source, InvalidSiteFile, example="site.toml"))
        if problems:
            raise InvalidSiteFile(str(source), problems)
        return cls(
            site=tables.site,
            data=tables.data,
            policy=tables.policy,
            ledger=tables.ledger,
            hardware=tables.hardware,
            federation=tables.federation,
            folder=source.parent,
        )

    @property
    def data_path(self) -> Path:
        """Return where the records are; raises ``MissingInput`` for an unset variable."""
        return self.folder / with_environment(self.data.path)

    @property
    def test_path(self) -> Path | None:
        """Return where the test records are, None where they are a share of all."""
        own = self.data.test_path
        return None if own is None else self.folder / with_environment(own)

    @property
    def ledger_path(self) -> Path:
        """Return where the ledger lies."""
        return self.folder / self.ledger.path

    @property
    def anchor_path(self) -> Path | None:
        """Return where the ledger's anchor lies, None when there is none."""
        return None if self.ledger.anchor is None else self.folder / self.ledger.anchor

    @property
    def kit_path(self) -> Path:
        """Return the folder that the coordinator sent."""
        return self.folder / self.federation.kit

    @property
    def keys_path(self) -> Path:
        """Return the folder of this site's own private keys."""
        return self.folder / self.federation.keys

    @property
    def state_path(self) -> Path:
        """Return the folder of what this site remembers between two starts."""
        return self.folder / self.federation.state


def examine(tables: Mapping[str, Any]) -> tuple[SiteTables, list[Problem]]:
    """Return the site's tables, with holes, and every problem of the file."""
    reader = Reader(hints=homes_of(SiteTables))
    file = reader.table(SiteTables, tables)
    return file, reader.problems + apply_rules(_RULES, file)


def _schema(file: SiteTables) -> Iterator[Problem]:
    if file.schema != 1:
        yield Problem(
            where="schema",
            what=f"{shown(file.schema)} is not a known format",
            why="This version reads format 1",
            cure="write schema = 1, or use the version of collegium that wrote the file",
        )


def _trust(file: SiteTables) -> Iterator[Problem]:
    """A real site must know whom it trusts; a plan's digest alone is no consent to a roster."""
    if file.site.mode == "real" and not file.policy.signatures:
        yield Problem(
            where="[policy] signatures",
            what="no signature is asked for",
            why="This site would train for anyone who reaches it; [policy] plans only narrows "
            "what signed plans may run",
            cure="name signers, and write how many of them must have signed: 1 or more",
        )


def _signers(file: SiteTables) -> Iterator[Problem]:
    signers, wanted = file.policy.signers, file.policy.signatures
    if wanted > len(set(signers)):
        yield Problem(
            where="[policy] signatures",
            what=f"{wanted} signatures are asked for, but {len(set(signers))} signers are named",
            why="No plan could ever have enough of them",
            cure="add signers or ask for fewer signatures",
        )
    for key, count in Counter(signers).items():
        if count > 1:
            yield Problem(
                where="[policy] signers",
                what=f"{shown(key)} stands there {count} times",
                why="One member signs once",
                cure="remove the repeated key",
            )


def _metrics(file: SiteTables) -> Iterator[Problem]:
    if file.policy.metrics and file.data.test_share == 0:
        yield Problem(
            where="[policy] metrics",
            what="are allowed to leave, but test_share is 0",
            why="Metrics are computed on the test part alone",
            cure="write a test_share above 0, or metrics = []",
        )


def _unit(file: SiteTables) -> Iterator[Problem]:
    if file.policy.unit == "patient" and file.data.unit is None:
        yield Problem(
            where="[data] unit",
            what='is missing, but the policy protects the unit "patient"',
            why="Records of one patient must be found to be clipped together",
            cure='name the column, like unit = "patient_id", or protect the unit "record"',
        )


def _anchor(file: SiteTables) -> Iterator[Problem]:
    anchor = file.ledger.anchor
    if anchor is not None and Path(anchor).parent == Path(file.ledger.path).parent:
        yield Problem(
            where="[ledger] anchor",
            what="lies in the same folder as the ledger",
            why="A restored backup would roll back both, and nobody would notice",
            cure="write a path on another volume",
        )


_RULES: tuple[Callable[[SiteTables], Iterator[Problem]], ...] = (
    _schema,
    _trust,
    _signers,
    _metrics,
    _unit,
    _anchor,
)
