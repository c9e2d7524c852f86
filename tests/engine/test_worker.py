"""The worker keeps to the protocol of assets/engine/protocol.js, from any kind of page."""

from __future__ import annotations

import json

import pytest
import training_engine
from processor_time import traced

SETTINGS = {"batchSize": 32, "learningRate": 0.1, "network": {"norm": {"kind": "batch_norm"}}, "checkpoints": 5}
WORKER = "DedicatedWorker thread"
# `talk.wait(what)` resolves to the next report for which `what` is true; `talk.reports` holds all.
TALK = """globalThis.talk = (() => {
  const worker = startTrainingWorker();
  const reports = [], waiting = new Set();
  worker.onmessage = ({ data }) => {
    reports.push(data);
    for (const each of waiting) if (each.what(data)) { waiting.delete(each); each.resolve(data); }
  };
  return {
    reports,
    post: (request) => worker.postMessage(request),
    wait: (what) => new Promise((resolve) => waiting.add({ what, resolve })),
    end: () => worker.terminate(),
  };
})();"""
HELPERS = """const { post, wait, reports } = talk;
const state = (run, name) => wait((r) => r.run === run && r.type === "state" && r.state === name);
const progress = (run) => wait((r) => r.run === run && r.type === "progress");
// After an answer, and another one, the worker has had its turn in between.
const answer = async () => { post({ type: "dance", run: "nobody" }); await wait((r) => r.run === "nobody"); };
const turns = async (count) => { for (let i = 0; i < count; i++) await answer(); };
const told = () => reports.filter((r) => r.run !== "nobody").length;"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("engine") / training_engine.NAME
    path.write_text(training_engine.script())
    return str(path)


@pytest.fixture
def talk(page, script):
    """Run the body of an asynchronous function in a page with a worker: ``talk(body, **names)`` returns its result."""
    page.goto("about:blank")
    page.add_script_tag(path=script)
    page.add_script_tag(content=TALK)
    yield lambda body, **names: evaluated(page, body, names)
    page.evaluate("talk.end()")


def evaluated(page, body: str, names: dict):
    constants = "".join(
        f"const {name} = {json.dumps(value)};" for name, value in ({"settings": SETTINGS} | names).items()
    )
    return page.evaluate(f"async () => {{ {HELPERS} {constants} {body} }}")


def test_a_run_reports_its_settings_its_checkpoints_and_its_end(talk):
    reports = talk(
        """post({ type: "start", run: "a", settings });
        await state("a", "finished");
        return reports;"""
    )
    assert reports[0]["type"] == "ready" and reports[0]["version"] == 1 and reports[0]["kernels"] == "wasm"
    assert reports[1]["type"] == "started" and reports[1]["totalSteps"] == 440
    assert reports[1]["testSets"] == ["digits"] and reports[1]["settings"]["network"]["hidden"] == [100, 100]
    checkpoints = [each for report in reports if report["type"] == "progress" for each in report["checkpoints"]]
    assert [each["step"] for each in checkpoints] == [0, 88, 176, 264, 352, 440]
    assert checkpoints[0]["test"]["eval"][0]["error"] > 0.8 > 0.05 > checkpoints[-1]["test"]["eval"][0]["error"]
    assert reports[-1] == {"type": "state", "run": "a", "state": "finished", "step": 440, "divergedAt": None}


def test_a_paused_run_steps_when_told_and_resumes_to_the_same_end(talk):
    whole, steps = talk(
        """const all = (run) => reports.filter((r) => r.run === run).flatMap((r) => r.checkpoints ?? []);
        post({ type: "start", run: "whole", settings });
        await state("whole", "finished");
        post({ type: "start", run: "stepped", settings, paused: true });
        await progress("stepped");
        post({ type: "step", run: "stepped" });
        await progress("stepped");
        post({ type: "step", run: "stepped", count: 10 });
        const { step } = await progress("stepped");
        await turns(10);
        const last = reports.findLast((r) => r.run === "stepped").step;
        post({ type: "resume", run: "stepped" });
        await state("stepped", "finished");
        return [all("whole").at(-1).test, [step, last, all("stepped").at(-1).test]];"""
    )
    assert steps == [11, 11, whole]


def test_a_running_one_stops_and_pauses_at_once(talk, page):
    """A request waits for the worker's present task at most."""
    with traced(page) as trace:
        counts = talk(
            """performance.mark("begin");
            const long = { ...settings, epochs: 10000, batchSize: 128, checkpoints: 100000 };
            const counts = [];
            post({ type: "start", run: "a", settings: long });
            await progress("a");
            for (const [type, name] of [["pause", "paused"], ["resume", "running"], ["stop", "stopped"]]) {
              if (type !== "resume") await progress("a");
              post({ type, run: "a" });
              counts.push((await state("a", name)).step);
            }
            return counts;"""
        )
    assert counts[0] == counts[1] < counts[2]
    assert len(trace.tasks(WORKER)) > 3 and max(trace.tasks(WORKER)) < 100


def test_nothing_happens_while_the_tab_is_hidden(talk):
    before, after, last = talk(
        """post({ type: "start", run: "a", settings: { ...settings, checkpoints: 440 } });
        await progress("a");
        post({ type: "hidden", hidden: true });
        post({ type: "start", run: "b", settings });
        await wait((r) => r.run === "b" && r.type === "progress");
        const before = told();
        await turns(20);
        const after = told();
        post({ type: "hidden", hidden: false });
        return [before, after, (await state("a", "finished")).step];"""
    )
    assert before == after and last == 440


