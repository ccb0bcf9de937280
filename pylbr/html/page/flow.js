// Basic blocks of a function and the ways between them, laid out by dagre.

const BLOCK_LINES = 8;
const LINE = 14;

function flowView(view, number) {
  if (!profile.codes.length) {
    view.append(element("p", {}, "No control flow can be shown: the files that ran cannot be read here."));
    return;
  }
  const code = profile.codes[number];
  view.append(element("div", { class: "tools" }, chooser(number, (chosen) => go("flow", chosen)),
    element("button", { onclick: () => go("code", number) }, "Code"),
    element("button", { onclick: () => scale(1.3), "aria-label": "Larger" }, "+"),
    element("button", { onclick: () => scale(1 / 1.3), "aria-label": "Smaller" }, "\u2212"),
    element("button", { onclick: () => fit() }, "Fit")), codeHead(code),
  element("div", { class: "legend" }, lineSample("way-forward", "taken branch, forward"),
    lineSample("way-backward", "taken branch, backward"), lineSample("way-through", "not taken: falls through"),
    element("span", { class: "dim" }, "numbers: how often" + (code.blocks.length < code.allBlocks ? `; the ${code.blocks.length} hottest of ${code.allBlocks} blocks` : ""))));
  const graph = laidOutBlocks(code);
  const scene = svg("g");
  const picture = svg("svg", { class: "canvas", tabindex: 0, role: "img", "aria-label": `Control flow of ${code.name}` }, scene);
  view.append(picture);
  for (const edge of graph.edges()) scene.append(...drawnWay(graph.edge(edge)));
  for (const name of graph.nodes()) scene.append(drawnBlock(graph.node(name)));
  for (const edge of graph.edges()) scene.append(wayLabel(graph.edge(edge)));
  const zooming = libraries.zoom().scaleExtent([0.05, 4]).on("zoom", (event) => scene.setAttribute("transform", event.transform));
  const canvas = libraries.select(picture).call(zooming);
  const scale = (factor) => canvas.call(zooming.scaleBy, factor);
  const box = () => picture.getBoundingClientRect();
  const fit = () => {
    const { width, height } = graph.graph();
    const size = Math.min(1.2, (box().width - 20) / width, (box().height - 20) / height);
    canvas.call(zooming.transform, libraries.zoomIdentity.translate((box().width - width * size) / 2, 10).scale(size));
  };
  /** As large as can be read, with the first block on top. */
  const begin = () => {
    const size = Math.max(0.8, Math.min(1.1, (box().width - 20) / graph.graph().width));
    const first = graph.node("0");
    canvas.call(zooming.transform, libraries.zoomIdentity.translate(box().width / 2 - first.x * size, 14 - (first.y - first.height / 2) * size).scale(size));
  };
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (step) canvas.call(zooming.translateBy, ...step);
    else if (event.key === "+") scale(1.3);
    else if (event.key === "-") scale(1 / 1.3);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  });
  begin();
}

const lineOf = (code, row) => `${hexadecimal(code.start + row[0])}  ${text(row[1])}`;

function blockLines(code, block) {
  const rows = code.rows.slice(block[0], block[1] + 1).filter((row) => row.length > 1);
  const head = `${whole(block[2])} passes` + (block[3] === null ? "" : `, ${decimal(block[3])} cycles each`);
  const shown = rows.length > BLOCK_LINES
    ? [...rows.slice(0, BLOCK_LINES - 2).map((row) => lineOf(code, row)), `\u2026 ${rows.length - BLOCK_LINES + 1} more`, lineOf(code, rows.at(-1))]
    : rows.map((row) => lineOf(code, row));
  return [head, ...shown.map((line) => line.length > 46 ? `${line.slice(0, 45)}\u2026` : line)];
}

function laidOutBlocks(code) {
  const graph = new libraries.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 42, marginx: 8, marginy: 8 });
  graph.setDefaultEdgeLabel(() => ({}));
  code.blocks.forEach((block, number) => {
    const lines = blockLines(code, block);
    graph.setNode(`${number}`, { lines, width: 16 + 6.7 * Math.max(...lines.map((line) => line.length)), height: 10 + LINE * lines.length });
  });
  const most = Math.max(1, ...code.flow.map((way) => way[2]));
  for (const [from, to, count, missed, taken] of code.flow) {
    const label = short(count) + (missed ? `, ${(100 * missed / count).toFixed(1)} % missed` : "");
    const back = code.blocks[to][0] <= code.blocks[from][0];
    graph.setEdge(`${from}`, `${to}`, { label, width: 6 * label.length, height: 12, labelpos: "c", weight: taken ? 1 : 3,
      kind: !taken ? "way-through" : back ? "way-backward" : "way-forward", thick: 1 + 4 * Math.sqrt(count / most) }, taken ? "taken" : "through");
  }
  libraries.layout(graph);
  return graph;
}

function wayLabel(way) {
  const label = svg("text", { x: way.x, y: way.y + 4, "text-anchor": "middle", class: "halo" });
  label.textContent = way.label;
  return label;
}

function drawnWay(way) {
  const draw = libraries.line().x((p) => p.x).y((p) => p.y).curve(libraries.curveBasis);
  const points = way.points;
  const last = points.at(-1);
  const before = points.at(-2);
  const angle = Math.atan2(last.y - before.y, last.x - before.x) * 180 / Math.PI;
  const tip = svg("path", { class: way.kind, d: "M-9,-5 L0,0 L-9,5", fill: "none", "stroke-width": 2, style: "stroke-dasharray: none",
    transform: `translate(${last.x},${last.y}) rotate(${angle})` });
  return [svg("path", { class: way.kind, d: draw(points), fill: "none", "stroke-width": way.thick }), tip];
}

function drawnBlock(node) {
  const [left, top] = [node.x - node.width / 2, node.y - node.height / 2];
  const made = svg("g", { class: "node", transform: `translate(${left},${top})` }, svg("rect", { width: node.width, height: node.height, rx: 4 }));
  node.lines.forEach((line, index) => {
    const label = svg("text", { x: 8, y: 17 + LINE * index, "xml:space": "preserve", ...(index ? {} : { "font-weight": "bold" }) });
    label.textContent = line;
    made.append(label);
  });
  return made;
}
