"""A network that loses, delays, repeats, reorders and corrupts, and the sites behind it.

It behaves as a SuperLink does: a node is listed for a while after it went, errors of its own
making are told apart from a site's answer, and an answer is kept until it is fetched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ..core.messages import Sealed
from ..server.post import Answer, Lost, Malformed, PostDown
from .nemesis_scenario import Scenario
from .nemesis_site import SimSite, answer_of
from .nemesis_world import SiteDown, World

TTL_S = 60.0  # after which an unanswered question is given up
LEASE_S = 8.0  # for which a node that went is still listed


class SimPost:
    """Carries messages between one coordinator and simulated sites; ``sent`` is all it saw."""

    def __init__(self, world: World, case: Scenario, sites: Mapping[str, SimSite]) -> None:
        self._world, self._case, self._sites = world, case, sites
        self._site_of: dict[int, str] = {}
        self._node_of: dict[str, int] = {}
        self._until: dict[int, float] = {}
        self._ready: dict[str, list[Answer]] = defaultdict(list)
        self._open: set[str] = set()
        self._next_node = 100
        self.sent: list[tuple[str, int, str, Sealed]] = []
        self.answers: list[Sealed] = []
        for name in sites:
            self._attach(name)
        for name, when in case.renames:
            world.at(when, self._renamer(name))

    # --- what the coordinator sees ----------------------------------------------------------

    def nodes(self) -> Collection[int]:
        """Return the nodes that were heard of lately."""
        self._reach("nodes")
        now = self._world.time
        return [
            node
            for node, name in self._site_of.items()
            if self._until.get(node, now) >= now and self._cut_since(name) < LEASE_S
        ]

    def share(self, payload: bytes) -> object:
        """Return the payload: everything is in this process."""
        return payload

    def send(self, node: int, kind: str, sealed: Sealed, shared: object | None = None) -> str:
        """Take a question in, and deliver it some time later, or never."""
        del shared
        self._reach(f"before send {kind}")
        world, rates = self._world, self._case.rates
        question = f"m{len(self.sent)}"
        self.sent.append((question, node, kind, sealed))
        self._open.add(question)
        world.at(world.time + TTL_S, lambda: self._give_up(question))
        if world.chance(rates.error_made, "error made by the post"):
            reason = world.rng.choice(("failed", "unavailable", "crashed", "gone"))
            world.at(world.time + 1.0, lambda: self._reply(question, Lost(reason=reason)))
        elif not world.chance(rates.request_lost, "lost request"):
            for _ in range(1 + world.chance(rates.twice, "duplicate request")):
                self._deliver_at(self._latency(), question, node, kind, sealed)
        world.act(f"after send {kind}")
        return question

    def fetch(self, ids: Iterable[str], *, most: int) -> Iterator[tuple[str, Answer]]:
        """Yield what is there, each once; sometimes also an answer to no question."""
        self._reach("fetch")
        for question in ids:
            for answer in self._ready.pop(question, ()):
                self._world.act("fetched")
                large = isinstance(answer, Sealed) and len(answer.payload) > most
                yield question, Malformed(code="shape") if large else answer
                if self._world.chance(self._case.rates.stray, "stray reply"):
                    yield "never-asked", answer

    def _reach(self, kind: str) -> None:
        self._world.act(kind)
        if any(start <= self._world.time < end for start, end in self._case.post_down):
            self._world.injected["call of a post that is down"] += 1
            raise PostDown

    # --- what happens on the way ------------------------------------------------------------

    def _latency(self) -> float:
        """Return seconds on the way: most are quick, and none keeps the order of sending."""
        quick = self._world.rng.uniform(0.05, 1.5)
        if self._world.chance(self._case.rates.late, "late message"):
            return quick + self._world.rng.uniform(5.0, 50.0)
        return quick

    def _deliver_at(
        self, delay: float, question: str, node: int, kind: str, sealed: Sealed
    ) -> None:
        world = self._world
        world.at(world.time + delay, lambda: self._deliver(question, node, kind, sealed))

    def _deliver(self, question: str, node: int, kind: str, sealed: Sealed) -> None:
        """Hand a question to the site that stands behind the node, if one still does."""
        world, name = self._world, self._site_of[node]
        if (end := self._cut_until(name)) is not None:
            world.injected["message into a cut"] += 1
            if end - world.time > LEASE_S:
                world.at(world.time + LEASE_S, lambda: self._reply(question, Lost(reason="gone")))
            else:
                self._deliver_at(end - world.time, question, node, kind, sealed)
            return
        if self._node_of[name] != node:
            self._reply(question, Lost(reason="gone"))
            return
        if world.chance(self._case.rates.request_corrupt, "corrupted request"):
            sealed = self._corrupted(sealed)
        try:
            answer = answer_of(self._sites[name], kind, sealed)
        except SiteDown:
            self._site_died(name, question)
            return
        if answer is not None:
            self.answers.append(answer)
            text = answer.header[:400].decode("latin-1")
            world.note("site", site=name, question=kind, answer=text)
        self._answered(question, name, answer or Malformed(code="error"))

    def _answered(self, question: str, name: str, answer: Answer) -> None:
        world, rates = self._world, self._case.rates
        if world.chance(rates.reply_lost, "lost reply"):
            return
        if isinstance(answer, Sealed) and world.chance(rates.reply_corrupt, "corrupted reply"):
            answer = self._corrupted(answer)
        for _ in range(1 + world.chance(rates.twice, "duplicate reply")):
            delay = self._latency()
            if (end := self._cut_until(name)) is not None:
                delay += end - world.time
            world.at(world.time + delay, lambda: self._reply(question, answer))

    def _reply(self, question: str, answer: Answer) -> None:
        if isinstance(answer, Lost) and question not in self._open:
            return  # a SuperLink makes no error for what was answered
        self._open.discard(question)
        self._ready[question].append(answer)

    def _give_up(self, question: str) -> None:
        if question in self._open:
            self._reply(question, Lost(reason="unavailable"))

    def _corrupted(self, sealed: Sealed) -> Sealed:
        """Return the same message with one bit of it flipped."""
        parts = [sealed.header, sealed.signature, sealed.payload]
        which = self._world.rng.choice([n for n, part in enumerate(parts) if part])
        raw = bytearray(parts[which])
        raw[self._world.rng.randrange(len(raw))] ^= 1 << self._world.rng.randrange(8)
        parts[which] = bytes(raw)
        return Sealed(header=parts[0], signature=parts[1], payload=parts[2])

    # --- who is where -----------------------------------------------------------------------

    def _site_died(self, name: str, question: str) -> None:
        """Start the site's process again; its node may be another, and the question is lost."""
        world = self._world
        self._sites[name].crashed()
        world.at(world.time + 2.0, lambda: self._reply(question, Lost(reason="crashed")))
        if world.rng.random() < 0.5:
            self._attach(name)

    def _renamer(self, name: str) -> Callable[[], None]:
        def rename() -> None:
            self._world.injected["node id change"] += 1
            self._attach(name)

        return rename

    def _attach(self, name: str) -> None:
        """Let the site stand behind a new node; the old one is listed until its lease ends."""
        if name in self._node_of:
            self._until[self._node_of[name]] = self._world.time + LEASE_S
        self._next_node += 1
        self._node_of[name] = self._next_node
        self._site_of[self._next_node] = name
        self._world.note("node", site=name, node=self._next_node)

    def _cut_until(self, name: str) -> float | None:
        now = self._world.time
        ends = [end for site, start, end in self._case.cuts if site == name and start <= now < end]
        return max(ends, default=None)

    def _cut_since(self, name: str) -> float:
        now = self._world.time
        return max(
            (
                now - start
                for site, start, end in self._case.cuts
                if site == name and start <= now < end
            ),
            default=0.0,
        )
