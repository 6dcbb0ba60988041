// Requests to the service: JSON, and its server-sent events.

/** Tokens, kept in memory only: they are gone when the page is closed. */
export const tokens = { read: "", write: "" };

/** An answer that is no success; `status` is 0 if the service does not answer. */
export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Return the header of a token. `fetch` would fail with a text that speaks of no token. */
function authorization(token) {
  if (!token) return {};
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Problem(401, "A token has no spaces, and no letters beyond ASCII.");
  return { Authorization: `Bearer ${token}` };
}

/** Fetch JSON. `body` is a value, or a text that is JSON already: ids have 64 bits, numbers here only 53. */
export async function request(path, { method = "GET", body, token = tokens.read, signal } = {}) {
  const headers = authorization(token);
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    const text = typeof body === "object" ? JSON.stringify(body) : body;
    answer = await fetch(path, { method, headers, body: text, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service does not answer.");
  }
  if (!answer.ok) throw new Problem(answer.status, await reason(answer));
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service's answer broke off.");
  }
}

async function reason(answer) {
  try {
    const problem = await answer.json();
    const detail = typeof problem.detail === "string" ? problem.detail : problem.title;
    return detail || `The service answers ${answer.status}.`;
  } catch {
    return `The service answers ${answer.status}.`;
  }
}

/** Yield the events of a stream as `[name, value]`. EventSource would not do: it cannot send a token. */
export async function* events(path, signal) {
  const headers = authorization(tokens.read);
  let answer;
  try {
    answer = await fetch(path, { headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service does not answer.");
  }
  if (!answer.ok) throw new Problem(answer.status, await reason(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const name = /^event: (.*)$/m.exec(block);
      const data = /^data: (.*)$/m.exec(block);
      if (name && data) yield [name[1], JSON.parse(data[1])];
    }
  }
}
