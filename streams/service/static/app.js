// The page: who is shown, what is asked of the service, and what happens on a click.

import { Problem, request, tokens } from "./api.js";
import { follow, showConnection } from "./live.js";
import { ItemMap } from "./map.js";
import { attempt, supersede } from "./problems.js";
import { $, count, duration, itemButton, moment, nameOf, showHistory, showInterests, showList, showMapWords, userButton } from "./view.js";
import { connectWriting, noteWritten, sendsAs, showSending, writeClick } from "./write.js";

const STORED = "mindstream-clicks";
const MAP_RETRY_MS = 3000;
const READ_PAUSE_MS = 100; // between two reads of a user, at least
const FRESH_TRIES = 8; // reads until the service's copy of the history has the click of an event
const NOTHING = { history: [], clicks: [], unknown: [], interests: [], merged: [] };

// `answer` is what is shown; null = nothing. `wanted`: offset of the newest click of which an event told, `tries`: reads
// that are left to find it, `isStale`: an event came after the last read began, `reading`: the reads under way, or null.
const page = { user: null, made: [], answer: null, start: null, wanted: -1, tries: 0, isStale: false, reading: null };
const announce = (text) => { $("announcer").textContent = text; };
const map = new ItemMap($("map"), choose, announce);

/** Ask for the explanation of whoever is shown, and show it; again as long as events tell of more, one request at a time. */
async function refresh() {
  const user = page.user;
  const signal = supersede("user");
  page.reading = signal;
  document.querySelector("main").setAttribute("aria-busy", "true");
  try {
    while (await readOnce(user, signal)) await new Promise((resolve) => setTimeout(resolve, READ_PAUSE_MS));
  } finally {
    if (!signal.aborted) done();
  }
}

function done() {
  page.reading = null;
  document.querySelector("main").removeAttribute("aria-busy");
}

/** Read a user and show the answer, or that there is none; return whether to read again. */
async function readOnce(user, signal) {
  if (signal.aborted) return false;
  page.isStale = false;
  const succeeded = await attempt("user", async () => showAnswer(await read(user, signal)), refresh, signal);
  if (signal.aborted) return false;
  document.querySelector("main").removeAttribute("aria-busy");
  if (!succeeded) showFailure();
  const isBehind = succeeded && user !== null && (page.answer.stored?.offset ?? -1) < page.wanted && page.tries-- > 0;
  return page.isStale || isBehind;
}

function read(user, signal) {
  if (user !== null) return request(`/page/users/${encodeURIComponent(user)}`, { signal });
  return request("/page/explanation", { method: "POST", body: { history: page.made.map((item) => item.id).reverse() }, signal });
}

/** Say that the lists are older than the problem above; if they are of another user, show none. */
function showFailure() {
  const known = page.answer;
  if (!known) showAnswer(NOTHING);
  page.answer = known;
  $("subject-note").textContent = known ? "These clicks and lists are older: the newest could not be read." : "Not known: the clicks could not be read.";
  if (!known) $("merged-empty").textContent = $("published-note").textContent = "Not known.";
}

function showAnswer(answer) {
  const before = page.answer?.merged.length ? new Set(page.answer.merged.map((item) => item.id)) : null;
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
    ? `What ${answer.clicks.length === 1 ? "one click says" : `${count(answer.clicks.length, "click")} have in common`}, as ${count(K, "point")} among the items.`
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
  showSending(page.user);
  if (page.user === null) {
    $("subject-note").textContent = n ? `${count(n, "click")}, kept in this browser only. Newest first.` : "Click two or three items that you like:";
    return;
  }
  const at = answer.stored?.updated_at;
  const when = at ? `, the last one counted ${moment(at)}` : "";
  $("subject-note").textContent = answer.stored ? `${count(n, "click")} in the worker's history${when}. Newest first.`
    : answer.replicas?.histories.caught_up ? "The stream has no clicks of this user." : "The service still reads the histories; this user may follow.";
  const newest = answer.newest;
  $("published-note").textContent = newest
    ? `Written ${moment(newest.ts)}; ${same(newest.items, answer.merged)}`
    : answer.replicas?.recommendations.caught_up ? "The worker has published nothing for this user, or it has expired."
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
  const sender = sendsAs(); // whom the page names at this moment
  if (sender !== null) {
    const isWritten = await attempt("write", async () => {
      const sent = performance.now();
      await writeClick(sender, item);
      noteWritten(`User ${sender}: click on ${nameOf(item)} acknowledged by Kafka after ${duration((performance.now() - sent) / 1000)}.`);
      if (page.user !== sender) show(sender, `The click was sent as user ${sender}`);
    }, () => choose(item));
    if (!isWritten) noteWritten(`User ${sender}: click on ${nameOf(item)} not acknowledged.`);
    return;
  }
  if (page.user !== null && !page.answer) {
    announce(`The clicks of user ${page.user} are not known yet.`);
    return;
  }
  // What would this user be recommended after this click? The stream's user stays as it is.
  const history = page.user === null ? page.made : page.answer.history;
  page.made = [item, ...history].slice(0, 200);
  localStorage.setItem(STORED, JSON.stringify(page.made));
  if (page.user !== null) show(null, `A made-up user with the newest clicks of user ${page.user}, and one more.`);
  else refresh();
}

/** Show a user of the stream, or, with null, the made-up one. What is shown stays, under its name, until the answer comes. */
function show(user, said = "") {
  if (user !== page.user) Object.assign(page, { answer: null, wanted: -1, tries: 0 });
  page.user = user;
  location.hash = user === null ? "" : `user=${encodeURIComponent(user)}`;
  if (said) announce(said);
  follow(user, happened, refresh);
  return refresh();
}

async function search() {
  const query = $("query").value.trim();
  const signal = supersede("search");
  await attempt("search", async () => {
    const { items } = query ? await request(`/page/items?q=${encodeURIComponent(query)}`, { signal }) : page.start ?? { items: [] };
    const user = query ? [userButton(query)] : [];
    const none = query && !items.length ? [Object.assign(document.createElement("span"), { className: "note", textContent: "No item matches." })] : [];
    $("found").replaceChildren(...[...user, ...none, ...items.map((item) => itemButton(item))].map((entry) => {
      const row = document.createElement("li");
      row.append(entry);
      return row;
    }));
  }, search, signal);
}

/** React to a click or a recommendation of the user who is shown; a busy user's are read together. */
function happened({ user, offset, latency_s }) {
  if (user !== page.user) return;
  if (latency_s !== null) noteWritten(`User ${user}: recommendation ${duration(latency_s)} after the click.`);
  Object.assign(page, { wanted: Math.max(page.wanted, offset), tries: FRESH_TRIES, isStale: true });
  if (!page.reading) refresh();
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

function fromHash() {
  try {
    return location.hash.startsWith("#user=") ? decodeURIComponent(location.hash.slice(6)) : null;
  } catch {
    return null; // no address of this page
  }
}

async function begin() {
  const succeeded = await attempt("start", async () => {
    page.start = await request("/page/start");
    $("model").textContent = `Model ${page.start.model_version}, which reads the newest ${count(page.start.history_length, "click")} of a user.`;
  }, begin);
  if (!succeeded) return;
  page.made = stored();
  search();
  loadMap();
  show(fromHash());
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
