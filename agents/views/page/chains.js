/** Chains: why two alternate keys are one company, out of the links that hold it together. */

/**
 * metakey -> the links on the shortest way from `root`, in their order: [{from, to, link}], each end as key:value.
 * A key that no link reaches is not in the map: nothing holds it to the rest.  `until` (ms): links known by then.
 */
export function chains(root, links, until = Infinity) {
  const beside = new Map();
  for (const link of links) {
    if (Date.parse(link.known_from) > until) continue;
    for (const [from, to, keys] of [[link.a, link.b, link.keys], [link.b, link.a, [...link.keys].reverse()]]) {
      beside.set(from, [...beside.get(from) ?? [], { to, step: { from: keys[0], to: keys[1], link } }]);
    }
  }
  const found = new Map([[root, []]]);
  for (const at of found.keys()) {  // a map is walked in the order in which it grows: the nearest first
    for (const { to, step } of beside.get(at) ?? []) if (!found.has(to)) found.set(to, [...found.get(at), step]);
  }
  return found;
}
