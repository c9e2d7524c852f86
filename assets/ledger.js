// A form above tables that filters their rows: by lists of values, and by words. It serves the ledger of claims, whose
// rows have the values as data attributes, and the tables of bnlib.tables.FilterTable, which name the columns to filter by.
// Without this script the tables are complete. The choices are kept in the address, so that they can be linked.
addEventListener("DOMContentLoaded", () => {
  const ledger = document.querySelectorAll("table.bnb-ledger");
  const tables = ledger.length ? ledger : document.querySelectorAll("table.bnb-answers");
  const rows = [...tables].flatMap((table) => [...table.querySelectorAll("tbody tr")]);
  if (!rows.length) return;
  const keys = tables[0].dataset.filters?.split(" ") ?? ["verdict", "source", "chapter"];
  const noun = tables[0].dataset.noun ?? "claims";
  const columns = [...tables[0].querySelectorAll("thead th")].map((cell) => cell.textContent);
  for (const row of ledger.length ? [] : rows) {
    for (const key of keys) row.dataset[key] = row.cells[columns.indexOf(key)].textContent;
  }
  const asked = new URLSearchParams(location.search);
  const form = document.createElement("form");
  form.className = "bnb-filter";
  form.setAttribute("role", "search");
  form.setAttribute("aria-label", `Filter the ${noun}`);
  for (const key of keys) {
    const select = document.createElement("select");
    select.name = key;
    select.add(new Option("all", ""));
    const values = [...new Set(rows.map((row) => row.dataset[key]))];
    if (key === "chapter") values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    for (const value of values) select.add(new Option(value));
    form.append(labelled(key, select));
  }
  const words = document.createElement("input");
  words.type = "search";
  words.name = "words";
  const reset = document.createElement("button");
  reset.type = "reset";
  reset.textContent = "Show all";
  const count = document.createElement("output");
  form.append(labelled("words", words), reset, count);

  function labelled(name, control) {
    const label = document.createElement("label");
    label.append(name, control);
    return label;
  }

  function filter() {
    const chosen = Object.fromEntries(new FormData(form));
    const searched = chosen.words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = keys.every((key) => !chosen[key] || chosen[key] === row.dataset[key]);
      row.hidden = !(fits && searched.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    for (const table of ledger) {
      table.closest("section").hidden = !table.querySelector("tbody tr:not([hidden])");
    }
    count.textContent = `${shown} of ${rows.length} ${noun}`;
    const kept = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value)).toString();
    history.replaceState(null, "", `${location.pathname}${kept && `?${kept}`}${location.hash}`);
  }

  for (const control of form.elements) if (asked.has(control.name)) control.value = asked.get(control.name);
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  rows[0].closest(ledger.length ? "section" : ".bnb-answers-box").before(form);
  filter();
});
