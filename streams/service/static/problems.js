// What was asked of the service and failed: shown with its remedy until the same question is answered.

import { Problem, tokens } from "./api.js";
import { $ } from "./view.js";

const failed = new Map(); // kind of question → {text, again, asksToken}
const asked = new Map(); // kind of question → AbortController of the newest one

/** Return the signal of a new question of this kind; the former one is aborted. */
export function supersede(kind) {
  asked.get(kind)?.abort();
  asked.set(kind, new AbortController());
  return asked.get(kind).signal;
}

/**
 * Run `action`, which asks the service; show what fails, and return whether it succeeded.
 * `signal`: of `supersede`; what became of a superseded question is not shown.
 */
export async function attempt(kind, action, again, signal) {
  try {
    await action();
    if (!signal?.aborted) setProblem(kind, null);
    return true;
  } catch (error) {
    if (signal?.aborted) return false;
    if (!(error instanceof Problem)) throw error;
    setProblem(kind, error, again);
    return false;
  }
}

/** Set or clear the problem of one kind of question. A missing token to read is asked for; one to write has its field. */
export function setProblem(kind, error, again = null) {
  failed.delete(kind);
  const isRefused = error?.status === 401 || error?.status === 403;
  const text = isRefused && kind === "write" ? `Nothing was written: ${error.message.replace(/\.?$/, ".")}` : error?.message;
  if (error) failed.set(kind, { text, again, asksToken: isRefused && kind !== "write" });
  const all = [...failed.values()];
  $("credentials").hidden = !all.some(({ asksToken }) => asksToken);
  const refusal = all.find(({ asksToken }) => asksToken)?.text;
  $("credentials").querySelector("label").textContent = tokens.read
    ? `The service does not accept this token to read (${refusal}); it needs another one:` : "This service asks for a token to read:";
  const shown = all.filter(({ asksToken }) => !asksToken).pop();
  $("problem").hidden = !shown;
  if (!shown) return;
  const words = $("problem").firstElementChild;
  if (words.textContent !== shown.text) words.textContent = shown.text; // it is read out whenever it is set
  $("retry").onclick = shown.again;
}