def test_runs_take_turns_and_the_pace_slows_one_down(talk):
    slow, fast, seconds = talk(
        """const began = performance.now();
        post({ type: "start", run: "slow", settings: { ...settings, checkpoints: 440 }, stepsPerSecond: 3 });
        post({ type: "start", run: "fast", settings });
        const { step: fast } = await state("fast", "finished");
        post({ type: "pause", run: "slow" });
        const { step: slow } = await state("slow", "paused");
        return [slow, fast, (performance.now() - began) / 1000];"""
    )
    assert fast == 440 and 1 <= slow <= 2 + 3 * seconds


def test_a_run_that_diverges_says_so(talk):
    report = talk(
        """post({ type: "start", run: "a", settings: { ...settings, network: {}, learningRate: 1e30 } });
        return await state("a", "diverged");"""
    )
    assert 1 <= report["divergedAt"] <= report["step"] < 440


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"type": "start", "run": "b", "settings": SETTINGS | {"batchSize": -1}},
            "batchSize must be a whole number of",
        ),
        ({"type": "start", "run": "a", "settings": SETTINGS}, 'run must be a name that is not in use, got "a"'),
        ({"type": "step", "run": "none"}, 'run must be a run that was started, got "none"'),
        ({"type": "step", "run": "a", "count": -1}, "count must be a whole number of at least 1, got -1"),
        ({"type": "pace", "run": "a", "stepsPerSecond": 0}, "stepsPerSecond must be null or above 0, got 0"),
        ({"type": "dance", "run": "a"}, 'type must be one of the requests of protocol.js, got "dance"'),
        ({"type": "inspect", "run": "a", "layer": 2}, "layer must be a whole number from 0 to 1, got 2"),
        ({"type": "inspect", "run": "a", "layer": 0, "digits": [360]}, "digits must be whole numbers from 0 to 359"),
    ],
)
def test_a_request_that_cannot_be_done_is_answered_with_an_error(talk, request_, message):
    report = talk(
        """post({ type: "start", run: "a", settings, paused: true });
        await progress("a");
        post(request);
        return await wait((r) => r.type === "error");""",
        request=request_,
    )
    assert report["message"].startswith(message) and report["run"] == request_["run"]


def test_a_small_problem_trains_as_a_network_does_but_has_no_inside(talk):
    reports = talk(
        """post({ type: "start", run: "a", settings: small });
        await state("a", "finished");
        post({ type: "inspect", run: "a", layer: 0 });
        await wait((r) => r.type === "error");
        return reports;""",
        small={"problem": "two_weights", "batchSize": 2, "learningRate": 0.3, "steps": 30, "checkpoints": 3},
    )
    assert reports[1]["totalSteps"] == 30 and reports[1]["testSets"] == []
    points = [each for report in reports if report["type"] == "progress" for each in report["checkpoints"]]
    assert [each["step"] for each in points] == [0, 10, 20, 30] and points[0]["weights"] == [0.5, 4]
    assert reports[-1]["message"] == "run must train a network, got two_weights"


def test_the_first_point_comes_at_once(talk, page):
    with traced(page) as trace:
        talk(
            """performance.mark("begin");
            post({ type: "start", run: "a", settings, paused: true });
            await progress("a");"""
        )
    assert 0 < sum(trace.tasks(WORKER)) < 200


POLICY = "default-src 'none'; script-src 'unsafe-inline' file:; worker-src blob:"


def test_a_file_whose_policy_forbids_webassembly_trains_in_javascript(page, script, tmp_path):
    html = tmp_path / "page.html"
    html.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><script src="file://{script}"></script>'
    )
    page.goto(html.as_uri())
    page.add_script_tag(content=TALK)
    reports = evaluated(
        page,
        """post({ type: "start", run: "a", settings: { ...settings, epochs: 1 } });
        await state("a", "finished");
        return reports;""",
        {},
    )
    assert reports[0]["kernels"] == "javascript" and reports[-1]["step"] == 44
    page.goto("about:blank")


def test_memory_does_not_grow_over_10_000_steps(page, script):
    page.goto("about:blank")
    page.add_script_tag(content=training_engine.joined(training_engine.modules()))
    page.evaluate(
        """(digits) => {
        const { settings: { complete }, datasets: { dataset }, training: { Training } } = trainingEngine();
        const network = { hidden: [8], norm: { kind: "full_norm" } };
        const settings = complete({ batchSize: 4, learningRate: 0.01, steps: 1e6, checkpoints: 1000, network });
        globalThis.training = new Training(settings, dataset(settings.data, digits, 0));
        }""",
        training_engine.digits(),
    )
    session = page.context.new_cdp_session(page)

    def used_after(steps: int) -> int:
        page.evaluate("(steps) => { for (let i = 0; i < steps; i++) training.step(); }", steps)
        session.send("HeapProfiler.collectGarbage")
        usage = session.send("Runtime.getHeapUsage")
        return usage["usedSize"] + usage.get("backingStorageSize", 0)

    before = used_after(2000)
    assert used_after(10_000) < before + 100_000


def test_the_engine_stays_small(script):
    import gzip

    engine = len(gzip.compress(training_engine.joined(training_engine.modules()).encode()))
    whole = len(gzip.compress(training_engine.script().encode()))
    assert engine < 26_000 and whole < 72_000
