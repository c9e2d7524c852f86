// The state in the address of the page: ?training.train.lr=0.15&training.train.seed=3#explorer-training

// The pairs of name and text that an address holds below a prefix.
export function read(prefix, search = location.search) {
  return [...new URLSearchParams(search)]
    .filter(([name]) => name.startsWith(`${prefix}.`))
    .map(([name, value]) => [name.slice(prefix.length + 1), value]);
}

// Replace what an address holds below a prefix.
export function put(parameters, prefix, pairs) {
  const before = [...parameters.keys()];
  for (const name of before) if (name.startsWith(`${prefix}.`)) parameters.delete(name);
  for (const [name, value] of pairs) parameters.set(`${prefix}.${name}`, value);
}

// Write the pairs into the address bar; the back button leaves the page as before.
export function write(prefix, pairs, anchor) {
  const url = new URL(location);
  put(url.searchParams, prefix, pairs);
  url.hash = anchor;
  history.replaceState(history.state, "", url);
  return url.href;
}
