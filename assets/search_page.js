// The search page: results while the reader types, each a link to a section with the words around what was found.
// Its names are its own: the scripts of a page share theirs, and a second `const` of the same name is an error.
(() => {
  const field = document.querySelector(".bd-search-container input[name=q]");
  const list = document.getElementById("search-results");
  const state = document.getElementById("search-status");
  const nothing = document.getElementById("search-nothing");
  const more = document.getElementById("search-more");
  const STEP = 10;
  const LENGTH = 220; // of a snippet, in characters
  let engine;

  // The sentences around the place where most different words were found: pairs of a text and whether it was found.
  function snippet({ text, names }, terms) {
    const from = text || names.join("; ");
    const found = ({ term }) => terms.includes(term);
    const hits = engine.tokens(from).flatMap((token) => (found(token) ? token : token.parts.filter(found)));
    const within = (start) => hits.filter((hit) => hit.start >= start && hit.end <= start + LENGTH);
    const worth = (start) => new Set(within(start).map((hit) => hit.term)).size;
    const starts = [0, ...[...from.matchAll(/[.?!] (?=\S)/g)].map((end) => end.index + 2), ...hits.map((hit) => hit.start)];
    const start = starts.reduce((best, place) => (worth(place) > worth(best) ? place : best));
    const rest = from.slice(start + LENGTH);
    const end = rest.includes(" ") ? start + LENGTH + rest.indexOf(" ") : from.length;
    const parts = [];
    let at = start;
    for (const hit of hits.filter((hit) => hit.start >= start && hit.end <= end && hit.end - hit.start > 1)) {
      parts.push([from.slice(at, hit.start), false], [from.slice(hit.start, hit.end), true]);
      at = hit.end;
    }
    parts.push([from.slice(at, end), false]);
    return [[start ? "… " : "", false], ...parts, [end < from.length ? " …" : "", false]];
  }

  function element(name, content, attributes = {}) {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...content);
    return made;
  }

  function item(section) {
    const words = snippet(section, section.terms).map(([text, found]) => (found ? element("mark", [text]) : text));
    const where = section.title === section.page ? [] : [element("p", [section.page], { className: "bnb-where" })];
    const link = element("a", [section.title], { href: section.id });
    return element("li", [link, ...where, element("p", words, { className: "bnb-snippet" })]);
  }

  function show(shown = STEP) {
    const query = field.value.trim();
    history.replaceState(null, "", query ? `?q=${encodeURIComponent(query)}` : location.pathname);
    if (query) engine ??= new BookSearch(BOOK);
    const found = query ? engine.find(query) : [];
    list.replaceChildren(...found.slice(0, shown).map(item));
    more.hidden = found.length <= shown;
    more.onclick = () => {
      show(shown + STEP);
      list.children[shown].querySelector("a").focus();
    };
    const all = `${found.length} section${found.length === 1 ? "" : "s"}`;
    const best = more.hidden ? all : `The ${shown} best of ${all}`;
    state.textContent = query && (found.length ? `${best} for “${query}”.` : `No section has the words “${query}”. `);
    if (query && !found.length) state.append(nothing.content.cloneNode(true));
  }

  let waiting;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 200);
  });
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    show();
  });
  field.value = new URLSearchParams(location.search).get("q") ?? "";
  field.focus();
  field.select();
  show();
})();
