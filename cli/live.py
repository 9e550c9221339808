"""The live table of a run: stages, a bar with the time left, the last rounds, the sites' state."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..server.store import Release
from ..server.words import clean, duration, epsilon, size
from .view import Clock, View, metric_of

STAGES = ("data", "rounds", "baselines", "edge", "report")
_NAMED_SITES = 12  # above this the sites are counted, not listed


class LiveView(View):
    """The live table: stages, bar with the time left, the last rounds, the sites' state."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._plan: Plan | None = None
        self._title = ""
        self._names: tuple[str, ...] = STAGES
        self._unicode = console.encoding.startswith("utf")
        self._reset()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def _reset(self) -> None:
        self._stage, self._since = "start", time.monotonic()
        self._seen: set[str] = set()
        self._share: float | None = None
        self._what = ""
        self._done, self._open = 0, 1
        self._recent: deque[Release] = deque(maxlen=10)
        self._sites: dict[str, str] = {}
        self._clock = Clock()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._stage = "done"
        self._live.stop()

    def seed(self, seed: int, number: int, count: int) -> None:
        """Begin the table anew for another seed."""
        self._reset()
        self._title = f"seed {seed}, {number} of {count}"

    def stage(self, name: str) -> None:
        """Move the stage line on."""
        self._stage, self._since, self._share, self._what = name, time.monotonic(), None, ""
        self._seen.add(name)

    def started(
        self, plan: Plan, specs: Mapping[str, MechanismSpec], history: Sequence[Release]
    ) -> None:
        """Show what will run, and the rounds that are durable already."""
        self._plan, self._clock = plan, Clock()
        self._recent.extend(history[-self._recent.maxlen :] if self._recent.maxlen else ())
        self._done = len(history)
        self._open = self._done + 1
        self._sites = {site.name: "waiting" for site in plan.sites}

    def stages(self, names: Sequence[str]) -> None:
        """Show these stages instead of a simulation's."""
        self._names = tuple(names)

    def invited(self, round: int, site: str) -> None:
        """Show that a site was asked and has not answered yet."""
        self._begin(round)
        self._sites[site] = "training"

    def site_state(self, site: str, state: str) -> None:
        """Show that a site has come, or is away."""
        self._sites[site] = state

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._live.console.print(Text(clean(text), style="yellow"), soft_wrap=True)

    def answered(self, round: int, site: str, code: str) -> None:
        """Show that a site is done or refused in this round."""
        self._begin(round)
        self._sites[site] = "done" if code == "ok" else f"refused ({code})"

    def _begin(self, round: int) -> None:
        """Forget the sites' answers of the round before; who is away stays away."""
        if round != self._open or self._done >= round:
            self._open = round
            self._sites = {
                site: state if state == "absent" else "waiting"
                for site, state in self._sites.items()
            }

    def round_done(self, release: Release) -> None:
        """Add a row, and name the sites that were late."""
        self._clock.tick()
        self._recent.append(release)
        self._done = release.round
        self._sites |= dict.fromkeys(release.late, "late")

    def progress(self, what: str, share: float) -> None:
        """Show how far a long step is."""
        self._what, self._share = what, share or None

    # --- drawing --------------------------------------------------------------------------------

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._head(), self._stages()]
        if self._stage not in ("done", "start", "data"):
            parts.append(self._bar())
        if self._recent:
            parts += [Text(), self._table()]
        if self._stage == "rounds":
            parts.append(self._site_line())
        return Group(*parts, Text())

    def _head(self) -> Text:
        plan = self._plan
        if plan is None:
            return Text("Collegium", style="bold cyan")
        facts = [f"{len(plan.sites)} sites", f"{plan.rounds.count} rounds", plan.model.name]
        facts.append(
            f"epsilon {plan.privacy.epsilon:g} per site"
            if plan.privacy.enabled
            else "privacy switched off"
        )
        if self._title:
            facts.insert(0, self._title)
        head = Text(clean(plan.consortium), style="bold cyan")
        return head.append(self._join(["", *map(clean, facts)]), style="not bold default")

    def _stages(self) -> Text:
        done, now, ahead = ("✓", "●", "○") if self._unicode else ("x", ">", ".")
        line = Text()
        for name in self._names:
            if name == self._stage:
                line.append(f"{now} {name}   ", style="bold")
            elif name in self._seen:
                line.append(f"{done} {name}   ", style="green")
            else:  # still to come, or not part of this plan
                line.append(f"{ahead} {name}   ", style="dim")
        return line

    def _bar(self) -> Table:
        """The bar of this stage, with the time left where it is known, else the time taken."""
        grid = Table.grid(padding=(0, 1))
        took = duration(time.monotonic() - self._since)
        if self._stage == "rounds" and self._plan is not None:
            count = self._plan.rounds.count
            left = self._clock.left(count - self._done)
            note = f"about {duration(max(1, round(left)))} left" if left is not None else took
            label = f"round {min(self._done + 1, count)} of {count}"
            bar = ProgressBar(total=count, completed=self._done, width=32)
        else:
            label, note = clean(self._what) or self._stage, took
            bar = ProgressBar(
                total=1.0, completed=self._share or 0.0, width=32, pulse=self._share is None
            )
        grid.add_row(Text(label), bar, Text(note, style="dim"))
        return grid

    def _table(self) -> Table:
        privacy = self._plan.privacy if self._plan else None
        budget = f"epsilon of {privacy.epsilon:g}" if privacy and privacy.enabled else "epsilon"
        shown = metric_of(self._recent[-1].metrics) or "accuracy"
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
        for name in ("round", shown, budget, "up", "down", "sites"):
            table.add_column(clean(name), justify="right", no_wrap=True)
        table.add_column("")
        rows = max(3, min(8, self._console.height - 12))
        for release in list(self._recent)[-rows:]:
            value = release.metrics.get(shown)
            spent = release.epsilon_by_site
            table.add_row(
                str(release.round),
                "-" if value is None else f"{value:.3f}",
                epsilon(max(spent.values())) if spent else "-",
                size(release.bytes_up),
                size(release.bytes_down),
                str(len(release.sites)),
                self._trouble(release),
            )
        return table

    def _trouble(self, release: Release) -> Text:
        odd = [f"{site} refused ({code})" for site, code in release.refused]
        odd += [f"{site} late" for site in release.late]
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        return Text(clean(", ".join(odd[:3]) + more), style="yellow")

    def _site_line(self) -> Text:
        """Every site's state in the open round; with many sites the counts."""
        styles = {"done": "green", "waiting": "dim", "training": "cyan"}
        if len(self._sites) > _NAMED_SITES:
            counts = Counter(state.partition(" ")[0] for state in self._sites.values())
            named = [f"{number} {state}" for state, number in counts.most_common()]
            return Text(f"\nround {self._open}:  " + "  ".join(named))
        line = Text(f"\nround {self._open}:  ")
        for site, state in self._sites.items():
            line.append(f"{clean(site)} ").append(f"{clean(state)}   ", styles.get(state, "yellow"))
        return line

    def _join(self, parts: Sequence[str]) -> str:
        return ("  ·  " if self._unicode else "  |  ").join(parts)
