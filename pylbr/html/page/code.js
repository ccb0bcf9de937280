// Source and instructions of a function, with arrows for its hot branches.

const ROW = 20;          // pixels of a line, as in page.css
const LANE = 9;          // pixels between two arrows
const MOST_ARROWS = 60;
const MOST_LANES = 9;
const MOST_LABELS = 12;

/** The lists from which a function is chosen. */
function chooser(current, show) {
  return element("select", { "aria-label": "Function", onchange: (event) => show(Number(event.target.value)) },
    ...profile.codes.map((code, number) => element("option",
      { value: number, ...(number === current ? { selected: "" } : {}) }, code.name)));
}

function codeView(view, number) {
  if (!profile.codes.length) {
    view.append(element("p", {}, "No code can be shown: the files that ran cannot be read here, or have no branches."));
    return;
  }
  const code = profile.codes[number];
  view.append(element("div", { class: "tools" }, chooser(number, (chosen) => go("code", chosen)),
    element("button", { onclick: () => go("flow", number) }, "Control flow")), codeHead(code),
    element("div", { class: "legend" }, lineSample("way-forward", "taken branch, forward"),
      lineSample("way-backward", "taken branch, backward"), element("span", { class: "dim" }, "wider: more often")));
  const listing = instructions(code);
  const source = sources(code, listing);
  view.append(element("div", { class: `code-panes ${source ? "" : "alone"}` },
    ...(source ? [element("div", { class: "scroll", tabindex: 0, "aria-label": "Source" }, source.list)] : []),
    element("div", { class: "scroll", tabindex: 0, "aria-label": "Instructions" }, listing.list)));
  if (!source) view.append(element("p", { class: "dim" }, "No source lines: the file has no debug information (-g), or its source is not here."));
}

function codeHead(code) {
  const f = profile.functions[code.row];
  return element("div", {}, element("h2", {}, code.name), element("p", { class: "dim" },
    `${text(f[1])} \u00b7 ${whole(f[3])} taken branches \u00b7 entered ${whole(f[5])} times` +
    (f[2] === null ? "" : ` \u00b7 ${whole(f[2])} cycles`)));
}

/** Where branches lead out of the function: a button where its code is on the page. */
function outside(way, missed) {
  const label = `\u2192 ${whole(way.count)} to ${text(way.place)}${missed}`;
  return way.code < 0 ? element("span", { class: "dim" }, label)
    : element("button", { onclick: () => go("code", way.code) }, label);
}

function instructions(code) {
  const most = Math.max(1, ...code.rows.map((row) => row[2] ?? 0));
  const lanes = laidOut(code);
  const width = lanes.width;
  const list = element("div", { class: "listing" }, element("div", { class: "row head" },
    element("span", { style: { width: `${width}px` } }), element("span", { class: "heat" }),
    element("span", { class: "count" }, "passes"), element("span", { class: "mean" }, "cycles"),
    element("span", { class: "address" }, "address"), element("span", { class: "text" }, "instruction"),
    element("span", {}, "taken branches")));
  const lines = code.rows.map((row, index) => {
    const gap = element("span", { style: { width: `${width}px` } });
    if (row.length === 1) {
      return element("div", { class: "row skip" }, gap, element("span", { class: "heat" }),
        `${" ".repeat(28)}${row[0]} instructions that no run passes`);
    }
    const block = code.means[index];
    const made = element("div", { class: `row ${block === undefined ? "" : "block"}`, "data-row": index }, gap,
      element("span", { class: "heat", style: { "--part": row[2] / most } }),
      element("span", { class: "count" }, whole(row[2])),
      element("span", { class: "mean" }, block === undefined ? "" : decimal(block)),
      element("span", { class: "address" }, hexadecimal(code.start + row[0])),
      element("span", { class: "text" }, text(row[1])));
    return made;
  });
  for (const [from, to, count, missed] of code.ways) {
    lines[from].append(element("button", { title: "Go to the target", onclick: () => reach(lines, to) },
      `\u2192 ${whole(count)}${share(count, code.rows[from][2])} to ${hexadecimal(code.start + code.rows[to][0])}${rate(missed, count)}`));
  }
  for (const [from, place, count, missed, target] of code.out) {
    lines[from].append(outside({ count, place, code: target }, rate(missed, count)));
  }
  list.append(...lines, lanes.draw());
  return { list, lines };
}

const share = (part, all) => part <= all ? ` (${(100 * part / all).toFixed(1)} %)` : "";
const rate = (missed, count) => missed === null ? "" : `, ${(100 * missed / count).toFixed(1)} % missed`;

function reach(lines, index) {
  for (const line of lines) line.classList.remove("found");
  lines[index].classList.add("found");
  lines[index].scrollIntoView({ block: "center" });
}

