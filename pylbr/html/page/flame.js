// Flame graph of the call stacks, by d3-flame-graph.

function flameView(view) {
  if (!profile.flame) {
    view.append(element("p", {}, "The recording has no call stacks. Ways to have them:"), element("ul", {},
      ...["pylbr record --full -o app.arrow -- PROGRAM, then pylbr report app.arrow --html out.html",
        "pylbr replay --call-graph lbr app.arrow -o app.perf.data",
        "perf record --call-graph lbr -- PROGRAM on a processor with LBRs"].map((line) => element("li", {}, element("code", {}, line)))));
    return;
  }
  const { root, files } = grown(profile.flame);
  const colours = new Map(files.map((file, index) => [file, TINTS[Math.min(index, TINTS.length - 1)]]));
  const details = element("p", { id: "details", role: "status" });
  const search = element("input", { type: "search", placeholder: "Search (press /)", "aria-label": "Search the flame graph",
    oninput: () => { if (search.value) chart.search(search.value); else { chart.clear(); details.textContent = usual; } } });
  const place = element("div", { class: "scroll flame", "aria-label": "Flame graph" });
  const usual = `${whole(root.value)} ${profile.flame.unit}; a frame's width is its share, callees are above their callers`;
  view.append(element("div", { class: "tools" }, search, element("button", { onclick: () => chart.resetZoom() }, "Whole graph")),
    element("div", { class: "legend" }, ...[...colours].slice(0, TINTS.length - 1).map(([file, colour]) => swatch(colour, baseName(file) || "no file")),
      ...(files.length >= TINTS.length ? [swatch(TINTS.at(-1), "other files")] : [])), details, place);
  details.textContent = usual;
  const label = (node) => `${node.data.name} (${baseName(node.data.file) || "no file"}): ${whole(node.data.value)} ${profile.flame.unit}, ${percent(node.data.value / root.value)}`;
  const chart = libraries.flamegraph().width(place.clientWidth - 2).cellHeight(20).minFrameSize(1).transitionDuration(0).sort(true)
    .setColorMapper((node) => node.highlight ? "#ff6ad5" : colours.get(node.data.file) ?? TINTS.at(-1))
    .setLabelHandler(label).setDetailsHandler((words) => { details.textContent = words || usual; })
    .setSearchMatch((node, words) => node.data.name.toLowerCase().includes(words.toLowerCase()))
    .setSearchHandler((_, found, all) => { details.textContent = `found: ${percent(found / all)} of ${profile.flame.unit}`; });
  libraries.select(place).datum(root).call(chart);
  place.scrollTop = place.scrollHeight;
  walkable(place, details, label, chart);
}

/** The nested form that the library takes, and files by how much is in them. */
function grown(flame) {
  const nodes = flame.nodes.map(([, name, file, value]) => ({ name: text(name), file: text(file), value, children: [] }));
  flame.nodes.forEach(([parent], number) => { if (parent >= 0) nodes[parent].children.push(nodes[number]); });
  const own = new Map();
  for (const node of nodes.slice(1)) {
    const self = node.value - libraries.sum(node.children, (child) => child.value);
    own.set(node.file, (own.get(node.file) ?? 0) + self);
  }
  return { root: nodes[0], files: [...own].sort((a, b) => b[1] - a[1]).map(([file]) => file) };
}

/** Arrow keys go from frame to frame; Enter enlarges one, Escape shows all. */
function walkable(place, details, label, chart) {
  const frames = () => [...place.querySelectorAll("g.frame")];
  const of = (node) => frames().find((frame) => frame.__data__ === node);
  place.addEventListener("keydown", (event) => {
    const node = event.target.__data__;
    if (event.key === "Escape") { chart.resetZoom(); frames()[0]?.focus(); return; }
    if (!node) return;
    const row = node.parent ? node.parent.children : [node];
    const next = { ArrowUp: () => node.children?.[0], ArrowDown: () => node.parent,
      ArrowLeft: () => row[row.indexOf(node) - 1], ArrowRight: () => row[row.indexOf(node) + 1] }[event.key];
    if (event.key === "Enter") event.target.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    else if (next) { const frame = next() && of(next()); if (frame) { frame.tabIndex = 0; frame.focus(); } }
    else return;
    event.preventDefault();
  });
  place.addEventListener("focusin", (event) => { if (event.target.__data__?.data) details.textContent = label(event.target.__data__); });
  const first = frames()[0];
  if (first) first.setAttribute("tabindex", "0");
}
