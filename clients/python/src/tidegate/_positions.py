"""The position tokens that a client remembers: what its next calls must see."""

from __future__ import annotations

import threading
from typing import Iterable, List, Sequence


class Positions:
    """Tokens of answers so far. Usually one: the broker merges what it is sent into what it returns. Several stand side
    by side after concurrent calls, until one call has carried them all."""

    def __init__(self, tokens: Iterable[str] = (), remember: bool = True) -> None:
        self._tokens = list(tokens)
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
            self._tokens = [known for known in self._tokens if known not in sent and known != token]
            if token:
                self._tokens.append(token)

    def failed(self, sent: Sequence[str], token: str) -> None:
        """A failed call's answer: without a token, nothing is known to be covered."""
        if token:
            self.answered(sent, token)
