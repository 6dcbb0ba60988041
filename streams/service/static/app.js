// The page: who is shown, what is asked of the service, and what happens on a click.

import { events, Problem, request, tokens } from "./api.js";
import { ItemMap } from "./map.js";
import { $, count, duration, itemButton, nameOf, showFigures, showHistory, showInterests, showList, showMapWords } from "./view.js";
import { connectWriting, noteWritten, sendsAs, writeClick } from "./write.js";

const STORED = "mindstream-clicks";
const RATES = 60; // states, one a second, in the small curve
const MAP_RETRY_MS = 3000;
const STALE_MS = 3500; // without a state for so long, the connection counts as lost
const FRESH_TRIES = 8; // reads of a user until the service's copy of the history has the click

const page = { user: null, made: [], answer: null, start: null, request: 0, rates: Array(RATES).fill(null), stateAt: 0 };
const announce = (text) => { $("announcer").textContent = text; };
const map = new ItemMap($("map"), choose, announce);

/** Show a problem with its remedy, or none. */
function showProblem(error, again = refresh) {
  $("problem").hidden = !error || error.status === 401;
  $("credentials").hidden = error?.status !== 401;
  if (!error) return;
  $("problem").firstElementChild.textContent = `${error.message}${page.answer ? " What is shown below is older." : ""}`;
  $("retry").onclick = again;
}

/** Run something that asks the service; show what fails. */
async function attempt(action, again) {
  try {
    await action();
    showProblem(null);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(error, again);
  }
}

/** Ask for the explanation of whoever is shown, and show it. `offset`: of a click that the answer has to include. */
function refresh(offset = -1, tries = FRESH_TRIES) {
  const number = ++page.request;
  document.querySelector("main").setAttribute("aria-busy", "true");
  return attempt(async () => {
    const body = { history: page.made.map((item) => item.id).reverse() };
    const answer = await (page.user === null
      ? request("/page/explanation", { method: "POST", body })
      : request(`/page/users/${encodeURIComponent(page.user)}`));
    if (number !== page.request) return; // a newer request is under way
    document.querySelector("main").removeAttribute("aria-busy");
    const behind = page.user !== null && (answer.stored?.offset ?? -1) < offset;
    if (behind && tries > 0) setTimeout(() => number === page.request && refresh(offset, tries - 1), 100);
    showAnswer(answer);
  }, () => refresh());
}

function showAnswer(answer) {
  const before = page.answer && page.answer.merged.length ? new Set(page.answer.merged.map((item) => item.id)) : null;
  const changed = !page.answer || JSON.stringify([page.answer.merged, page.answer.history]) !== JSON.stringify([answer.merged, answer.history]);
  page.answer = answer;
  showSubject(answer);
  if (!changed && !answer.interest_places?.length) return;
  showHistory(answer);
  showInterests(answer);
  showList($("merged"), answer.merged, changed ? before : null);
  showMarks(answer);
  const K = answer.interests.length;
  $("interests-note").textContent = K
    ? `What ${count(answer.clicks.length, "click")} have in common, as ${count(K, "point")} among the items.`
    : "What the clicks have in common, as up to four points among the items.";
  $("recommended-note").textContent = answer.merged.length
    ? "The best of all interests. Click one to see what changes."
    : "The best of all interests, merged.";
  $("more").hidden = answer.merged.length <= 10;
  $("merged-empty").hidden = answer.merged.length > 0;
  $("merged-empty").textContent = answer.history.length ? "The model knows none of these items, so nothing can be recalled."
    : page.user === null ? "Click an item on the left." : "Without clicks there is nothing to recall.";
  $("near").replaceChildren(...(answer.history.length ? answer.history.slice(0, 10) : [{ id: "", title: "click an item first" }]).map((item) => new Option(nameOf(item), item.id)));
  $("publish").disabled = !answer.history.length;
  if (changed && answer.merged.length) announce(`${count(K, "interest")}. Recommended first: ${answer.merged.slice(0, 3).map(nameOf).join("; ")}.`);
}

