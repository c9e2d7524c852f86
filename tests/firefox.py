"""Debian's Firefox for the tests, which speak to it in WebDriver BiDi, https://w3c.github.io/webdriver-bidi/.

Playwright drives Firefoxes of its own only, and Debian has no geckodriver.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from pathlib import Path

import websocket

KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Space": " ",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowLeft": "\ue012",
    "ArrowRight": "\ue014",
}
PATIENCE = 300  # seconds for the start and for each answer
# What a new Firefox does beside showing a page.
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.newtabpage.enabled": False,
    "browser.region.network.url": "",
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "browser.tabs.unloadOnLowMemory": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.ipc.processPrelaunch.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": "",
}
# The middle of the element that a selector and perhaps a text name, after it was brought on the screen.
MIDDLE = """
(selector, text) => {
  const shown = each => each.getClientRects().length && (text === null || each.textContent.trim() === text);
  const found = [...document.querySelectorAll(selector)].filter(shown);
  if (!found.length) throw new Error(`nothing on the screen is ${selector}` + (text ? ` with the text ${text}` : ""));
  found[0].scrollIntoView({block: "center", behavior: "instant"});
  const { left, top, width, height } = found[0].getBoundingClientRect();
  const [x, y] = [left + width / 2, top + height / 2];
  const there = document.elementFromPoint(x, y);
  if (!found[0].contains(there)) throw new Error(`${selector} is covered by ${there?.outerHTML.slice(0, 200)}`);
  return [Math.round(x), Math.round(y)];
}
"""
WAIT = """
(condition, given, seconds) => new Promise((resolve, reject) => {
  const end = performance.now() + 1000 * seconds;
  const look = () => {
    if (condition(...given)) resolve(null);
    else if (performance.now() > end) reject(new Error(`after ${seconds} s it is still not so: ${condition}`));
    else setTimeout(look, 50);
  };
  look();
})
"""

HALF_A_FORMULA = "Invalid markup: Incorrect number of children for <m"


class Firefox:
    """A running Firefox; errors and warnings, requests and failures of its pages are in ``events``."""

    def __init__(self, path: str, profile: Path):
        written = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
        (profile / "user.js").write_text("".join(written))
        said = profile / "said.txt"
        with said.open("w") as log:
            command = [path, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.events: list[dict] = []
        self.numbers = itertools.count()
        try:
            address = f"{self.listening(said)}/session"
            # Firefox refuses what a page could send, and that has an origin.
            self.socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
            self.command("session.new", capabilities={})
            subscribed = ["log.entryAdded", "network.beforeRequestSent", "network.responseCompleted"]
            self.command("session.subscribe", events=[*subscribed, "network.fetchError"])
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def listening(self, said: Path) -> str:
        """Wait for the address at which Firefox listens."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"listening on (ws://\S+)", said.read_text())):
            if time.monotonic() > end or self.process.poll() is not None:
                raise TimeoutError(f"Firefox did not start within {PATIENCE} s. It said:\n{said.read_text()}")
            time.sleep(0.05)
        return found[1]

    def command(self, method: str, **parameters):
        """Send a command and return its result; an error of Firefox is raised."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            try:
                message = json.loads(self.socket.recv())
            except websocket.WebSocketTimeoutException:
                raise TimeoutError(f"Firefox did not answer {method} within {PATIENCE} s") from None
            if message.get("id") == number:
                break
            self.events.append(message)
        if message["type"] == "error":
            raise RuntimeError(f"{method}: {message['error']}: {message['message']}")
        return message["result"]

    def processor_time(self) -> float:
        """For how many milliseconds of processor time the main threads of the pages have run; workers have others."""
        total = 0
        for process in (path for path in Path("/proc").iterdir() if path.name.isdigit()):
            try:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").split()
                if words[-1:] == [b"tab"] and str(self.process.pid).encode() in words:
                    total += int((process / "task" / process.name / "schedstat").read_text().split()[0])
            except OSError:  # it has ended
                continue
        return total / 1e6

    def tab(self) -> Tab:
        """Open a tab in front of the others, which are hidden then."""
        return Tab(self, self.command("browsingContext.create", type="tab")["context"])

    def close(self):
        """End it; it is given ten seconds."""
        try:
            self.command("browser.close")
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.socket.close()


class Tab:
    """A tab, with what a reader does in it."""

    def __init__(self, firefox: Firefox, context: str):
        self.firefox, self.context = firefox, context

    def command(self, method: str, **parameters):
        """Send a command about this tab."""
        return self.firefox.command(method, context=self.context, **parameters)

    def open(self, address: str, width: int = 1280, height: int = 800):
        """Open a page on a screen of this size, and forget what happened before."""
        self.command("browsingContext.setViewport", viewport={"width": width, "height": height})
        self.firefox.events.clear()
        self.command("browsingContext.navigate", url=address, wait="complete")

    def run(self, function: str, *arguments):
        """Call a function of JavaScript and return its result, or what its promise gives, as JSON."""
        result = self.firefox.command(
            "script.callFunction",
            functionDeclaration=f"async given => JSON.stringify(await ({function})(...JSON.parse(given)))",
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self.context},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"].get("value", "null"))

    def wait(self, condition: str, *arguments, seconds: float = PATIENCE):
        """Wait until a function of JavaScript returns something true."""
        self.run(f"(given, seconds) => ({WAIT})({condition}, given, seconds)", arguments, seconds)

    def act(self, kind: str, actions: list[dict]):
        """Perform actions of the keyboard (kind "key") or of the pointer."""
        self.command("input.performActions", actions=[{"type": kind, "id": kind, "actions": actions}])

    def click(self, selector: str, text: str | None = None):
        """Click the first element that is seen and has this text, with the pointer."""
        x, y = self.run(MIDDLE, selector, text)
        move = {"type": "pointerMove", "x": x, "y": y}
        self.act("pointer", [move, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}])

    def press(self, *keys: str):
        """Press keys, named as in KEYS, or letters."""
        codes = [KEYS.get(key, key) for key in keys]
        self.act("key", [{"type": kind, "value": code} for code in codes for kind in ("keyDown", "keyUp")])

    def enter(self, selector: str, text: str):
        """Replace the text of a field."""
        self.run("selector => document.querySelector(selector).select()", selector)
        self.press(*text, "Enter")

    def happened(self, method: str) -> list[dict]:
        """What Firefox has told of this kind since the page was opened."""
        self.firefox.command("session.status")  # what was told before the answer has arrived with it
        return [event["params"] for event in self.firefox.events if event.get("method") == method]

    @property
    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        return [each["request"]["url"] for each in self.happened("network.beforeRequestSent")]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and requests that failed.

        On a busy machine Firefox lays out a page before it has read all of it, and complains of half a formula. That
        each formula is whole is a test of the files.
        """
        logged = [str(each["text"]) for each in self.happened("log.entryAdded") if each["level"] in ("error", "warn")]
        logged = [text for text in logged if not text.startswith(HALF_A_FORMULA)]
        refused = [each for each in self.happened("network.responseCompleted") if each["response"]["status"] >= 400]
        failed = [*refused, *self.happened("network.fetchError")]
        return [*logged, *(each["request"]["url"] for each in failed)]
