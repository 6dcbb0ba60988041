// What is shown: functions from values to the page's elements. Nothing here asks the service.

import { badge, colour, shapeName } from "./interests.js";

const DASH = "–";
const SHOWN_RECALLED = 6;
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const times = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const $ = (id) => document.getElementById(id);
/** Names of the items that were published on this page, by id. */
export const published = new Map();
export const nameOf = (item) => item.title || published.get(item.id) || `Item ${item.id}`;
export const count = (n, noun) => `${number.format(n)} ${noun}${n === 1 ? "" : "s"}`;

/** Format a duration with two or three digits. */
export function duration(seconds) {
  if (seconds < 1) return `${number.format(1000 * seconds)} ms`;
  if (seconds < 100) return `${small.format(seconds)} s`;
  return seconds < 7200 ? `${number.format(seconds / 60)} min` : `${number.format(seconds / 3600)} h`;
}

/** Format a time in seconds since 1970, as it is here. */
export const moment = (seconds) => `on ${times.format(1000 * seconds)}`;

function element(tag, { text, className, hidden } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (hidden) made.setAttribute("aria-hidden", "true");
  made.append(...children);
  return made;
}

/** Return a button with an item's name; it carries the item for the listener of the page. */
export function itemButton(item, { before = [], after = [], spoken = "" } = {}) {
  const name = element("span", { className: "name", text: nameOf(item) });
  const category = item.category ? [element("span", { className: "category", text: item.category })] : [];
  const words = spoken ? [element("span", { className: "hidden", text: `. ${spoken}` })] : [];
  const button = element("button", {}, ...before, element("span", { className: "text" }, name, ...category), ...after, ...words);
  button.type = "button";
  button.item = item;
  button.title = [nameOf(item), item.category, spoken].filter(Boolean).join(" · ");
  return button;
}

/** Return a button that shows a user of the stream. */
export function userButton(user, text = `Show user ${user} of the stream`) {
  const button = element("button", { text });
  button.type = "button";
  button.user = user;
  return button;
}

/** Replace a list's entries, and keep the focus on the same item, or else on the same place. */
function replace(list, entries) {
  const rows = [...list.children];
  const place = rows.findIndex((row) => row.contains(document.activeElement));
  const id = place < 0 ? null : document.activeElement.item?.id;
  list.replaceChildren(...entries.map((entry) => element("li", {}, entry)));
  if (place < 0) return;
  const buttons = [...list.querySelectorAll("button")];
  (buttons.find((button) => button.item?.id === id) || buttons[Math.min(place, buttons.length - 1)])?.focus();
}

/** Show the clicks: those that the model reads, with the interests that they feed; then those that it does not. */
export function showHistory(answer) {
  const largest = Math.max(0, ...answer.clicks.flatMap((click) => click.shares));
  const read = answer.clicks.map((click) => {
    const cells = click.shares.map((share, interest) => {
      const cell = element("span", { className: "share" });
      cell.style.setProperty("background", colour(interest));
      cell.style.setProperty("opacity", String(0.12 + (0.88 * share) / largest));
      return cell;
    });
    const shares = click.shares.map((share, k) => `${number.format(100 * share)} % of interest ${k + 1}`).join(", ");
    const spoken = `Feeds interest ${click.feeds + 1} most: ${shares}`;
    return itemButton(click, { before: [badge(click.feeds)], after: [element("span", { className: "shares", hidden: true }, ...cells)], spoken });
  });
  const unknown = new Set(answer.unknown);
  const unread = answer.history.filter((item) => unknown.has(item.id)).map((item) => {
    const button = itemButton(item, { spoken: "Not known to the model: it takes no part" });
    button.classList.add("unread");
    return button;
  });
  const older = answer.history.length - read.length - unread.length;
  const more = older > 0 ? [element("p", { className: "note", text: `${count(older, "older click")} that the model does not read` })] : [];
  replace($("history"), [...read, ...unread, ...more]);
}