function showSubject(answer) {
  const n = answer.history.length;
  $("forget").hidden = page.user !== null || !n;
  $("made-up").hidden = page.user === null;
  $("subject").textContent = page.user === null ? "Your clicks" : `User ${page.user}`;
  $("published").hidden = page.user === null;
  if (page.user === null) {
    $("subject-note").textContent = n ? `${count(n, "click")}, kept in this browser only. Newest first.` : "Click two or three items that you like:";
    return;
  }
  const at = answer.stored?.updated_at;
  const age = at ? `, the last one counted ${duration(Math.max(0, Date.now() / 1000 - at))} ago` : "";
  $("subject-note").textContent = answer.stored ? `${count(n, "click")} in the worker's history${age}. Newest first.`
    : answer.replicas.histories.caught_up ? "The stream has no clicks of this user." : "The service still reads the histories; this user may follow.";
  const newest = answer.newest;
  $("published-note").textContent = newest
    ? `Written ${duration(Math.max(0, Date.now() / 1000 - newest.ts))} ago; ${same(newest.items, answer.merged)}`
    : answer.replicas.recommendations.caught_up ? "The worker has published nothing for this user, or it has expired."
      : "The service still reads the recommendations; one may follow.";
  showList($("newest"), newest ? newest.items : []);
}

function same(published, computed) {
  const equal = published.length === computed.length && published.every((item, i) => item.id === computed[i].id);
  return equal ? "the same list as the one computed here." : "it differs from the list computed here: clicks or items came since.";
}

function showMarks(answer) {
  const places = answer.places || {};
  const clicked = new Set(answer.clicks.map((click) => click.id));
  const recalled = answer.interests.flatMap(({ recalled: list }, interest) => list.slice(0, 10).map((item) => ({ item, interest, clicked: false })));
  const marks = [...recalled.filter(({ item }) => !clicked.has(item.id)), ...answer.clicks.map((item) => ({ item, interest: item.feeds, clicked: true }))]
    .filter(({ item }) => places[item.id])
    .map((mark) => ({ ...mark, at: places[mark.item.id] }));
  map.setMarks(marks, answer.interest_places || []);
  showMapWords(map.words());
}

/** React to a click on an item, wherever it is shown. */
async function choose(item) {
  if (page.user !== null && sendsAs() === page.user) {
    await attempt(async () => {
      const sent = performance.now();
      await writeClick(page.user, item);
      noteWritten(`Click on ${nameOf(item)} acknowledged by Kafka after ${duration((performance.now() - sent) / 1000)}.`);
    }, () => choose(item));
    return;
  }
  // What would this user be recommended after this click? The stream's user stays as it is.
  const history = page.user === null ? page.made : page.answer.history;
  page.made = [item, ...history].slice(0, 200);
  localStorage.setItem(STORED, JSON.stringify(page.made));
  if (page.user !== null) show(null, `A made-up user with the clicks of user ${page.user}, and one more.`);
  else refresh();
}

/** Show a user of the stream, or, with null, the made-up one. */
function show(user, said = "") {
  const differs = user !== page.user;
  page.user = user;
  if (differs) page.answer = null;
  location.hash = user === null ? "" : `user=${encodeURIComponent(user)}`;
  if (said) announce(said);
  follow();
  return refresh();
}

async function search() {
  const query = $("query").value.trim();
  await attempt(async () => {
    const { items } = query ? await request(`/page/items?q=${encodeURIComponent(query)}`) : page.start;
    if (query !== $("query").value.trim()) return;
    const user = query ? [userButton(query)] : [];
    const none = query && !items.length ? [Object.assign(document.createElement("span"), { className: "note", textContent: "No item matches." })] : [];
    $("found").replaceChildren(...[...user, ...none, ...items.map((item) => itemButton(item))].map((entry) => {
      const row = document.createElement("li");
      row.append(entry);
      return row;
    }));
  }, search);
}

function userButton(user, text = `Show user ${user} of the stream`) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.user = user;
  return button;
}

let stream = new AbortController();

