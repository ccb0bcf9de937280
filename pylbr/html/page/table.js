// Tables that are searched, sorted, and walked through by keyboard.

const FIRST_ROWS = 300;

/**
 * columns: {name, kind: "number" | "name" | "code", value(row), shown(row), part(row)?, optional?}
 * options: {order: index of the column that sorts first, up, open(row)?, label, empty}
 */
function makeTable(columns, rows, options) {
  const state = { order: options.order ?? 0, up: options.up ?? false, words: "", all: false, chosen: 0 };
  const search = element("input", {
    type: "search", placeholder: "Search (press /)", "aria-label": `Search ${options.label}`,
    oninput: () => { state.words = search.value.toLowerCase(); state.chosen = 0; draw(); },
    onkeydown: (event) => { if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); focusRow(0); } },
  });
  const count = element("span", { class: "dim", role: "status" });
  const head = element("tr");
  const body = element("tbody");
  const more = element("button", { onclick: () => { state.all = true; draw(); } });
  const heads = columns.map((column, index) => {
    const cell = element("th", { class: `${column.kind} ${column.optional ? "optional" : ""}`, scope: "col" },
      element("button", { title: column.help ?? `Sort by ${column.name}`, onclick: () => sortBy(index) }, column.name));
    head.append(cell);
    return cell;
  });

  function sortBy(index) {
    state.up = index === state.order ? !state.up : columns[index].kind !== "number";
    state.order = index;
    draw();
  }

  function ordered() {
    const { value } = columns[state.order];
    const found = rows.filter((row) => state.words === "" ||
      state.words.split(/\s+/).every((word) => options.words(row).toLowerCase().includes(word)));
    const sign = state.up ? 1 : -1;
    // What was not measured stays at the end, whichever way.
    return found.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
    });
  }

  function draw() {
    const found = ordered();
    const shown = state.all ? found : found.slice(0, FIRST_ROWS);
    heads.forEach((cell, index) => cell.setAttribute("aria-sort",
      index !== state.order ? "none" : state.up ? "ascending" : "descending"));
    body.replaceChildren(...shown.map((row, number) => line(row, number)));
    more.hidden = shown.length === found.length;
    more.textContent = `Show all ${found.length}`;
    count.textContent = `${found.length} of ${rows.length} rows` +
      (options.total > rows.length ? `; the file has ${options.total.toLocaleString("en")}` : "");
    if (!found.length) body.append(element("tr", {}, element("td", { colspan: columns.length }, options.empty ?? "None.")));
  }

  function line(row, number) {
    const cells = columns.map((column) => element("td", {
      class: `${column.kind} ${column.part ? "bar" : ""} ${column.optional ? "optional" : ""} ${column.look?.(row) ?? ""}`,
      style: column.part ? { "--part": `${100 * Math.min(column.part(row), 1)}%` } : {},
    }, column.kind === "number" ? column.shown(row) : element("div", { class: "clamp", title: column.shown(row) }, column.shown(row))));
    if (!options.open) return element("tr", {}, ...cells);
    return element("tr", {
      tabindex: number === state.chosen ? 0 : -1, "aria-selected": "false",
      onclick: () => options.open(row),
      onkeydown: (event) => keyed(event, row, number),
      onfocus: (event) => event.target.setAttribute?.("aria-selected", "true"),
      onblur: (event) => event.target.setAttribute?.("aria-selected", "false"),
    }, ...cells);
  }

  function keyed(event, row, number) {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 20, PageUp: -20, Home: -1e9, End: 1e9 }[event.key];
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Enter") options.open(row);
    else if (step === undefined) return;
    else if (number + step < 0 && number === 0) search.focus();
    else focusRow(number + step);
    event.preventDefault();
  }

  function focusRow(number) {
    const lines = body.children;
    state.chosen = Math.max(0, Math.min(number, lines.length - 1));
    for (const one of lines) if (one.tabIndex === 0) one.tabIndex = -1;
    lines[state.chosen].tabIndex = 0;
    lines[state.chosen].focus();
    lines[state.chosen].scrollIntoView({ block: "nearest" });
  }

  draw();
  return element("div", {}, element("div", { class: "tools" }, search, count),
    element("div", { class: "scroll" }, element("table", { "aria-label": options.label }, element("thead", {}, head), body)), more);
}