/** Show what each interest recalls. */
export function showInterests(answer) {
  const cards = answer.interests.map(({ fed_by, recalled }, interest) => {
    const topic = topicOf(recalled);
    const title = element("h3", {}, badge(interest), ` Interest ${interest + 1}${topic ? `: ${topic}` : ""}`);
    const note = fed_by ? `strongest for ${fed_by} of ${count(answer.clicks.length, "click")}` : "shared by all clicks, strongest for none";
    const list = element("ol", { className: "items" });
    replace(list, recalled.slice(0, SHOWN_RECALLED).map((item) => itemButton(item)));
    if (!recalled.length) list.append(element("li", { className: "note", text: "The index finds nothing here." }));
    const card = element("section", { className: `card interest-${interest % 4}` }, title, element("p", { className: "note", text: note }), list);
    card.setAttribute("aria-label", `Interest ${interest + 1}${topic ? `, ${topic}` : ""}`);
    return card;
  });
  if (!cards.length) {
    $("recalled").replaceChildren(element("p", { className: "empty", text: "Each interest recalls the items that are nearest to it." }));
    return;
  }
  const focused = document.activeElement?.item?.id;
  const inside = $("recalled").contains(document.activeElement);
  $("recalled").replaceChildren(...cards);
  if (inside) [...$("recalled").querySelectorAll("button")].find((button) => button.item.id === focused)?.focus();
}

/** Return the category of most recalled items; none where there is no majority. */
function topicOf(recalled) {
  const counts = new Map();
  for (const { category } of recalled.slice(0, 10)) if (category) counts.set(category, (counts.get(category) || 0) + 1);
  const [best] = [...counts].sort((a, b) => b[1] - a[1]);
  return best && best[1] > Math.min(10, recalled.length) / 2 ? best[0] : "";
}

/** Show a list with the interest of each item; those that `before` lacks are marked as new. */
export function showList(list, items, before = null) {
  replace(list, items.map((item) => {
    const isNew = before && !before.has(item.id);
    const after = isNew ? [element("span", { className: "new", text: "new" })] : [];
    const button = itemButton(item, { before: [badge(item.interest)], after, spoken: `Interest ${item.interest + 1}` });
    if (isNew) button.classList.add("is-new");
    return button;
  }));
}

/** Show the map's content in words. */
export function showMapWords(words) {
  $("map-words").replaceChildren(...words.map(({ interest, near, side }) => {
    const names = near.map(nameOf).join("; ");
    return element("li", { text: `Interest ${interest + 1} (${shapeName(interest)}) is at the ${side}${names ? `, near ${names}` : ""}.` });
  }));
}

/** Show the figures of the stream; what is not known is a dash. */
export function showFigures(state, rates) {
  const figures = state.figures;
  const rate = (value) => (value === null || value === undefined ? DASH : value < 9.95 ? small.format(value) : number.format(value));
  $("clicks-rate").textContent = rate(figures?.clicks_per_s);
  $("recommendations-rate").textContent = rate(figures?.recommendations_per_s);
  const latency = figures?.latency;
  $("latency").textContent = latency ? duration(latency.p50_s) : DASH;
  $("latency-note").textContent = latency ? `half of them; 99 % within ${duration(latency.p99_s)}, last minute` : figures ? "nothing measured in the last minute" : "not known";
  $("lag").textContent = state.lag === null ? DASH : number.format(state.lag);
  $("lag-note").textContent = state.lag === null ? "not known" : `${state.lag === 1 ? "click" : "clicks"} not yet committed`;
  const hits = figures?.hit_rate;
  $("hits").textContent = hits ? `${small.format(100 * hits.ours)} %` : DASH;
  $("hits-note").textContent = hits ? `of ${count(hits.judged, "click")} were on recommended items; popular items: ${small.format(100 * hits.popular)} %` : figures ? "no click of a user with a list yet" : "not known";
  $("hits").title = hits ? `Share of clicks whose item was among the ${hits.cutoff} recommended before` : "";
  showReplica(state.replicas.histories);
  spark($("spark"), rates);
}

function showReplica({ messages, age_s, caught_up }) {
  $("replica").textContent = caught_up ? (age_s === null ? DASH : age_s < 3 ? "up to date" : `${duration(age_s)} old`) : "reading";
  $("replica-note").textContent = messages ? `${count(messages, "message")} behind` : caught_up ? "nothing left to read" : "not known yet";
}

function spark(canvas, rates) {
  const density = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = width * density;
  canvas.height = height * density;
  const known = rates.filter((rate) => rate !== null);
  if (known.length < 2) return;
  const context = canvas.getContext("2d");
  context.scale(density, density);
  const top = Math.max(...known, 1);
  context.beginPath();
  rates.forEach((rate, i) => rate !== null && context.lineTo((i / (rates.length - 1)) * width, height - 2 - (rate / top) * (height - 4)));
  context.lineWidth = 1.5;
  context.strokeStyle = getComputedStyle(canvas).color;
  context.stroke();
}
