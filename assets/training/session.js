// The worker, and who gets its reports. One worker trains all runs of a page.

import { element } from "./elements.js";

// From the first worker on the page may make workers of its own scripts only. (In the source of every page this policy
// would keep Chromium from reporting an idle network, for which the tests of the site wait.)
const POLICY = "worker-src 'self' blob:";
const FAILED =
  "The training could not start: this browser, or the policy of this page, allows no worker. The pictures show what we " +
  "trained before.";
let worker = null;
let begun = false;
const handlers = new Map(); // by run
let hidden = () => {};

// The worker, started when it is first wanted. `startTrainingWorker` is defined by the engine's script.
function theWorker() {
  if (worker) return worker;
  if (!begun) begin();
  worker = globalThis.startTrainingWorker();
  worker.onmessage = ({ data }) => handlers.get(data.run)?.(data);
  worker.onerror = ({ message }) => {
    worker?.terminate();
    worker = null; // the next run tries again
    for (const handle of handlers.values()) handle({ type: "error", message: message || FAILED });
  };
  if (document.hidden) tellWorker();
  return worker;
}

function begin() {
  begun = true;
  document.head.append(element("meta", { httpEquiv: "Content-Security-Policy", content: POLICY }));
  document.addEventListener("visibilitychange", () => {
    tellWorker();
    hidden(document.hidden);
  });
}

function tellWorker() {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has none
  worker?.postMessage({ type: "hidden", hidden: document.hidden });
}

// Start the worker before the first run, so that the reader does not wait for it after a press of Train.
export const prepare = () => void theWorker();

// Send a request about a run.
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has none
export const send = (request) => theWorker().postMessage(request);

// Have the reports about a run brought to `handle`.
export const listen = (run, handle) => handlers.set(run, handle);

export const forget = (run) => handlers.delete(run);

// Have it told when the tab is hidden and seen again.
export const onHidden = (tell) => {
  const before = hidden;
  hidden = (now) => (before(now), tell(now));
};
