"""The processor time of a page's threads in Chromium: other work on the machine makes a clock run on, but not this."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

# What is recorded: each task of each thread, and the marks that scripts set with `performance.mark`.
RECORDED = ["toplevel", "blink.user_timing"]
MARKS = ["blink.user_timing"]
# Keeps a thread busy for some 100 ms, whatever else the machine does: each number needs the one before.
HANG = "{ let x = 1; for (let i = 0; i < 4e8; i += 1) x = (Math.imul(x, 3) + 1) | 0; globalThis.hung = x; }"


class Trace:
    """What the threads of a page have done; all times are milliseconds of processor time."""

    events: list[dict]

    def marks(self, *names: str) -> list[tuple[str, float]]:
        """The marks with these names, in order: the name, and how long their thread had worked since its start."""
        found = [event for event in self.events if event["name"] in names and event["cat"] == "blink.user_timing"]
        return [(event["name"], event["tts"] / 1000) for event in sorted(found, key=lambda event: event["ts"])]

    def tasks(self, thread: str = "CrRendererMain", after: str = "begin") -> list[float]:
        """How long each task took of a page's thread, from a mark in the page on."""
        (mark,) = (event for event in self.events if event["name"] == after)
        named = [event for event in self.events if event["name"] == "thread_name" and event["pid"] == mark["pid"]]
        threads = {event["tid"] for event in named if event["args"]["name"] == thread}
        tasks = [event for event in self.events if event["name"] == "ThreadControllerImpl::RunTask"]
        # One that was not over when the recording ended has no time yet.
        tasks = [
            event for event in tasks if event["pid"] == mark["pid"] and event["tid"] in threads and "tdur" in event
        ]
        return [event["tdur"] / 1000 for event in tasks if event["ts"] + event["dur"] > mark["ts"]]


@contextmanager
def traced(page, categories=RECORDED) -> Iterator[Trace]:
    """Record what the threads of a page do; the trace can be read afterwards."""
    browser, trace = page.context.browser, Trace()
    browser.start_tracing(page=page, categories=categories)
    try:
        yield trace
    finally:
        trace.events = json.loads(browser.stop_tracing())["traceEvents"]
