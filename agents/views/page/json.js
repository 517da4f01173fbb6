/** JSON for reading: indented without being read as numbers, so that every digit stays as its source wrote it. */

const STEP = "  ";

/** The text with a line for each member; text that is no JSON stays as it is. */
export function indented(text) {
  try {
    JSON.parse(text);  // only to know whether it is JSON: a parsed number may have lost digits
  } catch {
    return text;
  }
  let out = "";
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (quoted) {
      out += c;
      if (c === "\\") out += text[(i += 1)];
      else if (c === '"') quoted = false;
    } else if (c === '"') {
      quoted = true;
      out += c;
    } else if (c === "{" || c === "[") {
      const empty = /^\s*[\]}]/.exec(text.slice(i + 1));
      if (empty) {
        out += c + text[i + empty[0].length];
        i += empty[0].length;
      } else {
        depth += 1;
        out += c + line(depth);
      }
    } else if (c === "}" || c === "]") {
      depth -= 1;
      out += line(depth) + c;
    } else if (c === ",") out += c + line(depth);
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}

const line = (depth) => `\n${STEP.repeat(depth)}`;
