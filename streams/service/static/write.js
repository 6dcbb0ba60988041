// Writing to the stream, which only happens with a token: clicks of a user, and new items.

import { request, tokens } from "./api.js";
import { $, duration, nameOf, published } from "./view.js";

const NOISE = 0.15; // length of the difference, as a share of the vector's: a new edition is about so near
const LONGEST_LOG = 8;

/** Return the user as whom a click is sent that is made now; null = it is not sent. */
export function sendsAs() {
  return ($("send").checked && tokens.write && $("as-user").value.trim()) || null;
}

/** Say beside the clicks as whom they are sent, or why they are not; `shown` = the user who is shown. */
export function showSending(shown) {
  const sender = sendsAs();
  $("sending").hidden = !$("send").checked;
  $("sending").textContent = sender === null ? "Clicks are not sent: the token to write, or the user, is missing."
    : sender === shown ? `Your clicks are sent to the stream as user ${sender}.`
    : `Your next click is sent to the stream as user ${sender}, who is shown then.`;
}

/** Send a click, and return when Kafka has acknowledged it. */
export function writeClick(user, item) {
  // Ids are written as texts are: numbers of JavaScript have 53 bits.
  const body = `{"user_id": ${JSON.stringify(user)}, "item_id": ${item.id}}`;
  return request("/v1/clicks", { method: "POST", body, token: tokens.write });
}

/** Add a line to the log of what was written and answered. */
export function noteWritten(text) {
  const line = document.createElement("li");
  line.textContent = text;
  $("written").prepend(line);
  while ($("written").children.length > LONGEST_LOG) $("written").lastChild.remove();
}

/** Connect the form; `show`, `attempt` and `current` are the page's. */
export function connectWriting({ show, attempt, current }) {
  $("as-user").value = `visitor-${Math.random().toString(36).slice(2, 8)}`;
  const publishNow = async () => {
    if (!(await attempt("write", () => publish(current().answer), publishNow))) noteWritten("The item was not acknowledged.");
  };
  $("write-form").addEventListener("input", () => {
    tokens.write = $("token").value;
    showSending(current().user);
  });
  $("send").addEventListener("change", () => {
    if (sendsAs() !== null) show(sendsAs(), `Clicks are sent as user ${sendsAs()}`);
  });
  $("write-form").addEventListener("submit", (event) => {
    event.preventDefault();
    publishNow();
  });
}

/** Publish an item whose vector is near that of another one, and log when it is recallable. */
async function publish(answer) {
  const near = answer?.history.find((item) => item.id === $("near").value);
  if (!near) return;
  const { embedding } = await request(`/page/items/${near.id}/embedding`);
  const length = Math.hypot(...embedding);
  const noisy = embedding.map((value) => value + (NOISE * length * gaussian()) / Math.sqrt(embedding.length));
  const scale = length / Math.hypot(...noisy);
  const id = 4_000_000_000_000_000 + Math.floor(Math.random() * 1e15); // no catalogue counts so far
  const body = { embedding: noisy.map((value) => value * scale), title: `New, like ${nameOf(near)}`, category: near.category };
  published.set(String(id), body.title);
  noteWritten(`Publishing item ${id}, which resembles ${nameOf(near)} …`);
  const { recallable_after_s } = await request(`/v1/items/${id}?wait=true`, { method: "PUT", body, token: tokens.write });
  noteWritten(recallable_after_s === null
    ? `Kafka has item ${id}, but searches do not find it yet: does an item worker run?`
    : `Item ${id} can be recalled, ${duration(recallable_after_s)} after Kafka acknowledged it.`);
}

function gaussian() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}
