/**
 * Docs: which headings the generated documentation has, so that a link is shown only where it leads somewhere.
 *
 *     /openapi.json: is there a /docs?  ->  /docs  ->  the ids in its markup  ->  a link, or the text alone
 *
 * Nobody waits for it: a screen draws without links, and again when they are known.
 */

import { get } from "./api.js";
import { make } from "./element.js";

const PATH = "/docs";
let known = null;  // Promise of a Set of ids; asked once a page

/** Promise of the ids of the documentation; none where there is no documentation. */
export function anchors() {
  known ??= read();
  return known;
}

/** A link to the first of these headings that the documentation has, else the text. */
export function docsLink(ids, wanted, text) {
  const id = wanted.find((one) => ids.has(one));
  return id ? make("a", { href: `${PATH}#${encodeURIComponent(id)}`, text }) : make("span", { text });
}

/** Names of what the documentation describes under `kind-`, as `metric`: those of its headings. */
export function described(ids, kind) {
  return [...ids].filter((id) => id.startsWith(`${kind}-`)).map((id) => id.slice(kind.length + 1));
}

async function read() {
  try {
    // Asked for by its list: a page that is not there would stand in the console as an error.
    const { paths } = await get("/openapi.json");
    if (!(PATH in paths)) return new Set();
    const response = await fetch(PATH, { headers: { accept: "text/html" }, credentials: "same-origin" });
    if (!response.ok || !response.headers.get("content-type")?.startsWith("text/html")) return new Set();
    // The markup is parsed for its ids and shown nowhere: what is parsed so runs nothing.
    const markup = new DOMParser().parseFromString(await response.text(), "text/html");
    return new Set([...markup.querySelectorAll("[id]")].map((one) => one.id));
  } catch {
    known = null;  // asked again by the next question: until then the names stand alone
    return new Set();
  }
}
