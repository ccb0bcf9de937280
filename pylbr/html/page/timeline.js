// Who owns the registers when: lanes of spans, from Trace Event files.

const LANE_HEIGHT = 26;

function timelineView(view) {
  if (!profile.timelines.length) {
    view.append(element("p", {}, "No timeline was given: ", element("code", {}, "pylbr report --timeline FILE.trace.json --html out.html"),
      " draws one that pylbr verify --out has written."));
    return;
  }
  for (const one of profile.timelines) view.append(drawnTimeline(one, view));
}

/** Colours by name, the same in all lanes; owners and modes are few. */
function colourOf(names) {
  const order = new Map(names.map((name, index) => [name, index]));
  return (name) => TINTS[order.get(name) % TINTS.length];
}

function drawnTimeline(timeline, view) {
  const width = Math.max(320, view.clientWidth - 34);
  const margin = { left: Math.min(190, width * 0.34), top: 8, bottom: 42, right: 12 };
  const height = margin.top + LANE_HEIGHT * timeline.lanes.length + margin.bottom;
  const names = [...new Set(timeline.spans.filter((span) => timeline.lanes[span[0]].states).map((span) => span[1]))];
  const colour = colourOf(names);
  const time = libraries.scaleLinear().domain([0, timeline.end]).range([margin.left, width - margin.right]);
  const picture = svg("svg", { width, height, role: "img", tabindex: 0, "aria-label": `Timeline of ${timeline.name}` });
  const spans = svg("g", { "clip-path": `url(#clip-${timeline.number})` });
  const axis = svg("g", { class: "axis", transform: `translate(0,${height - margin.bottom})` });
  const title = svg("text", { x: (margin.left + width) / 2, y: height - 6, "text-anchor": "middle" });
  title.textContent = timeline.unit;
  picture.append(svg("clipPath", { id: `clip-${timeline.number}` }, svg("rect", { x: margin.left, y: 0, width: width - margin.left - margin.right, height })), spans, axis, title);
  timeline.lanes.forEach((lane, index) => {
    const label = svg("text", { x: margin.left - 6, y: margin.top + LANE_HEIGHT * index + 17, "text-anchor": "end" });
    const words = lane.name;
    label.textContent = words.length * 6.2 > margin.left ? `${words.slice(0, Math.floor(margin.left / 6.2) - 1)}\u2026` : words;
    label.append(svg("title"));
    label.lastChild.textContent = words;
    picture.append(label);
  });
  const details = element("p", { class: "dim", role: "status" }, "Wheel, +, \u2212 and arrow keys enlarge and move it.");
  const draw = (scale) => {
    spans.replaceChildren(...timeline.spans.flatMap((span) => drawnSpan(span, scale, margin, colour, timeline, details)),
      ...timeline.marks.flatMap((mark) => drawnMark(mark, scale, margin, height)));
    libraries.select(axis).call(libraries.axisBottom(scale).ticks(Math.max(3, width / 110)));
  };
  const zooming = libraries.zoom().scaleExtent([1, 200]).translateExtent([[margin.left, 0], [width - margin.right, height]])
    .extent([[margin.left, 0], [width - margin.right, height]]).on("zoom", (event) => draw(event.transform.rescaleX(time)));
  const canvas = libraries.select(picture).call(zooming);
  picture.addEventListener("keydown", (event) => {
    if (event.key === "+") canvas.call(zooming.scaleBy, 1.5);
    else if (event.key === "-") canvas.call(zooming.scaleBy, 1 / 1.5);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") canvas.call(zooming.translateBy, event.key === "ArrowLeft" ? 40 : -40, 0);
    else return;
    event.preventDefault();
  });
  draw(time);
  return element("section", {}, element("h2", {}, timeline.name),
    element("div", { class: "legend" }, ...names.map((name) => swatch(colour(name), name)),
      ...(timeline.marks.length ? [element("span", {}, "\u25bc ", timeline.markNames)] : [])),
    element("div", { class: "scroll" }, picture), details, spansTable(timeline));
}

function drawnSpan([lane, name, start, length, note], scale, margin, colour, timeline, details) {
  const [x1, x2] = [scale(start), scale(start + length)];
  const y = margin.top + LANE_HEIGHT * lane;
  const rect = svg("rect", { x: x1, y: y + 3, width: Math.max(1, x2 - x1 - 0.5), height: LANE_HEIGHT - 6, rx: 2,
    fill: timeline.lanes[lane].states ? colour(name) : "var(--bar)", stroke: "var(--back)" }, svg("title"));
  const words = `${timeline.lanes[lane].name}: ${name}, from ${whole(start)} to ${whole(start + length)}${note ? `; ${note}` : ""}`;
  rect.firstChild.textContent = words;
  rect.addEventListener("mouseenter", () => { details.textContent = words; });
  const room = Math.floor((x2 - x1 - 6) / 6.4);
  if (room < 3) return [rect];
  const label = svg("text", { x: x1 + 4, y: y + 17, style: `fill:${timeline.lanes[lane].states ? "#15191d" : "var(--text)"};pointer-events:none` });
  label.textContent = name.length > room ? `${name.slice(0, room - 1)}\u2026` : name;
  return [rect, label];
}

function drawnMark([, name, at], scale, margin, height) {
  const x = scale(at);
  const mark = svg("path", { d: `M${x - 6},0 H${x + 6} L${x},10 Z M${x},10 V${height - margin.bottom}`, fill: "var(--worse)", stroke: "var(--worse)", "stroke-width": 1.5 }, svg("title"));
  mark.firstChild.textContent = `${name}, at ${whole(at)}`;
  return [mark];
}

function spansTable(timeline) {
  const events = [...timeline.spans.map((span) => ({ lane: timeline.lanes[span[0]].name, name: span[1], start: span[2], length: span[3], note: span[4] })),
    ...timeline.marks.map((mark) => ({ lane: timeline.lanes[mark[0]]?.name ?? "", name: mark[1], start: mark[2], length: null, note: "" }))];
  return element("details", {}, element("summary", {}, "As a table"), makeTable([
    { name: "from", kind: "number", value: (e) => e.start, shown: (e) => whole(e.start) },
    { name: "length", kind: "number", value: (e) => e.length, shown: (e) => e.length === null ? "" : whole(e.length) },
    { name: "lane", kind: "name", value: (e) => e.lane, shown: (e) => e.lane },
    { name: "what", kind: "name", value: (e) => e.name, shown: (e) => e.name },
    { name: "note", kind: "name", value: (e) => e.note, shown: (e) => e.note },
  ], events, { up: true, label: `events of ${timeline.name}`, words: (e) => `${e.lane} ${e.name} ${e.note}` }));
}