/** Receive figures, and the events of the user who is shown, until another one is. */
async function follow() {
  stream.abort();
  const mine = (stream = new AbortController());
  const path = page.user === null ? "/page/live" : `/page/live?user=${encodeURIComponent(page.user)}`;
  for (let wait = 1000; ; wait = Math.min(2 * wait, 10000)) {
    try {
      for await (const [name, value] of events(path, mine.signal)) {
        wait = 1000;
        if (name === "state") showState(value);
        else if (value.user === page.user) happened(value);
      }
      throw new Problem(0, "The service has closed the connection.");
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error.status === 401) return showProblem(error);
      page.fault = error.message;
      showConnection();
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (mine.signal.aborted) return;
  }
}

function showState(state) {
  page.stateAt = performance.now();
  page.fault = state.fault;
  page.known = state.figures !== null;
  page.rates = [...page.rates.slice(1), state.figures ? state.figures.clicks_per_s : null];
  showFigures(state, page.rates);
  showConnection();
  const active = state.figures ? state.figures.active : [];
  $("active").hidden = !active.length;
  const chips = $("active").querySelector("ul");
  if (chips.contains(document.activeElement)) return; // do not move what is about to be chosen
  chips.replaceChildren(...active.slice(0, 8).map((user) => {
    const row = document.createElement("li");
    row.append(userButton(user, user));
    row.firstChild.setAttribute("aria-label", `User ${user}`);
    return row;
  }));
}

function showConnection() {
  const age = performance.now() - page.stateAt;
  const lost = !page.stateAt || age > STALE_MS;
  const [text, state] = lost && page.stateAt ? [`Connection lost; figures are ${duration(age / 1000)} old`, "bad"]
    : lost ? [page.fault || "Connecting …", page.fault ? "bad" : "waiting"]
    : page.fault ? ["Kafka does not answer", "bad"]
    : page.known ? ["Live", "good"] : ["Joining the stream …", "waiting"];
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").title = page.fault || "";
  $("connection").dataset.state = state;
  $("live").classList.toggle("old", state === "bad");
}

/** React to a click or a recommendation of the user who is shown. */
function happened({ offset, latency_s }) {
  if (latency_s !== null) noteWritten(`User ${page.user}: recommendation ${duration(latency_s)} after the click.`);
  refresh(offset);
}

async function loadMap() {
  try {
    const { state, fault, items } = await request("/page/map");
    if (state === "ready") {
      map.setItems(items);
      if (page.answer) refresh();
      return;
    }
    $("map").querySelector(".state").textContent = state === "failed" ? `There is no map: ${fault}.` : "The map of the items is being computed. It appears in about half a minute …";
    if (state === "failed") return;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
  setTimeout(loadMap, MAP_RETRY_MS);
}

function stored() {
  try {
    const items = JSON.parse(localStorage.getItem(STORED)) || [];
    return items.filter((item) => /^-?\d{1,19}$/.test(item.id));
  } catch {
    return [];
  }
}

const fromHash = () => (location.hash.startsWith("#user=") ? decodeURIComponent(location.hash.slice(6)) : null);

async function begin() {
  await attempt(async () => {
    page.start = await request("/page/start");
    $("model").textContent = `Model ${page.start.model_version}, which reads the newest ${count(page.start.history_length, "click")} of a user.`;
    page.made = stored();
    await search();
    loadMap();
    await show(fromHash());
  }, begin);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.item) choose(button.item);
  else if (button?.user !== undefined) show(button.user, `User ${button.user}`);
});
$("search").addEventListener("submit", (event) => event.preventDefault());
let typing;
$("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 150);
});
$("more").addEventListener("click", () => {
  const all = $("recommended").classList.toggle("all");
  $("more").textContent = all ? "Show fewer" : "Show all";
  $("more").setAttribute("aria-expanded", String(all));
});
$("made-up").addEventListener("click", () => show(null, "Your clicks"));
$("forget").addEventListener("click", () => {
  page.made = [];
  page.answer = null;
  localStorage.removeItem(STORED);
  refresh();
  $("query").focus();
});
$("credentials").addEventListener("submit", (event) => {
  event.preventDefault();
  tokens.read = $("read-token").value;
  begin();
});
addEventListener("hashchange", () => fromHash() !== page.user && show(fromHash()));
connectWriting({ show, attempt, current: () => page });
setInterval(showConnection, 1000);
begin();