/** A lane for each of the hottest branches within the function: short ones next to the code. */
function laidOut(code) {
  const ways = [...code.ways].sort((a, b) => b[2] - a[2]).slice(0, MOST_ARROWS)
    .sort((a, b) => Math.abs(a[0] - a[1]) - Math.abs(b[0] - b[1]));
  const taken = [];
  const arrows = [];
  for (const way of ways) {
    const [low, high] = [Math.min(way[0], way[1]), Math.max(way[0], way[1])];
    let lane = taken.findIndex((spans) => spans.every(([a, b]) => high < a || low > b));
    if (lane < 0) { lane = Math.min(taken.length, MOST_LANES - 1); taken[lane] ??= []; }
    taken[lane].push([low, high]);
    arrows.push({ way, lane });
  }
  const width = arrows.length ? 46 + LANE * Math.max(1, taken.length) : 6;
  const most = Math.max(1, ...ways.map((way) => way[2]));
  const draw = () => {
    const picture = svg("svg", { width, height: code.rows.length * ROW, role: "img", "aria-label": "Arrows of the hottest branches" });
    const labelled = new Set([...arrows].sort((a, b) => b.way[2] - a.way[2]).slice(0, MOST_LABELS));
    for (const arrow of arrows) picture.append(...drawnArrow(arrow, code, width, most));
    for (const arrow of labelled) picture.append(arrowLabel(arrow, width));
    return picture;
  };
  return { width, draw };
}

const laneAt = (lane, width) => width - 10 - LANE * (lane + 1);
const leavesAt = (row) => row * ROW + ROW * 0.62;
const arrivesAt = (row) => row * ROW + ROW * 0.38;

function drawnArrow({ way, lane }, code, width, most) {
  const [from, to, count] = way;
  const [y1, y2] = [leavesAt(from), arrivesAt(to)];
  const x = laneAt(lane, width);
  const bend = y2 > y1 ? 4 : -4;
  const kind = to <= from ? "way-backward" : "way-forward";
  const path = svg("path", { class: kind, "stroke-width": 1 + 3 * Math.sqrt(count / most), "data-from": from, "data-to": to,
    d: `M${width - 2},${y1} H${x + 4} Q${x},${y1} ${x},${y1 + bend} V${y2 - bend} Q${x},${y2} ${x + 4},${y2} H${width - 5}` }, svg("title"));
  path.firstChild.textContent = `${whole(count)} times from ${hexadecimal(code.start + code.rows[from][0])} to ${hexadecimal(code.start + code.rows[to][0])}`;
  return [path, svg("path", { class: kind, "stroke-width": 1.5, style: "stroke-dasharray:none", d: `M${width - 8},${y2 - 4} L${width - 2},${y2} L${width - 8},${y2 + 4}` })];
}

function arrowLabel({ way, lane }, width) {
  const label = svg("text", { x: laneAt(lane, width) - 3, y: leavesAt(way[0]) + (arrivesAt(way[1]) - leavesAt(way[0])) * (0.3 + 0.2 * (lane % 3)) + 4, "text-anchor": "end", class: "halo" });
  label.textContent = short(way[2]);
  return label;
}

/** Lines of source around those that the function has instructions of. */
function sources(code, listing) {
  if (!code.source.length) return null;
  const most = Math.max(1e-9, ...code.source.map((line) => line[3] ?? 0));
  const list = element("div", { class: "listing" }, element("div", { class: "row head" },
    element("span", { class: "heat" }), element("span", { class: "count" }, profile.cycles ? "cycles" : "executed"),
    element("span", { class: "mean" }, "line"), "source"));
  let before = [-1, 0];
  code.source.forEach(([file, number, content, weight], index) => {
    if (file !== before[0]) list.append(element("div", { class: "row file" }, text(file)));
    else if (number !== before[1] + 1) list.append(element("div", { class: "row skip" }, `${" ".repeat(12)}\u2026`));
    before = [file, number];
    const line = element("div", { class: "row", "data-line": index }, element("span", { class: "heat", style: { "--part": (weight ?? 0) / most } }),
      element("span", { class: "count" }, weight === null ? "" : whole(weight)),
      element("span", { class: "mean" }, `${number}`), content === null ? "" : text(content));
    if (weight !== null) {
      line.style.cursor = "pointer";
      line.tabIndex = 0;
      const choose = () => chooseLine(list, listing, line, code, index);
      line.addEventListener("click", choose);
      line.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
    }
    list.append(line);
  });
  return { list };
}

/** Mark a line of source and its instructions. */
function chooseLine(list, listing, line, code, index) {
  for (const one of [...list.children, ...listing.lines]) one.classList.remove("chosen");
  line.classList.add("chosen");
  const found = listing.lines.filter((_, row) => code.rows[row][3] === index);
  for (const one of found) one.classList.add("chosen");
  found[0]?.scrollIntoView({ block: "center" });
}
