"""The requests that wait, and what each group has been served. Knows nothing of blocks or steps."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from mathlete.ryanstream.policy import OrderKey, SchedulingPolicy, order_key
from mathlete.ryanstream.request import EngineRequest

_MAX_IDLE_GROUPS = 1024

_Group = str | None


@dataclass(slots=True)
class _Account:
    num_served: int = 0
    num_open: int = 0


class GroupAccounts:
    """Tokens served per group. Requests without a group share one account.

    A group that comes anew, or back, is put level with the least served of those present: having been away
    earns nothing (Sheng et al., OSDI 2024, "counter lift").
    """

    def __init__(self) -> None:
        """No groups yet."""
        self._present: dict[_Group, _Account] = {}
        self._idle: OrderedDict[_Group, _Account] = OrderedDict()

    def open(self, group: _Group) -> None:
        """One more unfinished request of the group."""
        account = self._present.get(group)
        if account is None:
            account = self._idle.pop(group, None) or _Account()
            least = min((other.num_served for other in self._present.values()), default=0)
            account.num_served = max(account.num_served, least)
            self._present[group] = account
        account.num_open += 1

    def close(self, group: _Group) -> None:
        """One unfinished request less; the last one's group becomes idle and is remembered for a while."""
        account = self._present[group]
        account.num_open -= 1
        if account.num_open == 0:
            del self._present[group]
            self._idle[group] = account
            if len(self._idle) > _MAX_IDLE_GROUPS:
                self._idle.popitem(last=False)

    def charge(self, group: _Group, num_tokens: int) -> None:
        """The group was served so many tokens."""
        self._present[group].num_served += num_tokens

    def num_served(self, group: _Group) -> int:
        """What the present group was served, its lift included."""
        return self._present[group].num_served


class WaitingQueue:
    """Waiting requests, kept sorted within each group; groups are compared only when one may be admitted.

    So adding costs a binary search, and a step that admits k requests out of G groups costs O(G + k log G).
    """

    def __init__(self, policy: SchedulingPolicy, accounts: GroupAccounts) -> None:
        """Nothing waits."""
        self._policy = policy
        self._accounts = accounts
        self._groups: dict[_Group, list[EngineRequest]] = {}
        self._num = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._num

    def __iter__(self) -> Iterator[EngineRequest]:
        """All that wait, group by group."""
        for requests in self._groups.values():
            yield from requests

    def add(self, request: EngineRequest) -> None:
        """Put a request in its place."""
        insort(self._groups.setdefault(request.group, []), request, key=self._within)
        self._num += 1

    def remove(self, request: EngineRequest) -> bool:
        """Take a request out; whether it was there."""
        requests = self._groups.get(request.group, [])
        at = bisect_left(requests, self._within(request), key=self._within)
        if at == len(requests) or requests[at] is not request:
            return False
        del requests[at]
        self._num -= 1
        if not requests:
            del self._groups[request.group]
        return True

    def in_order(self) -> Iterator[EngineRequest]:
        """All that wait, first the one to serve first. What was yielded may be removed before going on."""
        heads = [(self._key(requests[0]), 0, group) for group, requests in self._groups.items()]
        heapq.heapify(heads)
        while heads:
            _, at, group = heapq.heappop(heads)
            request = self._groups[group][at]
            yield request
            requests = self._groups.get(group, [])
            if at < len(requests) and requests[at] is request:
                at += 1
            if at < len(requests):
                heapq.heappush(heads, (self._key(requests[at]), at, group))

    def _within(self, request: EngineRequest) -> tuple[int, float, int]:
        return request.priority, self._policy.place(request), request.arrival

    def _key(self, request: EngineRequest) -> OrderKey:
        return order_key(self._policy, request, self._accounts.num_served(request.group))
