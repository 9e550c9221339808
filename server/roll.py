"""Who is there: which node answers for which site, asked with a nonce and signed by the site.

A node that goes is forgotten and asked anew when it comes back; a site that comes back under
another node (a restarted SuperNode) is taken at its latest word.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TypeVar

from ..core.messages import BadMessage, Header, Hello, Sealed, claimed_site
from .post import Answer, Post, PostDown
from .task import Task

logger = logging.getLogger(__name__)

_ASK_AGAIN_S = 5.0  # before a node whose answer was no good is asked once more who it is
_PATIENCE_S = 60.0  # at most, before one that has not answered is: it may be training
_PATIENCE_MOST_S = 600.0  # twice as long each time, so that a slow one catches up with the last
_LOOK_S = 3.0  # between two looks at the connected nodes while everyone is there

M = TypeVar("M", bound=Header)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A hello on its way: a later one outdoes it, whatever the order of the answers."""

    node: int
    nonce: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A site that has just come or gone."""

    site: str
    here: bool


class Roll:
    """The nodes of one run; ``heads`` are the newest ledger heads that sites have signed."""

    def __init__(self, task: Task, post: Post, heads: dict[str, str]) -> None:
        """``heads`` are those known already: a hello never replaces them with an older one."""
        self._task, self._post, self.heads = task, post, heads
        self.plan_digest = task.plan.digest
        # short of the deadline: a question that was lost must not cost the site its round
        self._patience_s = min(_PATIENCE_S, task.plan.rounds.deadline_s / 4)
        self.nodes: dict[str, int] = {}
        self._ask_at: dict[int, float] = {}
        self._hellos: dict[str, _Question] = {}  # one for each node at most
        self._unheard: dict[int, int] = {}  # hellos to a node since it answered one
        self._met_by: dict[str, int] = {}
        self._asked, self._next_look = 0, -math.inf

    @property
    def is_complete(self) -> bool:
        """Return whether every site of the roster has a node."""
        return len(self.nodes) == len(self._task.members)

    def look(self) -> list[Change]:
        """Ask new nodes who they are, forget those that went; return who came and who went."""
        now = self._task.clock.monotonic()
        if self.is_complete and now < self._next_look:
            return []
        self._next_look = now + _LOOK_S
        try:
            here = self._post.nodes()
        except PostDown:
            logger.warning("the post is down: nobody can be met")
            return []
        changes = self._gone(set(here))
        for node in here:
            if now >= self._ask_at.get(node, -math.inf):
                self._ask(node)
        try:
            for question, answer in self._post.fetch(list(self._hellos), most=0):
                changes += self._answered(question, answer)
        except PostDown:
            logger.warning("the post is down: no answer could be fetched")
        return changes

    def forget(self, site: str, node: int) -> bool:
        """Forget a node that was said to be gone; return False when the site has moved since.

        A site may say so of itself, so one that is still there is not asked again at once.
        """
        if self.nodes.get(site) != node:
            return False
        del self.nodes[site]
        self._ask_at[node] = self._task.clock.monotonic() + _ASK_AGAIN_S
        return True

    def opened(self, kind: type[M], site: str, answer: Answer) -> M | None:
        """Return the message that this site signed, or None for anything else."""
        if not isinstance(answer, Sealed):
            return None
        try:
            return kind.open(answer, self._task.members[site].public_key)
        except BadMessage:
            return None

    def _gone(self, here: set[int]) -> list[Change]:
        for node in set(self._ask_at) - here:
            del self._ask_at[node]
            self._unheard.pop(node, None)
        self._hellos = {
            message: asked for message, asked in self._hellos.items() if asked.node in here
        }
        gone = [site for site, node in self.nodes.items() if node not in here]
        for site in gone:
            del self.nodes[site]
        return [Change(site=site, here=False) for site in gone]

    def _ask(self, node: int) -> None:
        nonce = self._task.nonce()
        question = Hello(
            job=self._task.store.job, site="", plan=self.plan_digest, nonce=nonce, ledger_head=""
        )
        now = self._task.clock.monotonic()
        try:
            message = self._post.send(node, "query.hello", question.seal(self._task.key))
        except PostDown:
            self._ask_at[node] = now + _ASK_AGAIN_S
            return
        self._asked += 1
        for earlier in [name for name, asked in self._hellos.items() if asked.node == node]:
            del self._hellos[earlier]
        self._hellos[message] = _Question(node=node, nonce=nonce, number=self._asked)
        unheard = self._unheard.get(node, 0)
        self._unheard[node] = unheard + 1
        patience = self._patience_s * 2.0 ** min(unheard, 30)
        self._ask_at[node] = now + min(patience, max(self._patience_s, _PATIENCE_MOST_S))

    def _answered(self, message: str, answer: Answer) -> list[Change]:
        asked = self._hellos.pop(message, None)
        if asked is None or asked.node not in self._ask_at:
            return []  # no question of ours, or the node has gone since
        self._unheard.pop(asked.node, None)
        site = self._who(asked, answer)
        if site is None:
            self._ask_at[asked.node] = self._task.clock.monotonic() + _ASK_AGAIN_S
            return []
        self._ask_at[asked.node] = math.inf
        if asked.number < self._met_by.get(site, 0) or self.nodes.get(site) == asked.node:
            return []
        moved = [Change(site=site, here=False)] if site in self.nodes else []
        self.nodes[site], self._met_by[site] = asked.node, asked.number
        return [*moved, Change(site=site, here=True)]

    def _who(self, asked: _Question, answer: Answer) -> str | None:
        """Return the roster's site that signed this answer to our own question."""
        site = claimed_site(answer) if isinstance(answer, Sealed) else ""
        if site not in self._task.members:
            return None
        hello = self.opened(Hello, site, answer)
        if hello is None or (hello.job, hello.nonce) != (self._task.store.job, asked.nonce):
            return None
        if not hello.ledger_head:
            logger.warning("site %s does not say where its ledger stands", site)
            return None
        if hello.plan != self.plan_digest:
            logger.warning("site %s has another plan", site)
            return None
        self.heads.setdefault(site, hello.ledger_head)
        return site
