"""The position tokens that a client remembers: what its next calls must see."""

from __future__ import annotations

import base64
import binascii
import struct
import threading
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

_VERSION = 1
_MAC_BYTES = 16
_PRIMARY_ONLY = 1

# One thing that a position asks for: on which cluster (its name and system identifier), and which of three.
_Demand = Tuple[bytes, int, str]
# How much of it: more is higher.
_Measure = Tuple[int, int]


class Positions:
    """Tokens of answers so far. Usually one: the broker merges what it is sent into what it returns. Concurrent calls
    return several; those that stand for all are kept, until one call has carried them."""

    def __init__(self, tokens: Iterable[str] = (), remember: bool = True) -> None:
        self._tokens = needed(list(tokens))
        self._lock = threading.Lock()
        self.remember = remember

    def current(self) -> List[str]:
        """What a call sends."""
        with self._lock:
            return list(self._tokens)

    def answered(self, sent: Sequence[str], token: str) -> None:
        """A call's answer: its token covers what the call sent, and nothing that others returned meanwhile."""
        if not self.remember:
            return
        with self._lock:
            tokens = [known for known in self._tokens if known not in sent and known != token]
            self._tokens = needed([*tokens, token]) if token else tokens

    def failed(self, sent: Sequence[str], token: str) -> None:
        """A failed call's answer: without a token, nothing is known to be covered."""
        if token:
            self.answered(sent, token)


class SessionPositions:
    """Which of a client's tokens a session's broker has: those are not brought again. Requests are answered in order."""

    def __init__(self) -> None:
        self._held: List[str] = []
        # Brought by this request each, of which nothing was heard yet: it may be refused, and its tokens with it.
        self._on_their_way: List[Tuple[int, str]] = []

    def brings(self, request_id: int, tokens: Iterable[str]) -> None:
        """A request takes all these with it."""
        self._on_their_way += [(request_id, token) for token in tokens]

    def missing(self, current: List[str]) -> List[str]:
        """Those of the client's tokens that the next request has to bring. Also what is on its way with another: were that
        one refused, those sent behind it would miss what they are to see."""
        return [token for token in current if token not in self._held]

    def refused(self, request_id: int) -> None:
        """A failure without a token: none of what its request brought was taken in."""
        self._on_their_way = [(by, token) for by, token in self._on_their_way if by != request_id]

    def taken_in(self, request_id: int) -> None:
        """An answer that is no failure, without a token."""
        self._held += [token for by, token in self._on_their_way if by == request_id]
        self._on_their_way = [(by, token) for by, token in self._on_their_way if by != request_id]

    def covered(self, request_id: int, token: str) -> List[str]:
        """An answer's token; returns those it covers: what the broker had, and what this request and the earlier ones
        brought. What later ones bring is kept."""
        covered = self._held + [brought for by, brought in self._on_their_way if by <= request_id]
        self._held = [token]
        self._on_their_way = [(by, brought) for by, brought in self._on_their_way if by > request_id]
        return covered


def needed(tokens: List[str]) -> List[str]:
    """Those of the tokens that together ask for as much as all. A broker merges tokens by taking the highest of each
    demand, so those that have these are enough: three at most for each cluster, usually one in all. Of equals the newest
    stays: the one furthest behind. What cannot be read is kept as it is."""
    if len(tokens) < 2:
        return tokens
    read = [_demands(token) for token in tokens]
    highest: Dict[_Demand, _Measure] = {}
    for demands in read:
        for demand, measure in (demands or {}).items():
            highest[demand] = max(highest.get(demand, measure), measure)
    keep = {index for index, demands in enumerate(read) if demands is None}
    while highest:
        # Whoever has most of what is still asked for, again and again: each round answers one demand or more.
        answered = [{d for d, measure in (demands or {}).items() if highest.get(d) == measure} for demands in read]
        best = max(range(len(read)), key=lambda index: (len(answered[index]), index))
        keep.add(best)
        for demand in answered[best]:
            del highest[demand]
    return [token for index, token in enumerate(tokens) if index in keep]


def _demands(token: str) -> Optional[Dict[_Demand, _Measure]]:
    """What a token asks for; None if it cannot be read.

    The form (version 1): base64url without padding of: version (1 byte), positions one after another, a MAC (16 bytes),
    which only brokers can check. A position is: flags (1: bit 0 primary-only), system identifier (8), timeline (4), LSN
    (8), milliseconds since 1970 (8), with bit 0 since when (8), the cluster name's length (1) and name; numbers are
    big-endian.
    """
    demands: Dict[_Demand, _Measure] = {}
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        end = len(data) - _MAC_BYTES
        if end < 1 or data[0] != _VERSION:
            return None
        at = 1
        while at < end:
            flags, system_identifier, timeline, lsn, written = struct.unpack_from(">BQIQQ", data, at)
            at += struct.calcsize(">BQIQQ")
            asked: Dict[str, _Measure] = {"point": (timeline, lsn), "written": (written, 0)}
            if flags == _PRIMARY_ONLY:
                (since,) = struct.unpack_from(">Q", data, at)
                asked["primary only"] = (since, 0)
                at += 8
            elif flags:
                return None
            name = data[at + 1 : at + 1 + data[at]]
            at += 1 + data[at]
            for what, measure in asked.items():
                demand = (name, system_identifier, what)
                demands[demand] = max(demands.get(demand, measure), measure)
    except (binascii.Error, ValueError, struct.error, IndexError):
        return None
    return demands if at == end else None
