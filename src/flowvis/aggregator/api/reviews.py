"""Who has a token, and what they may see, as the cluster's API server says.

A TokenReview tells the user, SubjectAccessReviews which Pods this one may list: who may list those
of a namespace sees its flows, who may list all sees everything. Answers, also those that a token is
nobody's, count for a minute at most; while a token is used they are asked for again before that, so
that nobody waits. Without an answer nobody is let in. Tokens that were nobody's, or were not seen
before, keep those that were somebody's from no review, however many they are.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.visibility import EVERYTHING, Visibility
from flowvis.counts import count
from flowvis.errors import ApiError
from flowvis.inventory.sources.access import Access
from flowvis.inventory.sources.api import KubernetesApi
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
RIGHTS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

FRESH_S = 30.0  # older answers are asked for again, while they still count
COUNTS_S = 60.0
REVIEW_S = 30.0  # for all questions about one token
MAX_KNOWN = 1000  # tokens that are somebody's, and as many that are not
MAX_UNDER_WAY = 64  # tokens that are asked about, before another that was nobody's yet
AT_ONCE = 16  # questions
FORBIDDEN = 403


@dataclass
class ReviewStats:
    """What the API server was asked."""

    token_reviews: int = count("Tokens that the API server was asked about")
    access_reviews: int = count("Rights that the API server was asked about")
    failures: int = count("Reviews that the API server did not answer")


@dataclass(frozen=True)
class _Answer:
    caller: Caller | None
    at_s: float


class Reviews:
    """Asks about tokens, and remembers what it was told."""

    def __init__(
        self,
        access: Callable[[], Access],
        namespaces: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
        cluster: Callable[[], str] = lambda: "",
    ) -> None:
        """`namespaces` are all that there are now, in the cluster of this id."""
        self.stats = ReviewStats()
        self._access, self._namespaces, self._clock = access, namespaces, clock
        self._cluster = cluster
        self._api: KubernetesApi | None = None
        self._known: OrderedDict[bytes, _Answer] = OrderedDict()
        self._unknown: OrderedDict[bytes, _Answer] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._guessing = asyncio.Semaphore(AT_ONCE // 2)
        """Of those, for tokens that may be nobody's."""
        self._limited = LimitedLog(log)

    async def start(self) -> None:
        """Prepare for questions; SettingsError where there is no way to the API server."""
        self._api = KubernetesApi(await asyncio.to_thread(self._access))
        self._api.open()

    async def stop(self) -> None:
        """Ask no more."""
        for task in list(self._under_way.values()):
            task.cancel()
        if self._api is not None:
            await self._api.close()

    def knows(self, token: str) -> bool:
        """Whether there is an answer about the token that counts."""
        found = self._found(sha256(token.encode()).digest())
        return found is not None and self._age_s(found) < COUNTS_S

    async def identify(self, token: str) -> Caller | None:
        """Return who has a token, None if nobody; Problem where that cannot be found out."""
        digest = sha256(token.encode()).digest()
        found = self._found(digest)
        if found is not None and self._age_s(found) < FRESH_S:
            return found.caller
        task = self._under_way.get(digest)
        if task is None and (digest in self._known or len(self._under_way) < MAX_UNDER_WAY):
            task = asyncio.create_task(self._review(digest, token), name="token review")
            self._under_way[digest] = task
            task.add_done_callback(lambda ended: self._ended(digest, ended))
        if found is not None and self._age_s(found) < COUNTS_S:
            return found.caller
        if task is None:
            raise Problem("unavailable", "too many tokens are being checked: try again")
        return await asyncio.shield(task)

    def _ended(self, digest: bytes, task: asyncio.Task[Caller | None]) -> None:
        self._under_way.pop(digest, None)
        if not task.cancelled():
            task.exception()  # whoever waits for it has it, and the log

    def _found(self, digest: bytes) -> _Answer | None:
        return self._known.get(digest) or self._unknown.get(digest)

    def _age_s(self, answer: _Answer) -> float:
        return self._clock() - answer.at_s

    async def _review(self, digest: bytes, token: str) -> Caller | None:
        at_s = self._clock()  # what is revoked while we ask counts from here
        try:
            async with asyncio.timeout(REVIEW_S):
                caller = await self._caller(token, known=digest in self._known)
        except (ApiError, TimeoutError) as error:
            self.stats.failures += 1
            problem = str(error) or f"no answer in {REVIEW_S:g} s"
            if getattr(error, "status", 0) == FORBIDDEN:
                problem += "; the aggregator needs its ClusterRole flow-aggregator-reviews"
            self._limited.log(logging.WARNING, "api", "tokens cannot be checked: %s", problem)
            raise Problem(
                "unavailable", f"who you are cannot be checked at the moment: {problem}"
            ) from error
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        kept = self._unknown if caller is None else self._known
        kept[digest] = _Answer(caller, at_s)
        if len(kept) > MAX_KNOWN:
            kept.popitem(last=False)
        return caller

    async def _caller(self, token: str, *, known: bool) -> Caller | None:
        async with nullcontext() if known else self._guessing:
            self.stats.token_reviews += 1
            status = await self._ask(TOKENS, "TokenReview", {"token": token})
        user = status.get("user")
        if status.get("authenticated") is not True or not isinstance(user, dict):
            return None
        name = user.get("username")
        if not isinstance(name, str) or not name:
            return None
        return Caller(name, await self._visible_to(user))

    async def _visible_to(self, user: Mapping[str, Any]) -> Visibility:
        subject = {
            "user": user["username"],
            **{key: user[key] for key in ("uid", "groups", "extra") if user.get(key)},
        }
        if await self._may_list_pods(subject, ""):
            return EVERYTHING
        names = sorted(self._namespaces())
        allowed = await asyncio.gather(*(self._may_list_pods(subject, name) for name in names))
        seen = (name for name, may in zip(names, allowed, strict=True) if may)
        return Visibility.of(seen, self._cluster())

    async def _may_list_pods(self, subject: Mapping[str, Any], namespace: str) -> bool:
        """Whether somebody may list the Pods of a namespace, of all where that is empty."""
        self.stats.access_reviews += 1
        attributes = {"verb": "list", "group": "", "version": "v1", "resource": "pods"}
        if namespace:
            attributes["namespace"] = namespace
        spec = {**subject, "resourceAttributes": attributes}
        status = await self._ask(RIGHTS, "SubjectAccessReview", spec)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _ask(self, path: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        if self._api is None:
            raise ValueError("start it first")
        group = path.split("/")[2]
        async with self._asking:
            answer = await self._api.create(
                path, {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
            )
        status = answer.get("status")
        return status if isinstance(status, dict) else {}
