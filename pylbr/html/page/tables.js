// The functions, the other tables of the report, and the comparison of two profiles.

function functionsView(view) {
  const [cycles, branches] = [libraries.sum(profile.functions, (f) => f[2] ?? 0), libraries.sum(profile.functions, (f) => f[3])];
  const part = (f) => cycles ? (f[2] ?? 0) / cycles : branches ? f[3] / branches : 0;
  const number = (name, index, help, optional) => ({ name, kind: "number", help, optional, value: (f) => f[index], shown: (f) => whole(f[index]) });
  const columns = [
    { name: "share", kind: "number", help: `Share of all ${cycles ? "cycles" : "taken branches"}`, value: part, part, shown: (f) => percent(part(f)) },
    ...(profile.cycles ? [number("cycles", 2, "Cycles of straight runs in it")] : []),
    number("branches", 3, "Taken branches from its instructions"),
    { name: "missed", kind: "number", help: "Share of its branches that were mispredicted", value: missedOf, shown: (f) => percent(missedOf(f)) },
    number("entered", 5, "Taken branches to its first byte", true), ...(profile.samples ? [number("samples", 6, "Samples taken in it", true)] : []),
    { name: "function", kind: "name", value: (f) => text(f[0]), shown: (f) => text(f[0]) || "[no symbol]" },
    { name: "file", kind: "name", optional: true, value: (f) => text(f[1]), shown: (f) => text(f[1]) || "[not mapped]" },
  ];
  view.append(makeTable(columns, profile.functions, { order: 0, label: "functions", total: profile.allFunctions,
    words: (f) => `${text(f[0])} ${text(f[1])}`, open: (f) => opened(view, f) }));
}

const missedOf = (f) => f[4] === null || !f[3] ? null : f[4] / f[3];

function opened(view, f) {
  if (f[7] >= 0) { go("code", f[7]); return; }
  view.querySelector(".notice")?.remove();
  view.prepend(element("p", { class: "notice", role: "alert" }, `The code of ${text(f[0]) || "this file"} is not on this page: it cannot be read here, or is too cold.`));
}

const KINDS = { share: percent, mispredict_rate: percent, mean_cycles: decimal };
const NAMES = { mispredict_rate: "missed", mean_cycles: "cycles/pass", from_symbol: "from", to_symbol: "to", first_symbol: "first", last_symbol: "last", branch_symbol: "branch" };
const UNNAMED = { function: "[no symbol]", caller: "[no symbol]", file: "[not mapped]", caller_file: "[not mapped]" };
/** Columns that go if nothing of them was measured: on a narrow page they would push out the names. */
const MEASURED = ["cycles", "mean_cycles", "mispredict_rate", "mispredicted"];
const SAME = { from: "from_symbol", to: "to_symbol", first: "first_symbol", last: "last_symbol", branch: "branch_symbol" };

/** Rows as `pylbr report --json` has them. */
function plainTable(rows, columns, label, total) {
  const absent = MEASURED.filter((name) => columns.includes(name) && rows.length && rows.every((row) => row[columns.indexOf(name)] === null));
  const shown = columns.filter((name) => !(SAME[name] && columns.includes(SAME[name])) && !absent.includes(name));
  const table = makeTable(shown.map((name) => {
    const index = columns.indexOf(name);
    const numeric = rows.some((row) => typeof row[index] === "number") || name in KINDS;
    const kind = numeric ? "number" : name === "text" ? "code" : "name";
    const value = (row) => row[index];
    const format = KINDS[name] ?? whole;
    return { name: NAMES[name] ?? name, kind, value, shown: (row) => numeric ? format(value(row)) : value(row) === null ? NOT_MEASURED : value(row) || UNNAMED[name] || "", ...(name === "share" ? { part: value } : {}) };
  }), rows, { order: 0, label, total, words: (row) => row.join(" "), empty: "None, or not recorded." });
  if (absent.length) table.append(element("p", { class: "dim" }, `Not measured: ${absent.map((name) => NAMES[name] ?? name).join(", ")}.`));
  return table;
}

function tablesView(view, name) {
  const names = Object.keys(profile.tables);
  const chosen = names.includes(name) ? name : names[0];
  const table = profile.tables[chosen];
  view.append(element("div", { class: "tools", role: "group", "aria-label": "Table" }, ...names.map((one) => element("button",
    { "aria-pressed": `${one === chosen}`, onclick: () => go("tables", one), style: one === chosen ? { "border-color": "var(--accent)", "font-weight": "600" } : {} }, one))),
  element("p", { class: "dim" }, table.heading), plainTable(table.rows, table.columns, chosen, table.total));
}

