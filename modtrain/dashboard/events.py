"""Server-sent events: a message whenever a page's data has changed, and `still` now and then: it keeps proxies awake,
and tells the page that it would hear of news.

Deliberately not here: when it changes (`watch.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse

from modtrain.dashboard.page_cache import Key, Watch

KEEP_ALIVE_S = 15.0
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Bell:
    """Wakes everybody on the event loop who waits; it may be rung from any thread."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ringer(self) -> Callable[[], None]:
        """What rings it; to be made on the event loop."""
        loop = asyncio.get_running_loop()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(self._ring)

        return ring

    async def wait(self, timeout_s: float) -> None:
        """Until it rings, but no longer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), timeout_s)

    def _ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()


def messages(watch: Watch, bell: Bell, key: Key) -> StreamingResponse:
    """The stream of one page, as long as it is open."""
    return StreamingResponse(_messages(watch, bell, key), media_type="text/event-stream", headers=HEADERS)


async def _messages(watch: Watch, bell: Bell, key: Key) -> AsyncIterator[str]:
    watch.come(*key)
    try:
        said, said_at = watch.revision(*key), time.monotonic()
        yield f'retry: 3000\n\ndata: {{"revision": {said}}}\n\n'
        while not watch.over:
            # A ring while a message was being sent is not heard by `wait`, and one for another page says nothing here.
            left_s = said_at + KEEP_ALIVE_S - time.monotonic()
            if (now := watch.revision(*key)) != said:
                message = f'data: {{"revision": {now}}}\n\n'
            elif left_s <= 0:
                message = "event: still\ndata:\n\n"
            else:
                await bell.wait(left_s)
                continue
            said, said_at = now, time.monotonic()
            yield message
    finally:
        watch.leave(*key)
