/** Calls of the worker.  Every failure is a Problem, which says what a person can do and when to ask again. */

import { enter } from "./door.js";

const RETRY_MS = [1000, 2000, 4000, 5000];
const PATIENCE_MS = 20_000;  // an answer that takes longer is on a connection that nobody holds any more

/** A failed call.  `status` 0: no answer at all.  `retryMs` is null when asking again cannot help. */
export class Problem extends Error {
  constructor({ status, title, detail = "", guess = "", fix = "", retryMs = null }) {
    super(title);
    Object.assign(this, { status, title, detail, guess, fix, retryMs });
  }
}

/** Parameters as an address has them; a list stands for one parameter several times, null for none. */
export function query(parameters) {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined) out.append(name, one);
  }
  return out.toString();
}

/** GET as JSON.  Throws Problem, or the AbortError of `signal`. */
export async function get(path, parameters = {}, signal = undefined) {
  return called(path, parameters, signal, {});
}

/** POST of JSON, its answer as JSON.  Throws as `get` does; what was not answered is not sent again by itself. */
export async function post(path, body, parameters = {}, signal = undefined) {
  return called(path, parameters, signal, { method: "POST", body: JSON.stringify(body) }, { "content-type": "application/json" });
}

async function called(path, parameters, signal, how, headers = {}) {
  const asked = query(parameters);
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response;
  try {
    response = await fetch(asked ? `${path}?${asked}` : path, {
      ...how, signal: signal ? AbortSignal.any([signal, patience]) : patience,
      headers: { accept: "application/json", ...headers }, cache: "no-store", credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response.ok && !(error instanceof SyntaxError)) throw unreachable();  // the answer broke off on the way
    if (response.ok) throw new Problem({ status: response.status, title: "The worker's answer is not JSON.", detail: path });
  }
  if (response.ok) return body;
  if (response.status === 401 && (await enter())) return called(path, parameters, signal, how, headers);
  throw refused(response, body ?? {});
}

/** How long to wait before the n-th attempt (0-based) when the worker did not say. */
export function backOff(attempt) {
  return RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
}

function refused(response, body) {
  const { status } = response;
  return new Problem({
    status,
    title: text(body.title) || `The worker answered ${status}.`,
    detail: text(body.detail),
    guess: text(body.guess),
    fix: text(body.fix),
    retryMs: status === 503 || status === 429 ? retryAfter(response.headers.get("retry-after")) : null,
  });
}

function retryAfter(header) {
  const seconds = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header ?? "") - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0.5), 60) * 1000 : 1000;
}

function unreachable() {
  return new Problem({ status: 0, title: "The worker cannot be reached.", fix: "Is `milepost up` still running?", retryMs: backOff(0) });
}

const text = (value) => (typeof value === "string" ? value : Array.isArray(value) ? value.join(", ") : "");