function compareView(view) {
  const compared = profile.compared;
  if (!compared) {
    view.append(element("p", {}, "One profile alone. To compare it with an earlier one: ",
      element("code", {}, "pylbr report after.perf.data --diff before.perf.data --html out.html")));
    return;
  }
  const figures = [["taken branches counted", "branches", whole], ["bytes of code between taken branches", "run_bytes", decimal],
    ["cycles per taken branch", "cycles_per_branch", decimal], ["mispredicted", "mispredict_rate", percent]];
  view.append(element("p", {}, `before: ${compared.names[0]}`), element("p", {}, `after: ${compared.names[1]}`),
    element("div", { class: "scroll figures" }, element("table", {}, element("thead", {}, element("tr", {}, ...["", "before", "after"].map((name) => element("th", { class: name ? "number" : "" }, element("button", { tabindex: -1 }, name))))),
      element("tbody", {}, ...figures.map(([label, key, format]) => element("tr", {}, element("td", {}, label),
        ...compared.sides.map((side) => element("td", { class: "number" }, format(side[key])))))))), dumbbells(compared, view));
  const signed = (value) => `${value > 0 ? "+" : ""}${(100 * value).toFixed(2)} %`;
  const share = (name, index) => ({ name, kind: "number", value: (row) => row[index], shown: (row) => percent(row[index]) });
  view.append(makeTable([
    { name: "change", kind: "number", help: "Sort by the size of the change", value: (row) => Math.abs(row[0]), shown: (row) => signed(row[0]), look: (row) => row[0] > 0 ? "worse" : "better" },
    share("before", 1), share("after", 2), { ...share("missed before", 5), optional: true }, { ...share("missed after", 6), optional: true },
    { name: "function", kind: "name", value: (row) => row[7], shown: (row) => row[7] || UNNAMED.function },
  ], compared.rows, { order: 0, label: "functions compared", total: compared.total, words: (row) => `${row[7]} ${row[8]}` }));
}

/** The functions that changed most: a point for each profile, and what lies between. */
function dumbbells(compared, view) {
  const rows = compared.rows.slice(0, 15);
  const width = Math.max(320, Math.min(900, view.clientWidth - 8));
  const margin = { left: Math.min(280, width * 0.42), right: 16, top: 6, bottom: 40 };
  const height = margin.top + 22 * rows.length + margin.bottom;
  const most = libraries.max(rows, (row) => Math.max(row[1], row[2])) || 1;
  const x = libraries.scaleLinear().domain([0, most * 100]).nice().range([margin.left, width - margin.right]);
  const y = libraries.scaleBand().domain(rows.map((_, index) => index)).range([margin.top, height - margin.bottom]);
  const picture = svg("svg", { width, height, role: "img", "aria-label": "Shares before and after" });
  const axis = svg("g", { class: "axis", transform: `translate(0,${height - margin.bottom})` });
  libraries.select(axis).call(libraries.axisBottom(x).ticks(5));
  const title = svg("text", { x: (margin.left + width - margin.right) / 2, y: height - 6, "text-anchor": "middle" });
  title.textContent = `share of all ${compared.measure}, per cent`;
  picture.append(axis, title);
  rows.forEach((row, index) => {
    const middle = y(index) + y.bandwidth() / 2;
    const [before, after] = [x(100 * row[1]), x(100 * row[2])];
    const room = Math.floor((margin.left - 8) / 7.2);
    const label = svg("text", { x: margin.left - 8, y: middle + 4, "text-anchor": "end" });
    label.textContent = row[7].length > room ? `${row[7].slice(0, room - 1)}\u2026` : row[7];
    picture.append(svg("line", { x1: before, x2: after, y1: middle, y2: middle, stroke: "var(--through)", "stroke-width": 2 }),
      svg("circle", { cx: before, cy: middle, r: 5, fill: "var(--back)", stroke: "var(--backward)", "stroke-width": 2 }),
      svg("circle", { cx: after, cy: middle, r: 5, fill: "var(--forward)" }), label);
  });
  const dot = (attributes, label) => element("span", {}, svg("svg", { width: 14, height: 12 }, svg("circle", { cx: 7, cy: 6, r: 5, ...attributes })), label);
  return element("div", {}, element("div", { class: "legend" }, dot({ fill: "var(--back)", stroke: "var(--backward)", "stroke-width": 2 }, "before"), dot({ fill: "var(--forward)" }, "after")), picture);
}
