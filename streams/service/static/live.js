// The connection to the stream: figures, events of one user, and whether what is shown is still so.

import { events } from "./api.js";
import { setProblem } from "./problems.js";
import { $, duration, showFigures, userButton } from "./view.js";

const RATES = 60; // states, one a second, in the small curve
const OLD_S = 5; // figures that the service sends are old from this age on
const SILENT_MS = 5000; // without a state for so long, the connection counts as lost
const LONGEST_WAIT_MS = 10000;

// `hasGap`: events, or histories, may have been missed since `onGap` was called last. `isComplete`: the service has copied
// everything.
const live = { stateAt: 0, state: null, lost: "", hasGap: true, isComplete: false, rates: Array(RATES).fill(null) };
let following = new AbortController();

/**
 * Receive figures, and the events of `user` (null = none), until this is called again. `onGap` is called when events
 * arrive, but former ones may be missing: at the start, and after an interruption.
 */
export async function follow(user, onEvent, onGap) {
  following.abort();
  const mine = (following = new AbortController());
  const path = user === null ? "/page/live" : `/page/live?user=${encodeURIComponent(user)}`;
  for (let wait = 1000; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
    const connection = abortedWhenSilent(mine.signal);
    live.hasGap = true;
    try {
      for await (const [name, value] of events(path, connection.signal)) {
        wait = 1000;
        connection.heard();
        if (name === "user") onEvent(value);
        else if (showState(value) !== "good") live.hasGap = true;
        else if (live.hasGap) {
          live.hasGap = false;
          onGap();
        }
      }
      live.lost = "The service has closed the connection.";
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error.status === 401 || error.status === 403) return setProblem("live", error);
      live.lost = error.name === "AbortError" ? "The service does not answer." : error.message;
    } finally {
      connection.end();
    }
    showConnection();
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (mine.signal.aborted) return;
  }
}

/** Return a signal that follows `whole`, and also aborts a connection that is open and says nothing: half of it may be gone. */
function abortedWhenSilent(whole) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let timer = setTimeout(abort, SILENT_MS);
  whole.addEventListener("abort", abort);
  return {
    signal: controller.signal,
    heard() {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENT_MS);
    },
    end() {
      clearTimeout(timer);
      whole.removeEventListener("abort", abort);
      abort();
    },
  };
}

/** Show a state of the stream; return that of the connection. */
function showState(state) {
  Object.assign(live, { stateAt: performance.now(), state, lost: "" });
  setProblem("live", null);
  const isComplete = Object.values(state.replicas).every((replica) => replica.caught_up);
  if (isComplete && !live.isComplete) live.hasGap = true; // what was missing in the service's copies is there now
  live.isComplete = isComplete;
  live.rates = [...live.rates.slice(1), isOld(state) ? null : state.figures?.clicks_per_s ?? null];
  const connection = showConnection(); // first: the curve has the colour of old figures or new ones
  showFigures(state, live.rates);
  showActive(state.figures ? state.figures.active : []);
  return connection;
}

function showActive(users) {
  $("active").hidden = !users.length;
  const chips = $("active").querySelector("ul");
  if (chips.contains(document.activeElement)) return; // do not move what is about to be chosen
  chips.replaceChildren(...users.slice(0, 8).map((user) => {
    const row = document.createElement("li");
    row.append(userButton(user, user));
    row.firstChild.setAttribute("aria-label", `User ${user}`);
    return row;
  }));
}

/** Return how old the figures are in ms: their age in the service, and the time since it sent them; null = there are none. */
function age() {
  return live.state?.figures ? 1000 * live.state.age_s + performance.now() - live.stateAt : null;
}

const isOld = ({ age_s }) => age_s !== null && age_s > OLD_S;

/** Show and return whether the figures are live. Only the state is read out; their age, which changes each second, is beside it. */
export function showConnection() {
  const isLost = live.lost || performance.now() - live.stateAt > SILENT_MS;
  const [text, state] = !live.state ? [live.lost || "Connecting …", live.lost ? "bad" : "waiting"]
    : isLost ? ["Connection lost", "bad"]
    : isOld(live.state) || (live.state.fault && !live.state.figures) ? ["Kafka does not answer", "bad"]
    : live.state.figures ? ["Live", "good"] : ["Joining the stream …", "waiting"];
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("figures-age").textContent = state === "bad" && age() !== null ? `figures are ${duration(age() / 1000)} old` : "";
  $("chip").title = live.lost || live.state?.fault || "";
  $("chip").dataset.state = state;
  $("live").classList.toggle("old", state === "bad");
  return state;
}
